"""The VFs that guests of this host have from vferry, which are wiped when a guest stops.

libvirt has them as plain host devices, and so takes back nothing of what was set on them. A VF that keeps the MAC of a
guest that is elsewhere by now gets what this NIC's other guests send there.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from vferry.host.claims import Claims
from vferry.host.durable import write_durably
from vferry.host.hypervisor import Hypervisor
from vferry.host.hypervisor_guests import describe_all
from vferry.host.sriov import read_pfs
from vferry.host.sriov_netlink import Links
from vferry.host.sriov_settings import apply_settings
from vferry.model.host import Pf, Vf
from vferry.model.problem import Problem, no_space

log = logging.getLogger("vferry.agent")

FILE = "lent.json"
GRACE_S = 5.0
"""How long one that has stopped is waited for: if it is only started anew, libvirt sets the VF up meanwhile."""


class Loan(msgspec.Struct, frozen=True, kw_only=True):
    """Which guest has a VF, and under what alias."""

    guest: str
    alias: str


class Lent:
    """The loans of one host, durably, by the VFs' PCI addresses."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        claims: Claims,
        directory: Path,
        root: Path = Path("/"),
        links: Callable[[], Links] = Links,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Takes back from now on what guests leave as they stop."""
        self._hypervisor = hypervisor
        self._claims = claims
        self._path = directory / FILE
        self._root = root
        self._links = links
        self._sleep = sleep
        self._lock = threading.Lock()
        self._unsaved: dict[str, Loan] | None = None
        """What there was no room to save: a guest gets its VF all the same."""
        hypervisor.events.when_stopped(self._stopped)

    def lend(self, address: str, guest: str, alias: str) -> bool:
        """Before a guest gets a VF; whether that is new."""
        loan = Loan(guest=guest, alias=alias)
        with self._changing() as loans:
            new = loans.get(address) != loan
            loans[address] = loan
        return new

    def returned(self, guest: str, alias: str) -> None:
        """A guest has given a VF back; its settings are for the one who asked for it."""
        with self._changing() as loans:
            for address in [each for each, loan in loans.items() if loan == Loan(guest=guest, alias=alias)]:
                del loans[address]

    def take_back(self) -> None:
        """Wipes what no guest has any more. A VF that an operation has claimed is left to that, and looked at again."""
        try:
            self._take_back()
        except Problem as problem:
            log.warning("VFs of guests that have stopped are not wiped yet: %s", problem)

    def _stopped(self) -> None:
        if self._read():
            self._sleep(GRACE_S)
            self.take_back()

    def _take_back(self) -> None:
        with self._changing() as loans:
            users = self._users() if loans else {}
            for address, loan in list(loans.items()):
                if users.get(address) == loan.guest or self._claims.of_vf(address):
                    continue
                if address not in users:
                    self._wipe(address, loan.guest)
                del loans[address]

    def _wipe(self, address: str, guest: str) -> None:
        with self._links() as links:
            found = _find(read_pfs(self._root, links), address)
            if found is None:
                return
            pf, vf = found
            # What an operation has begun to set says nothing of how its driver makes a VF.
            seen = tuple(each for each in pf.vfs if not self._claims.of_vf(each.address))
            again = True
            try:
                apply_settings(links, pf.name, vf.index, msgspec.structs.replace(pf, vfs=seen).wiped(vf))
                again = self._users().get(address) == guest
            finally:
                if again:  # libvirt has set, meanwhile, what was read above
                    apply_settings(links, pf.name, vf.index, vf.settings)

    def _users(self) -> dict[str, str]:
        """The guests that run here, by the VFs that they have."""
        running = (one.live for one in describe_all(self._hypervisor, self._root) if one.live)
        return {nic.address: xml.name for xml in running for nic in xml.nics if nic.address}

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Loan]]:
        with self._lock:
            before = self._read()
            loans = dict(before)
            try:
                yield loans
            finally:
                if loans != before or self._unsaved is not None:
                    self._save(loans)

    def _save(self, loans: dict[str, Loan]) -> None:
        try:
            write_durably(self._path, msgspec.json.encode(loans))
            self._unsaved = None
        except OSError as error:
            if no_space(error) is None:
                raise
            log.error("which VFs guests have from vferry is known to this agent alone: %s", error)
            self._unsaved = loans

    def _read(self) -> dict[str, Loan]:
        if self._unsaved is not None:
            return self._unsaved
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Loan])
        except (FileNotFoundError, msgspec.DecodeError):
            return {}


def _find(pfs: tuple[Pf, ...], address: str) -> tuple[Pf, Vf] | None:
    return next(((pf, vf) for pf in pfs for vf in pf.vfs if vf.address == address), None)
