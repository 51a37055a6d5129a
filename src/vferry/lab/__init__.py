"""Two SR-IOV hosts without hardware."""

from vferry.lab.lab import Lab

__all__ = ["Lab"]
