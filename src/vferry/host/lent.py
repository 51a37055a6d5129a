"""The VFs that guests of this host have from vferry, which are wiped when a guest stops.

libvirt has them as plain host devices, and so takes back nothing of what was set on them. A VF that keeps the MAC of a
guest that is elsewhere by now gets what this NIC's other guests send there.
"""

import contextlib
import threading
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
from vferry.model.host import Pf, Vf, wiped
from vferry.model.problem import Problem

FILE = "lent.json"


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
    ) -> None:
        """Takes back from now on what guests leave as they stop."""
        self._hypervisor = hypervisor
        self._claims = claims
        self._path = directory / FILE
        self._root = root
        self._links = links
        self._lock = threading.Lock()
        hypervisor.events.when_stopped(self.take_back)

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
        with contextlib.suppress(Problem), self._changing() as loans:
            if not loans:
                return
            users = self._users()
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
            apply_settings(links, pf.name, vf.index, wiped(vf.settings))
            # Started again meanwhile: libvirt has set, before this, what was read above.
            if self._users().get(address) == guest:
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
                if loans != before:
                    write_durably(self._path, msgspec.json.encode(loans))

    def _read(self) -> dict[str, Loan]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Loan])
        except (FileNotFoundError, msgspec.DecodeError):
            return {}


def _find(pfs: tuple[Pf, ...], address: str) -> tuple[Pf, Vf] | None:
    return next(((pf, vf) for pf in pfs for vf in pf.vfs if vf.address == address), None)
