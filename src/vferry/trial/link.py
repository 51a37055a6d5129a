"""Two network namespaces without names and a link between them, as fast as is asked for."""

from collections.abc import Sequence
from pathlib import Path

from vferry.trial.namespace import Namespace, run
from vferry.trial.started import Started

SOURCE, DESTINATION = range(2)
ADDRESSES = ("192.0.2.1", "192.0.2.2")
DEVICE = "trial"
# What the shaper may send at once, by the link's speed; segments of 64 KiB come whole.
LEAST_BURST = 256 * 1024
BURST_S = 0.001
QUEUE_MS = 50


class Link(Started):
    """The link between them; it goes with them."""

    def __init__(self, mbit: int) -> None:
        """`mbit` in Mbit/s; 0 is as fast as this machine can."""
        super().__init__()
        self._mbit = mbit
        self._sides: list[Namespace] = []

    def inside(self, side: int, argv: Sequence[str]) -> list[str]:
        """The command line that runs a command at one side."""
        return self._sides[side].inside(argv)

    def carried(self) -> int:
        """Bytes that went through the link so far, headers included, both ways."""
        lines = Path(f"/proc/{self._sides[SOURCE].pid}/net/dev").read_text().splitlines()
        fields = next(line.partition(":")[2].split() for line in lines if line.strip().startswith(f"{DEVICE}:"))
        return int(fields[0]) + int(fields[8])

    def _start(self) -> None:
        self._sides = [self._stack.enter_context(Namespace()) for _ in ADDRESSES]
        here, there = (str(side.pid) for side in self._sides)
        run(
            ["ip", "link", "add", "name", DEVICE, "netns", here, "type", "veth", "peer", "name", DEVICE, "netns", there]
        )
        for side, address in enumerate(ADDRESSES):
            up = (f"link set {DEVICE} up", "link set lo up")
            self._sides[side].ip(f"address add {address}/24 dev {DEVICE}", *up)
            if self._mbit:
                self._sides[side].run(["tc", *shape(self._mbit).split()])


def shape(mbit: int) -> str:
    """The words for `tc` that make a link of so many Mbit/s."""
    burst = max(LEAST_BURST, int(mbit * 125_000 * BURST_S))
    return f"qdisc add dev {DEVICE} root tbf rate {mbit}mbit burst {burst} latency {QUEUE_MS}ms"
