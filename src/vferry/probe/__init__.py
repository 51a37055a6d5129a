"""Packets: measuring the interruption."""
