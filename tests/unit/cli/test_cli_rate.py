"""Rates as they are written on the command line."""

import click
import pytest

from vferry.cli.rate import rate, rate_or_none


@pytest.mark.parametrize(
    ("written", "expected"), [("1", 1), ("50M", 50_000_000), ("1.5g", 1_500_000_000), ("400k", 400_000)]
)
def test_a_rate(written: str, expected: int) -> None:
    assert rate(written) == rate_or_none(written) == expected


@pytest.mark.parametrize("written", ["", "0", "-1", "fast", "50 M", "50MB", "0.1", "none", "1e9", "٣M"])
def test_what_is_no_rate_is_refused_with_an_example(written: str) -> None:
    with pytest.raises(click.BadParameter, match="for example 50M"):
        rate(written)


def test_no_limit_where_that_may_be_asked_for() -> None:
    assert rate_or_none("none") == 0
