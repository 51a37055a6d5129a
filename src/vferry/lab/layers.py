"""Which layers the hosts of a lab boot."""

from collections.abc import Collection
from pathlib import Path

import msgspec

from vferry.lab import base, product
from vferry.lab.release import DEBIAN12, DEBIAN13, Release, numbered
from vferry.lab.topology import HOSTS, RELAY, STANDBYS, USUAL, Host, Setup, standby_named


class HostLayers(msgspec.Struct, frozen=True):
    """What a host boots: the number of its release, and folders of the cache."""

    release: int
    base: str
    product: str


class Layers(msgspec.Struct, frozen=True):
    """What a lab is made of, for a setup. `ground` is Debian 13's base layer: its QEMU emulates every host."""

    ground: str
    hosts: dict[str, HostLayers]
    standby: str = STANDBYS[0].name
    relay: bool = False

    @property
    def setup(self) -> Setup:
        return Setup(standby_named(self.standby), self.relay)

    def of(self, host: Host) -> HostLayers:
        return self.hosts[host.name]

    def release(self, host: Host) -> Release:
        """What a host runs, with the packages that its setup needs."""
        return equipped(numbered(self.of(host).release), self.setup)

    @property
    def usual(self) -> bool:
        """Whether all hosts run Debian 13, and have the usual setup."""
        return not self.setup.variant and all(each.release == DEBIAN13.number for each in self.hosts.values())

    def with_products(self, products: dict[str, Path]) -> "Layers":
        """The same with other product layers, by host."""
        replace = msgspec.structs.replace
        return replace(self, hosts={name: replace(self.hosts[name], product=str(products[name])) for name in products})


def equipped(release: Release, setup: Setup) -> Release:
    """A release with the packages that a setup needs; itself where that is none."""
    own = release.having(setup.standby.packages, setup.standby.variant)
    return own.having(own.relaying, RELAY) if setup.relay else own


def ensure(debian12: Collection[str] = (), setup: Setup = USUAL) -> Layers:
    """Builds what is missing; `debian12` are the names of hosts that run it rather than Debian 13."""
    ground = base.ensure(DEBIAN13)
    built: dict[Release, HostLayers] = {}
    for release in dict.fromkeys(_release(host, debian12) for host in HOSTS):
        own = equipped(release, setup)
        below = ground if own is DEBIAN13 else base.ensure(own)
        built[release] = HostLayers(own.number, str(below), str(product.ensure(own, below, ground, setup)))
    hosts = {host.name: built[_release(host, debian12)] for host in HOSTS}
    return Layers(str(ground), hosts, setup.standby.name, setup.relay)


def _release(host: Host, debian12: Collection[str]) -> Release:
    return DEBIAN12 if host.name in debian12 else DEBIAN13
