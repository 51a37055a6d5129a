"""Databases of OVSDB, to be changed: through Open vSwitch's own binding, in transactions, every wait with a bound."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from msgspec import Struct

from vferry.model.problem import Exit, Problem
from vferry.model.switch import LOG, STATUS

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
        "external_ids": _WORDS,
    },
    "Bridge": {
        "name": "string",
        "datapath_type": "string",
        "fail_mode": _OPTIONAL_WORD,
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
        "external_ids": _WORDS,
        "statistics": {"key": "string", "value": "integer", "min": 0, "max": "unlimited"},
    },
}
"""Just what is used, so that Open vSwitch may know of more, in any of its versions."""


class Tls(Struct, frozen=True, kw_only=True):
    """The files by which a server over TLS is known, and knows us; a process has one such at a time."""

    private_key: str
    certificate: str
    ca: str


class Replica:
    """A connection to a database, and a copy of some columns that follows it. For one thread."""

    schema: str
    columns: dict[str, dict[str, Any]]

    def __init__(self, remote: str, tls: Tls | None = None) -> None:
        self.remote = remote
        self._tls = tls
        self._timeout_s = TIMEOUT_S
        self._idl: Any = None

    def __enter__(self) -> Self:
        """Problems: ``switch-library-missing``, and that of `silent`."""
        try:
            from ovs.db import idl
        except ImportError as error:
            raise self.without_library(error) from error
        if self._tls is not None:
            from ovs.stream import Stream

            Stream.ssl_set_private_key_file(self._tls.private_key)
            Stream.ssl_set_certificate_file(self._tls.certificate)
            Stream.ssl_set_ca_cert_file(self._tls.ca)
        helper = idl.SchemaHelper(schema_json={"name": self.schema, "version": "0.0.0", "tables": self._tables()})
        helper.register_all()
        self._idl = idl.Idl(self.remote, helper, probe_interval=0)
        if not self.wait(lambda: bool(self._idl.has_ever_connected()) and self.ready()):
            self._idl.close()
            raise self.silent("it does not answer")
        return self

    def __exit__(self, *_exception: object) -> None:
        self._idl.close()

    def ready(self) -> bool:
        """Whether what must be there, once it has answered, is there."""
        return True

    def silent(self, why: str) -> Problem:
        """The problem where it does not answer, or does nothing."""
        raise NotImplementedError

    def refused(self, why: str) -> Problem:
        """The problem where it takes no change."""
        raise NotImplementedError

    def without_library(self, error: ImportError) -> Problem:
        """The problem ``switch-library-missing``."""
        raise NotImplementedError

    def rows(self, table: str) -> list[Any]:
        return list(self._idl.tables[table].rows.values())

    def table(self, name: str) -> Any:
        """A table, to insert into."""
        return self._idl.tables[name]

    def named(self, table: str, name: str) -> Any | None:
        """The row with this name."""
        return next((row for row in self.rows(table) if row.name == name), None)

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

    def commit(self, work: Callable[["Transaction"], None], ends: float) -> "Transaction":
        """Has `work` change rows, all or nothing, by a time on the monotonic clock.

        `work` is repeated where somebody else has changed the same meanwhile: it looks at the rows anew.
        """
        from ovs.db.idl import Transaction

        while True:
            seen = self._idl.change_seqno
            transaction = Transaction(self._idl)
            try:
                work(transaction)
                status = transaction.commit()
            except BaseException:
                transaction.abort()
                raise
            if status == Transaction.INCOMPLETE:
                self.wait(_ended(transaction), max(0.0, ends - time.monotonic()))
                status = transaction.commit()
            if status in (Transaction.SUCCESS, Transaction.UNCHANGED):
                return transaction
            error = transaction.get_error()
            transaction.abort()
            if status == Transaction.INCOMPLETE:
                raise self.silent("its database has not answered")
            if status != Transaction.TRY_AGAIN:
                raise self.refused(str(error or status))
            self.wait(_changed(self._idl, seen), max(0.0, ends - time.monotonic()))
            if time.monotonic() >= ends:
                raise self.silent("others have changed the same again and again")

    def _tables(self) -> dict[str, Any]:
        return {
            table: {"columns": {name: {"type": kind} for name, kind in columns.items()}}
            for table, columns in self.columns.items()
        }


class Database(Replica):
    """Open vSwitch's own: what is changed is waited for until the switch has done it."""

    schema = "Open_vSwitch"
    columns = COLUMNS

    def __init__(self, root: Path) -> None:
        super().__init__(f"unix:{root / SOCKET}")

    def ready(self) -> bool:
        return bool(self.rows("Open_vSwitch"))

    def silent(self, why: str) -> Problem:
        """Problem ``switch-silent``."""
        return Problem(
            "switch-silent",
            f"Open vSwitch does not do its work: {why}",
            f"Look with: {STATUS}; and in {LOG}",
            exit=Exit.UNDONE,
        )

    def refused(self, why: str) -> Problem:
        """Problem ``switch-refused``."""
        return Problem(
            "switch-refused",
            f"Open vSwitch refuses what it was asked for: {why}",
            "Look with: ovs-vsctl show",
            exit=Exit.REFUSED,
        )

    def without_library(self, error: ImportError) -> Problem:
        return Problem(
            "switch-library-missing",
            f"The agent does not find Open vSwitch's Python binding: {error}",
            "apt install python3-openvswitch (the agent's venv is made with --system-site-packages)",
            exit=Exit.REFUSED,
        )

    @property
    def switch(self) -> Any:
        """The one row of the table Open_vSwitch."""
        return self.rows("Open_vSwitch")[0]

    def change(self, work: Callable[["Transaction"], None], timeout_s: float | None = None) -> None:
        """Has `work` change rows, all or nothing, and waits until Open vSwitch has done it.

        If that is nothing, it looks at all that it has once more. `work` may be repeated (`commit`). Problems:
        ``switch-refused``, ``switch-silent``.
        """
        bound = self._timeout_s if timeout_s is None else timeout_s
        ends = time.monotonic() + bound
        target = 0

        def counted(transaction: "Transaction") -> None:
            nonlocal target
            work(transaction)
            self.switch.verify("next_cfg")
            target = self.switch.next_cfg = self.switch.next_cfg + 1

        self.commit(counted, ends)
        if not self.wait(lambda: self.switch.cur_cfg >= target, max(0.0, ends - time.monotonic())):
            raise self.silent(f"it has not done within {bound:.0f} s what it was asked for")


def _ended(transaction: "Transaction") -> Callable[[], bool]:
    return lambda: transaction.commit() != transaction.INCOMPLETE


def _changed(idl: Any, seen: int) -> Callable[[], bool]:
    return lambda: idl.change_seqno != seen


def first(values: Iterable[Any]) -> Any | None:
    """The value of a column that has one at most."""
    return next(iter(values), None)
