"""All that planning asks of a host, read fresh each time: nothing that can change is cached."""

import platform
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import msgspec

from vferry.host.codecs import installed_codecs
from vferry.host.configuration import AgentConfiguration
from vferry.host.hypervisor import Hypervisor
from vferry.host.hypervisor_guests import Described, describe_all, guest_of
from vferry.host.mediated import read_mdevs, read_types
from vferry.host.openvswitch import OpenVSwitch
from vferry.host.ovn import read_chassis
from vferry.host.qemu_tls import read_qemu_tls
from vferry.host.relay_ground import read_ground
from vferry.host.sriov import read_bonds, read_pfs
from vferry.host.sriov_netlink import Links
from vferry.host.sysfs import read_file
from vferry.host.vhost import read_features
from vferry.model.host import Bridge, Claim, Inventory, Pf, Versions
from vferry.model.relay import Relay

IFF_UP = 1
MBIT = 125_000
"""Bytes per second of a megabit per second."""
KEEPALIVE = re.compile(r"^\s*keepalive_interval\s*=\s*(-?\d+)", re.MULTILINE)


def take_inventory(
    configuration: AgentConfiguration,
    claims: tuple[Claim, ...],
    hypervisor: Hypervisor,
    root: Path = Path("/"),
    links: Callable[[], Links] = Links,
    relay: Relay | None = None,
) -> Inventory:
    """Asks libvirt and the kernel, at the same time."""
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lambda: (describe_all(hypervisor, root), _hypervisor_versions(hypervisor)))
        with links() as netlink:
            pfs = read_pfs(root, netlink)
            bridges = _bridges(root, netlink) + OpenVSwitch(root).bridges()
            bonds = read_bonds(root, netlink)
            link_rate = _link_rate(root, netlink, configuration.migration.address)
        described, (qemu, libvirt) = asked.result()
    memory = _memory(root)
    mdevs = read_mdevs(root)
    relayed = {port.socket: port for port in relay.ports} if relay else {}
    return Inventory(
        name=configuration.name,
        versions=_versions(root, qemu, libvirt),
        migration=configuration.migration,
        networks=configuration.networks,
        pfs=_with_owners(pfs, described, claims, relay),
        bridges=bridges,
        bonds=bonds,
        mdev_types=read_types(root),
        mdevs=mdevs,
        guests=tuple(guest_of(one, configuration.name, pfs, mdevs, relayed) for one in described),
        claims=claims,
        link_rate=link_rate,
        memory_total=memory.get("MemTotal", 0),
        memory_free=memory.get("MemAvailable", 0),
        cpus=_cpus(root),
        cpu_share=configuration.cpu_share,
        vhost_net=(root / "dev/vhost-net").exists(),
        vhost_features=read_features(root),
        iommu=any((root / "sys/class/iommu").glob("*")),
        codecs=installed_codecs(root),
        connections=_connections(root),
        relay=relay,
        chassis=read_chassis(root),
        relay_ground=read_ground(root, tuple(pf.name for pf in pfs)),
        keepalive_off=_keepalive_off(root / "etc/libvirt/qemu.conf"),
        qemu_tls=read_qemu_tls(root),
    )


def _with_owners(
    pfs: Iterable[Pf], described: list[Described], claims: tuple[Claim, ...], relay: Relay | None
) -> tuple[Pf, ...]:
    guests = {address: one.now.name for one in described for address in one.addresses}
    guests |= relay.users if relay else {}
    claimed = {vf: claim.operation for claim in claims for vf in claim.vfs}
    replace = msgspec.structs.replace
    return tuple(
        replace(
            pf,
            vfs=tuple(replace(vf, guest=guests.get(vf.address), claim=claimed.get(vf.address)) for vf in pf.vfs),
        )
        for pf in pfs
    )


def _bridges(root: Path, links: Links) -> tuple[Bridge, ...]:
    paths = [path for path in sorted((root / "sys/class/net").iterdir()) if (path / "bridge").is_dir()]
    filtering = {path.name for path in paths if read_file(path / "bridge/vlan_filtering") == "1"}
    vlans = links.vlans() if filtering else {}
    return tuple(_bridge(path, vlans if path.name in filtering else None) for path in paths)


def _bridge(path: Path, vlans: dict[int, tuple[int, ...]] | None) -> Bridge:
    ports = sorted((path / "brif").glob("*"))
    passed = {port.name: (vlans or {}).get(int(read_file(path.parent / port.name / "ifindex") or 0)) for port in ports}
    return Bridge(
        name=path.name,
        ports=tuple(port.name for port in ports),
        up=bool(int(read_file(path / "flags") or "0", 16) & IFF_UP),
        vlan_filtering=vlans is not None,
        vlans={port: numbers for port, numbers in passed.items() if numbers},
    )


def _link_rate(root: Path, links: Links, address: str) -> int | None:
    """Bytes per second of the interface that has the address; an emulated one does not say, or says -1."""
    index = links.index_of(address)
    found = [path for path in (root / "sys/class/net").iterdir() if read_file(path / "ifindex") == str(index)]
    mbit = read_file(found[0] / "speed") if found else ""
    return int(mbit) * MBIT if mbit.isdigit() and mbit != "0" else None


def _hypervisor_versions(hypervisor: Hypervisor) -> tuple[int, int]:
    connection = hypervisor.connection()
    with hypervisor.calling("Asking for versions"):
        return connection.getVersion(), connection.getLibVersion()


def _versions(root: Path, qemu: int, libvirt: int) -> Versions:
    cpu = _first_cpu(root)
    return Versions(
        vferry=version("vferry"),
        kernel=platform.release(),
        qemu=_split(qemu),
        libvirt=_split(libvirt),
        microcode=cpu.get("microcode"),
        cpu_model=cpu.get("model name"),
    )


def _split(number: int) -> tuple[int, int, int]:
    return number // 1_000_000, number // 1000 % 1000, number % 1000


def _connections(root: Path) -> int | None:
    said = read_file(root / "proc/sys/net/netfilter/nf_conntrack_count")
    return int(said) if said.isdigit() else None


def _keepalive_off(path: Path) -> bool | None:
    """libvirt's default, where nothing is said, is to end a connection that is silent for half a minute."""
    try:
        said = KEEPALIVE.findall(path.read_text(errors="replace"))
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return bool(said) and int(said[-1]) < 0


def _memory(root: Path) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    lines = (line.split() for line in read_file(root / "proc/meminfo").splitlines())
    return {words[0].rstrip(":"): int(words[1]) << 10 for words in lines if len(words) == 3}


def _first_cpu(root: Path) -> dict[str, str]:
    first = read_file(root / "proc/cpuinfo").split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _cpus(root: Path) -> int:
    return max(1, read_file(root / "proc/cpuinfo").count("processor\t"))
