"""What keeps a guest from running twice: a migration whose wire is lost is held until it is certain where it runs.

libvirt lets the guest go on at the source when its connection to the destination breaks, although it may have been
told there to let it go on. The gateway hides the break; here it is decided when libvirt may learn of it.
"""

import time
from pathlib import Path

from msgspec.structs import replace

from vferry.host import gateways_process as process
from vferry.host import hypervisor_domains as domains
from vferry.host.api import Done, GatewayStatistics, Migration, StartSending
from vferry.host.gateways import OPERATION_ID, RUNTIME, Gateways, places
from vferry.host.hypervisor import Hypervisor
from vferry.host.migration import Migrations
from vferry.model.problem import Exit, Problem

MOMENT_S = 3.0
"""For how long QEMU may be about to fail, and then lets the guest go on by itself."""
POLL_S = 0.2
LOST = "the connection to the destination was lost while the guest was paused for its switchover"


class Held:
    """What may be done to a migration and its gateway once the wire may be lost."""

    def __init__(
        self, hypervisor: Hypervisor, migrations: Migrations, gateways: Gateways, runtime: Path = RUNTIME
    ) -> None:
        self._hypervisor = hypervisor
        self._migrations = migrations
        self._gateways = gateways
        self._runtime = runtime

    def read(self, operation: str, guest: str) -> Migration:
        """How a migration stands. Ends the gateway of one that has lost its wire while the guest runs here."""
        directory, until = places(self._runtime, operation).directory, time.monotonic() + MOMENT_S
        while True:
            # First the wire, then the guest: one that runs after the loss cannot be told to go on elsewhere.
            wire = process.wire(directory)
            found = self._migrations.read(operation, guest)
            if found.state != "active":
                return found
            if not wire.lost:
                return replace(found, wire_rate=found.rate if wire.direct else wire.rate, ratio=wire.ratio)
            if domains.runs(self._hypervisor, guest):
                self._gateways.stop(operation)
            elif domains.is_paused(self._hypervisor, guest) and time.monotonic() > until:
                return replace(found, state="uncertain", error=LOST)
            time.sleep(POLL_S)

    def send(self, operation: str, wanted: StartSending) -> Done:
        """Starts the sending gateway, which ends one that leads elsewhere. Problem ``guest-held``."""
        self.refuse(operation)
        return self._gateways.send(operation, wanted)

    def stop(self, operation: str, *, resume: bool) -> GatewayStatistics:
        """Ends the gateway; Problem ``guest-held`` unless `resume` says that libvirt may let the guest go on."""
        if not resume:
            self.refuse(operation)
        return self._gateways.stop(operation)

    def release(self, operation: str) -> None:
        """Ends the gateway, if there is one, and forgets the operation. Problem ``guest-held``."""
        if OPERATION_ID.fullmatch(operation):
            self.refuse(operation)
            self._gateways.release(operation)

    def concede(self, operation: str, guest: str) -> Done:
        """Ends the paused guest that has left, then the gateway, so that libvirt gets over it."""
        done = self._migrations.concede(operation, guest)
        if done.changed:
            self._gateways.stop(operation)
        return done

    def refuse(self, operation: str) -> None:
        """Problem ``guest-held`` where the end of the operation's gateway would let a guest go on here."""
        guest = self._migrations.holds(operation)
        if guest is not None:
            raise Problem(
                "guest-held",
                f"{guest} is paused here for its switchover, and may run at the destination: the gateway stays",
                f"vferry operation recover {operation}",
                exit=Exit.OPERATOR,
            )
