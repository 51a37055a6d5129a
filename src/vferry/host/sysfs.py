"""Reading what the kernel says in sysfs and in /proc."""

from pathlib import Path


def read_file(path: Path) -> str:
    """What a file says, without blanks around it; nothing where it is not there, or its driver does not say."""
    # Some attributes exist and answer EOPNOTSUPP.
    try:
        return path.read_text().strip()
    except OSError:
        return ""
