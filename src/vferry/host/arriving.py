"""What is done the moment that a guest runs here, and no sooner: NICs take its MACs, and it is announced.

A NIC gives a frame for a MAC of its own filter to nobody outside: guests of this host would not reach one that is
still on its way here. And until switches are told, a guest that says nothing by itself gets nothing.
"""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

from msgspec import structs

from vferry.host.api import Announce, Done
from vferry.host.forwarding import set_forwarding
from vferry.host.hypervisor import Hypervisor
from vferry.host.sriov_netlink import Links
from vferry.host.sriov_settings import apply_settings
from vferry.model.host import VfSettings
from vferry.model.problem import Problem


class Arriving:
    """The MACs that wait for their guests, in memory: after a restart, the controller's next steps see to them."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        announce: Callable[[Announce], object],
        root: Path = Path("/"),
        links: Callable[[], Links] = Links,
    ) -> None:
        self._hypervisor = hypervisor
        self._announce = announce
        self._root = root
        self._links = links
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, str], str] = {}
        """Guests, by PF and MAC."""
        self._without_mac: dict[tuple[str, int], tuple[str, str]] = {}
        """Guests and their MACs, by PF and VF."""
        self._unsaid: dict[str, tuple[Announce, ...]] = {}
        """By guest."""
        self._undone: dict[str, dict[str, Callable[[], object]]] = {}
        """By guest, and by what each is for."""

    def expect(self, guest: str, pf: str, mac: str) -> Done:
        """Tries that a PF takes a MAC, and adds it when the guest resumes here. Problem ``forwarding-refused``."""
        mac = mac.lower()
        self._hypervisor.connection()  # whose events are waited for
        with self._links() as links:
            if not set_forwarding(links, self._root, pf, mac, present=True).changed:
                return Done(changed=False, detail=f"{pf} passes {mac} already")
            set_forwarding(links, self._root, pf, mac, present=False)
        with self._lock:
            self._waiting[pf, mac] = guest
        self._hypervisor.events.when_resumed(guest, lambda: self._arrived(guest))
        return Done()

    def announce(self, guest: str, wanted: tuple[Announce, ...]) -> Done:
        """Announces these NICs when the guest resumes here, and none that were to be before."""
        self._hypervisor.connection()  # whose events are waited for
        with self._lock:
            changed = self._unsaid.pop(guest, ()) != wanted
            if wanted:
                self._unsaid[guest] = wanted
        self._hypervisor.events.when_resumed(guest, lambda: self._arrived(guest))
        return Done(changed=changed)

    def then(self, guest: str, key: str, work: Callable[[], object]) -> None:
        """Has something done when the guest resumes here, after all else; in place of what was for the same."""
        self._hypervisor.connection()  # whose events are waited for
        with self._lock:
            self._undone.setdefault(guest, {})[key] = work
        self._hypervisor.events.when_resumed(guest, lambda: self._arrived(guest))

    def set(self, pf: str, mac: str, *, present: bool) -> Done:
        """Adds a MAC or removes it now, whatever it waits for. Problem ``forwarding-refused``."""
        with self._lock, self._links() as links:
            self._waiting.pop((pf, mac.lower()), None)
            return set_forwarding(links, self._root, pf, mac, present=present)

    def set_vf(self, pf: str, index: int, settings: VfSettings, arriving: str = "") -> Done:
        """Carries `SetVf` out. Problem ``vf-setting-refused``."""
        waits = bool(arriving) and settings.mac is not None
        if waits:
            self._hypervisor.connection()  # whose events are waited for
        with self._lock, self._links() as links:
            self._without_mac.pop((pf, index), None)
            if waits and settings.mac is not None:
                self._without_mac[pf, index] = arriving, settings.mac
                settings = structs.replace(settings, mac=None)
            done = apply_settings(links, pf, index, settings)
        if waits:
            self._hypervisor.events.when_resumed(arriving, lambda: self._arrived(arriving))
        return done

    def _arrived(self, guest: str) -> None:
        """What is refused now, the controller's steps ask for again, and report why it is."""
        self._pass_on(guest)
        with self._lock:
            unsaid = self._unsaid.pop(guest, ())
            undone = self._undone.pop(guest, {})
        for wanted in unsaid:
            with contextlib.suppress(Problem):
                self._announce(wanted)
        for work in undone.values():
            with contextlib.suppress(Problem):
                work()

    def _pass_on(self, guest: str) -> None:
        with self._lock, self._links() as links:
            for pf, mac in [each for each, whose in self._waiting.items() if whose == guest]:
                del self._waiting[pf, mac]
                with contextlib.suppress(Problem):
                    set_forwarding(links, self._root, pf, mac, present=True)
            for vf in [each for each, (whose, _) in self._without_mac.items() if whose == guest]:
                _, mac = self._without_mac.pop(vf)
                with contextlib.suppress(Problem):
                    apply_settings(links, *vf, VfSettings(mac=mac))
