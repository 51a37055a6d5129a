"""Which layers the hosts of a lab boot."""

from collections.abc import Collection
from pathlib import Path

import msgspec

from vferry.lab import base, product
from vferry.lab.release import DEBIAN12, DEBIAN13, Release
from vferry.lab.topology import HOSTS, Host


class HostLayers(msgspec.Struct, frozen=True):
    """What a host boots: the number of its release, and folders of the cache."""

    release: int
    base: str
    product: str


class Layers(msgspec.Struct, frozen=True):
    """What a lab is made of. `ground` is Debian 13's base layer: its QEMU emulates every host."""

    ground: str
    hosts: dict[str, HostLayers]

    def of(self, host: Host) -> HostLayers:
        return self.hosts[host.name]

    @property
    def usual(self) -> bool:
        """Whether all hosts run Debian 13."""
        return all(each.release == DEBIAN13.number for each in self.hosts.values())

    def with_products(self, products: dict[str, Path]) -> "Layers":
        """The same with other product layers, by host."""
        replace = msgspec.structs.replace
        return replace(self, hosts={name: replace(self.hosts[name], product=str(products[name])) for name in products})


def ensure(debian12: Collection[str] = ()) -> Layers:
    """Builds what is missing; `debian12` are the names of hosts that run it rather than Debian 13."""
    ground = base.ensure(DEBIAN13)
    built: dict[Release, HostLayers] = {}
    for release in dict.fromkeys(_release(host, debian12) for host in HOSTS):
        below = ground if release is DEBIAN13 else base.ensure(release)
        built[release] = HostLayers(release.number, str(below), str(product.ensure(release, below, ground)))
    return Layers(str(ground), {host.name: built[_release(host, debian12)] for host in HOSTS})


def _release(host: Host, debian12: Collection[str]) -> Release:
    return DEBIAN12 if host.name in debian12 else DEBIAN13
