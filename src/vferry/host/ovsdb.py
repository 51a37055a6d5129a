"""Open vSwitch's database, to be changed: through its own binding, in transactions, with a bound on every wait."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vferry.model.problem import Exit, Problem

if TYPE_CHECKING:
    from ovs.db.idl import Transaction

SOCKET = "run/openvswitch/db.sock"
TIMEOUT_S = 15.0

_OPTIONAL_WORD = {"key": "string", "min": 0, "max": 1}
_OPTIONAL_NUMBER = {"key": "integer", "min": 0, "max": 1}
_WORDS = {"key": "string", "value": "string", "min": 0, "max": "unlimited"}


def _rows(table: str) -> dict[str, Any]:
    return {"key": {"type": "uuid", "refTable": table}, "min": 0, "max": "unlimited"}


COLUMNS: dict[str, dict[str, Any]] = {
    "Open_vSwitch": {
        "bridges": _rows("Bridge"),
        "other_config": _WORDS,
        "next_cfg": "integer",
        "cur_cfg": "integer",
        "dpdk_initialized": "boolean",
    },
    "Bridge": {
        "name": "string",
        "datapath_type": "string",
        "ports": _rows("Port"),
        "flood_vlans": {"key": "integer", "min": 0, "max": 4096},
        "other_config": _WORDS,
        "external_ids": _WORDS,
    },
    "Port": {
        "name": "string",
        "interfaces": _rows("Interface"),
        "tag": _OPTIONAL_NUMBER,
        "vlan_mode": _OPTIONAL_WORD,
        "bond_mode": _OPTIONAL_WORD,
        "other_config": _WORDS,
    },
    "Interface": {
        "name": "string",
        "type": "string",
        "options": _WORDS,
        "mtu_request": _OPTIONAL_NUMBER,
        "ingress_policing_rate": "integer",
        "ingress_policing_burst": "integer",
        "ofport": _OPTIONAL_NUMBER,
        "error": _OPTIONAL_WORD,
        "link_state": _OPTIONAL_WORD,
        "statistics": {"key": "string", "value": "integer", "min": 0, "max": "unlimited"},
    },
}
"""Just what is used, so that Open vSwitch may know of more, in any of its versions."""


class Database:
    """A connection, and a copy of what is in `COLUMNS` that follows the database. For one thread."""

    def __init__(self, root: Path) -> None:
        self._path = root / SOCKET
        self._timeout_s = TIMEOUT_S
        self._idl: Any = None

    def __enter__(self) -> Self:
        """Problems: ``switch-library-missing``, ``switch-silent``."""
        try:
            from ovs.db import idl
        except ImportError as error:
            raise Problem(
                "switch-library-missing",
                f"The agent does not find Open vSwitch's Python binding: {error}",
                "apt install python3-openvswitch (the agent's venv is made with --system-site-packages)",
                exit=Exit.REFUSED,
            ) from error
        schema = {"name": "Open_vSwitch", "version": "0.0.0", "tables": _tables()}
        helper = idl.SchemaHelper(schema_json=schema)
        helper.register_all()
        self._idl = idl.Idl(f"unix:{self._path}", helper, probe_interval=0)
        if not self.wait(lambda: bool(self._idl.has_ever_connected() and self.rows("Open_vSwitch"))):
            self._idl.close()
            raise _silent("it does not answer")
        return self

    def __exit__(self, *_exception: object) -> None:
        self._idl.close()

    def rows(self, table: str) -> list[Any]:
        return list(self._idl.tables[table].rows.values())

    def table(self, name: str) -> Any:
        """A table, to insert into."""
        return self._idl.tables[name]

    @property
    def switch(self) -> Any:
        """The one row of the table Open_vSwitch."""
        return self.rows("Open_vSwitch")[0]

    def named(self, table: str, name: str) -> Any | None:
        """The row with this name."""
        return next((row for row in self.rows(table) if row.name == name), None)

    def change(self, work: Callable[["Transaction"], None], timeout_s: float | None = None) -> None:
        """Has `work` change rows, all or nothing, and waits until Open vSwitch has done it.

        `work` is repeated where somebody else has changed the same meanwhile: it looks at the rows anew.
        Problems: ``switch-refused``, ``switch-silent``.
        """
        bound = self._timeout_s if timeout_s is None else timeout_s
        ends = time.monotonic() + bound
        target = self._commit(work, ends)
        if not self.wait(lambda: self.switch.cur_cfg >= target, max(0.0, ends - time.monotonic())):
            raise _silent(f"it has not done within {bound:.0f} s what it was asked for")

    def wait(self, reached: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Follows the database until something is so; False if it is not in time."""
        from ovs.poller import Poller

        ends = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        while True:
            self._idl.run()
            if reached():
                return True
            left = ends - time.monotonic()
            if left <= 0:
                return False
            poller = Poller()
            self._idl.wait(poller)
            poller.timer_wait(int(left * 1000) + 1)
            poller.block()

    def _commit(self, work: Callable[["Transaction"], None], ends: float) -> int:
        from ovs.db.idl import Transaction

        while True:
            seen = self._idl.change_seqno
            transaction = Transaction(self._idl)
            try:
                work(transaction)
                self.switch.increment("next_cfg")
                status = transaction.commit()
            except BaseException:
                transaction.abort()
                raise
            if status == Transaction.INCOMPLETE:
                self.wait(_ended(transaction), max(0.0, ends - time.monotonic()))
                status = transaction.commit()
            if status == Transaction.SUCCESS:
                return int(transaction.get_increment_new_value())
            error = transaction.get_error()
            transaction.abort()
            if status == Transaction.INCOMPLETE:
                raise _silent("its database has not answered")
            if status != Transaction.TRY_AGAIN:
                raise Problem(
                    "switch-refused",
                    f"Open vSwitch refuses what it was asked for: {error or status}",
                    "Look with: ovs-vsctl show",
                    exit=Exit.REFUSED,
                )
            self.wait(_changed(self._idl, seen), max(0.0, ends - time.monotonic()))
            if time.monotonic() >= ends:
                raise _silent("others have changed the same again and again")


def _ended(transaction: "Transaction") -> Callable[[], bool]:
    return lambda: transaction.commit() != transaction.INCOMPLETE


def _changed(idl: Any, seen: int) -> Callable[[], bool]:
    return lambda: idl.change_seqno != seen


def _tables() -> dict[str, Any]:
    return {
        table: {"columns": {name: {"type": kind} for name, kind in columns.items()}}
        for table, columns in COLUMNS.items()
    }


def first(values: Iterable[Any]) -> Any | None:
    """The value of a column that has one at most."""
    return next(iter(values), None)


def _silent(why: str) -> Problem:
    return Problem(
        "switch-silent",
        f"Open vSwitch does not do its work: {why}",
        "Look with: systemctl status openvswitch-switch; journalctl -u ovs-vswitchd",
        exit=Exit.UNDONE,
    )
