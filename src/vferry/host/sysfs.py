"""What the kernel says in sysfs and in /proc, and telling it."""

from collections.abc import Callable
from pathlib import Path

Write = Callable[[Path, str], None]


def read_file(path: Path) -> str:
    """What a file says, without blanks around it; nothing where it is not there, or its driver does not say."""
    # Some attributes exist and answer EOPNOTSUPP.
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def write_attribute(path: Path, text: str) -> None:
    """Writes an attribute in one go. `OSError` is the kernel's answer."""
    with path.open("w") as file:
        file.write(text)
