"""Two SR-IOV hosts without hardware."""
