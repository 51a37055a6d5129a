"""Which Debian a host of the lab runs, and what differs between its releases."""

from dataclasses import dataclass, replace

from vferry.model.problem import Problem


@dataclass(frozen=True, slots=True)
class Release:
    """A release of Debian.

    `python` is its Python's version, `machine` a machine type that its QEMU has and newer ones have, too, `dpdk` the
    number of its DPDK's binary interface. `packages` are the hosts' beyond those of every release; `backported` are
    those that come from backports, as apt's patterns.
    `variant` is what is added to its layers' names, where they have more packages than usual.
    """

    number: int
    suite: str
    python: str
    machine: str
    dpdk: int
    packages: tuple[str, ...] = ()
    backported: str = ""
    variant: str = ""

    @property
    def name(self) -> str:
        return f"Debian {self.number}"

    def layer(self, name: str) -> str:
        """Name of a layer of this release: those of the usual one are not displaced by others."""
        return f"{name}{'' if self.number == DEBIAN13.number else self.number}{self.variant}"

    def having(self, packages: tuple[str, ...], variant: str) -> "Release":
        """The same with more packages, in layers of its own; itself where there are none."""
        both = (*self.packages, *packages)
        return replace(self, packages=both, variant=f"{self.variant}{variant}") if packages else self

    @property
    def relaying(self) -> tuple[str, ...]:
        """Packages of a host that may have a relay, and OVN for its guests, be it the one with OVN's databases or not.

        DPDK's own only recommend its driver for the emulated NIC's VFs.
        """
        drivers = (f"librte-net-e1000-{self.dpdk}", f"librte-mempool-ring{self.dpdk}")
        return ("openvswitch-switch-dpdk", "python3-openvswitch", *drivers, "ovn-central", "ovn-host")


DEBIAN12 = Release(12, "bookworm", "3.11", "pc-q35-7.2", dpdk=23)
DEBIAN13 = Release(
    13, "trixie", "3.13", "pc-q35-10.0", dpdk=25, packages=("libqatzip3",), backported="qemu* seabios ipxe-qemu"
)
"""The usual one. Its QEMU emulates the hosts, whatever they run, and its kernel is the guests'."""
RELEASES = (DEBIAN12, DEBIAN13)


def numbered(number: int) -> Release:
    """Problem ``lab-no-such-release``."""
    found = next((release for release in RELEASES if release.number == number), None)
    if found is None:
        names = ", ".join(release.name for release in RELEASES)
        raise Problem("lab-no-such-release", f"The lab has no Debian {number}", f"It has {names}")
    return found
