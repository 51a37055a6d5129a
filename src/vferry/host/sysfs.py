"""Writing to the kernel's attributes."""

from collections.abc import Callable
from pathlib import Path

Write = Callable[[Path, str], None]


def write_attribute(path: Path, text: str) -> None:
    """Writes an attribute in one go. `OSError` is the kernel's answer."""
    with path.open("w") as file:
        file.write(text)
