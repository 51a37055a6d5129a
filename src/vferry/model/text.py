"""Text that comes from elsewhere: what a guest or its agent says is whatever it likes."""

MOST = 200
"""Letters of one thing that is said: as much as a line of a terminal or two."""


def clean(text: str, most: int | None = None) -> str:
    """Text that cannot steer a terminal, cut if it is longer than `most` letters."""
    cut = text if most is None or len(text) <= most else f"{text[: most - 1]}…"
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in cut)


def clean_lines(text: str) -> str:
    """As `clean`, for text of several lines, which may have tabs in them."""
    return "".join(letter if letter in "\n\t" else clean(letter) for letter in text)
