"""Rates on the command line: bytes per second, as a number or with K, M or G."""

import re

import click

_FACTORS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


def rate(written: str) -> int:
    """Bytes per second from a positive number such as 50M or 1.5G. Raises `click.BadParameter`."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMG]?)", written, re.IGNORECASE)
    value = int(float(found[1]) * _FACTORS[found[2].upper()]) if found else 0
    if value < 1:
        raise click.BadParameter(f"{written!r} is not a rate: write bytes per second, for example 50M")
    return value


def rate_or_none(written: str) -> int:
    """A `rate`, or 0 for ``none``: no limit."""
    return 0 if written == "none" else rate(written)


def rate_or_configured(_context: object, _option: object, written: str) -> int | None:
    """A `rate_or_none`, or None for ``configured``. As a callback: click takes a type's None for a missing option."""
    return None if written == "configured" else rate_or_none(written)


def per_second(limit: int | None) -> str:
    """A limit of bandwidth, which may be none."""
    return f"{limit:,} bytes per second" if limit else "no limit"
