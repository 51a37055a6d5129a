"""The switch's end of a host's bond: a process that speaks LACP (IEEE 802.1AX) on the taps that lead to the host.

Not every kernel has the bonding driver. `python -m vferry.lab.lacp SYSTEM KEY TAP...` runs in the namespace where the
taps are. It only agrees: what passes the taps is the bridge's that has them for ports (net). It ends when one of them
is gone.
"""

import contextlib
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass
from typing import NamedTuple, Self

SLOW = 0x8809  # the EtherType, of which LACP is subtype 1
PERIOD = 1.0  # seconds between two frames, for one that asked for short timeouts, which are three of it
ACTIVE, SHORT, AGGREGATES, IN_SYNC, COLLECTS, DISTRIBUTES = (1 << bit for bit in range(6))
LENGTH = 124  # bytes of a frame
HEADER = struct.Struct("!6s6sHBB")
ACTOR, PARTNER, COLLECTOR = 1, 2, 3


class Party(NamedTuple):
    """What one end says of its port."""

    system_priority: int
    system: bytes
    key: int
    port_priority: int
    port: int
    state: int


PARTY = struct.Struct("!BBH6sHHHB3x")
COLLECTING = struct.Struct("!BBH12x")


def read(frame: bytes) -> Party | None:
    """What the sender of a frame says of itself; None where it is not one of LACP."""
    if len(frame) < LENGTH or HEADER.unpack_from(frame)[2:] != (SLOW, 1, 1):
        return None
    kind, length, *said = PARTY.unpack_from(frame, HEADER.size)
    return Party(*said) if (kind, length) == (ACTOR, PARTY.size) else None


def agreed(own: Party, theirs: Party) -> Party:
    """What this end says of itself to one that says `theirs`: it is in sync, and passes frames when both are."""
    both = COLLECTS | DISTRIBUTES if theirs.state & IN_SYNC else 0
    return own._replace(state=ACTIVE | SHORT | AGGREGATES | IN_SYNC | both)


def answer(own: Party, theirs: Party) -> bytes:
    """The frame for the one that says `theirs`.

    It goes to the address of the bond itself: the emulated igb, once it has VFs, gives a promiscuous PF no multicast.
    The hosts put in the address that it should have had (vferry-lab-host).
    """
    frame = HEADER.pack(theirs.system, own.system, SLOW, 1, 1)
    frame += PARTY.pack(ACTOR, PARTY.size, *agreed(own, theirs)) + PARTY.pack(PARTNER, PARTY.size, *theirs)
    return (frame + COLLECTING.pack(COLLECTOR, COLLECTING.size, 0)).ljust(LENGTH, b"\0")


@dataclass(slots=True)
class Port:
    """This end's port at a tap, and what the other end has said last."""

    own: Party
    tap: str
    index: int
    wire: socket.socket
    theirs: Party | None = None

    @classmethod
    def opened(cls, own: Party, tap: str) -> Self:
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        wire.bind((tap, SLOW))
        wire.settimeout(0)
        return cls(own, tap, socket.if_nametoindex(tap), wire)

    @property
    def there(self) -> bool:
        """Whether the tap is the one that was opened: a host that is started again has others of the same names."""
        try:
            return socket.if_nametoindex(self.tap) == self.index
        except OSError:
            return False

    def hear(self) -> None:
        """Takes in a frame, and answers at once what is new."""
        with contextlib.suppress(OSError):  # the tap was taken down
            said = read(self.wire.recv(LENGTH))
            if said is not None and said != self.theirs:
                self.theirs = said
                self.tell()

    def tell(self) -> None:
        if self.theirs is not None:
            with contextlib.suppress(OSError):  # the tap is down: the frame is lost, as on a wire
                self.wire.send(answer(self.own, self.theirs))


def speak(ports: list[Port]) -> None:
    """Answers on all ports, and says the same again each period, until one of them is gone."""
    by_wire = {port.wire: port for port in ports}
    due = time.monotonic()
    while True:
        for wire in select.select(by_wire, [], [], max(0.0, due - time.monotonic()))[0]:
            by_wire[wire].hear()
        if time.monotonic() < due:
            continue
        if not all(port.there for port in ports):
            return
        for port in ports:
            port.tell()
        due = time.monotonic() + PERIOD


def main(system: str, key: str, *taps: str) -> None:
    own = Party(0x8000, bytes.fromhex(system.replace(":", "")), int(key), 0x8000, 0, 0)
    speak([Port.opened(own._replace(port=number), tap) for number, tap in enumerate(taps, start=1)])


if __name__ == "__main__":
    main(*sys.argv[1:])
