"""Which share of the migrations of `vferry bench transfer` ended within a time: by mode, over the speed of the link."""

from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from vferry.report import words

SETTING = ("memory", "used", "tls")
Rows = Sequence[dict[str, Any]]
Figures = dict[str, Any]


def success(rows: Rows, within_s: float) -> list[Figures]:
    """The shares over all rates of change and runs, a dict for each setting, in order of appearance.

    Returns dicts with the setting, `within_s`, and for each mode its links, slowest first, those not shaped last::

        {mode: [{link, ended, of}, ...]}

    A row that was given up earlier than that tells nothing, nor does a mode that QEMU does not offer.
    """
    known = [({"used": 0} | row, ended) for row in rows if (ended := _ended(row, within_s)) is not None]
    settings = dict.fromkeys(tuple(row[key] for key in SETTING) for row, _ in known)
    return [
        {
            **dict(zip(SETTING, setting, strict=True)),
            "within_s": within_s,
            "modes": _modes([(row, ended) for row, ended in known if tuple(row[key] for key in SETTING) == setting]),
        }
        for setting in settings
    ]


def render(groups: Sequence[Figures]) -> Group:
    """A table a setting: a line a mode, a column a link."""
    return Group(*(part for group in groups for part in (_table(group), Text())))


def title(group: Figures) -> str:
    """A setting in words."""
    used = f", {group['used']:,} used" if group["used"] else ""
    tls = " · TLS" if group["tls"] else ""
    return f"ended within {words.seconds(group['within_s'])} · {group['memory']:,} MiB{used}{tls}"


def links(group: Figures) -> list[int]:
    """All links of a setting, slowest first, those not shaped last."""
    return _by_speed({point["link"] for points in group["modes"].values() for point in points})


def _ended(row: Figures, within_s: float) -> bool | None:
    """Whether a migration ended in time; None where its row does not tell."""
    if row["status"] == "completed":
        return bool(row["total_s"] <= within_s)
    if row["status"] == "failed" or (row["status"] == "not converged" and row.get("deadline_s", 0) >= within_s):
        return False
    return None


def _modes(known: Sequence[tuple[Figures, bool]]) -> dict[str, list[Figures]]:
    modes = dict.fromkeys(row["mode"] for row, _ in known)
    return {mode: _points([(row, ended) for row, ended in known if row["mode"] == mode]) for mode in modes}


def _points(known: Sequence[tuple[Figures, bool]]) -> list[Figures]:
    speeds = _by_speed({row["link"] for row, _ in known})
    of = {link: [ended for row, ended in known if row["link"] == link] for link in speeds}
    return [{"link": link, "ended": sum(found), "of": len(found)} for link, found in of.items()]


def _by_speed(speeds: set[int]) -> list[int]:
    return sorted(speeds, key=lambda link: (not link, link))


def _table(group: Figures) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", title_justify="left")
    table.title = title(group)
    table.add_column("mode", no_wrap=True)
    speeds = links(group)
    for link in speeds:
        table.add_column(f"{link:,} Mbit/s" if link else "not shaped", justify="right")
    for mode, points in group["modes"].items():
        cells = {point["link"]: f"{point['ended']} of {point['of']}" for point in points}
        table.add_row(Text(words.clean(mode)), *(Text(cells.get(link, "–")) for link in speeds))
    return table
