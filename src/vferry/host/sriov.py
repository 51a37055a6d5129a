"""The SR-IOV functions of a host: PFs and VFs from sysfs, the VFs' settings from rtnetlink."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vferry.host.sriov_netlink import Links
from vferry.host.sysfs import read_file
from vferry.model.host import Bond, LinkState, Pf, Vf, VfSettings
from vferry.model.problem import Problem

IFF_UP = 1
UNSAID = 0xFFFFFFFF
"""The -1 that the kernel presets where a driver may not say."""

VFIO = "vfio-pci"

FILTERS = {("0x8086", "0x10c9"): 24}
"""How many addresses the filter of a NIC holds in all, by its PCI ids. Seen: the 82576 took 19 beside 4 VFs."""

LINK_STATES = {0: LinkState.AUTO, 1: LinkState.ENABLE, 2: LinkState.DISABLE}
# In switchdev mode a VF's representor has the PF as its device, too. With a ``c`` it is of another host's VF.
REPRESENTOR = re.compile(r"(?P<other>c\d+)?pf\d+(vf(?P<vf>\d+)|sf\d+)")


def read_pfs(root: Path, links: Links) -> tuple[Pf, ...]:
    """All PFs with their VFs; `guest` and `claim` of the VFs are for the caller to fill in."""
    forwarding = links.forwarding()
    return tuple(_read_pf(path, links, forwarding) for path in _pf_paths(root))


def vf_addresses(root: Path, pf: str) -> dict[int, str]:
    """The PCI addresses of a PF's VFs by index; empty where there is no such PF."""
    device = root / "sys/class/net" / pf / "device"
    found = ((int(link.name[len("virtfn") :]), link) for link in device.glob("virtfn*"))
    return {index: link.resolve().name for index, link in sorted(found)}


def vf_address(root: Path, pf: str, index: int) -> str:
    """A VF's PCI address. Problem ``vf-unknown``."""
    address = vf_addresses(root, pf).get(index)
    if address is None:
        raise Problem("vf-unknown", f"This host has no VF {index} on {pf}", "Look with: vferry host show HOST")
    return address


def pf_driver(root: Path, pf: str) -> str:
    """The driver of an interface's device; empty where it has none."""
    return _link_name(root / "sys/class/net" / pf / "device/driver") or ""


def vfs_possible(root: Path, pf: str) -> int:
    """How many VFs a PF can have; 0 where it is none."""
    return int(read_file(root / "sys/class/net" / pf / "device/sriov_totalvfs") or 0)


def vf_driver(root: Path, address: str) -> str | None:
    """What is bound to a VF now."""
    return _link_name(root / "sys/bus/pci/devices" / address / "driver")


def vf_under(root: Path, interface: str) -> str | None:
    """The PCI address of the VF that an interface is; None where it is none, or not there."""
    device = root / "sys/class/net" / interface / "device"
    return device.resolve().name if (device / "physfn").exists() else None


def vf_interface(root: Path, pf: str, index: int) -> str | None:
    """The interface of a VF; None where it has none, or there is no such VF."""
    return _interface(root / "sys/class/net" / pf / "device" / f"virtfn{index}")


def vf_of(root: Path, interface: str) -> tuple[str, int] | None:
    """The PF and the index of the VF that an interface is; None where it is none."""
    device = root / "sys/class/net" / interface / "device"
    pfs = (path.name for path in sorted((device / "physfn/net").glob("*")))
    found = (
        (pf, index) for pf in pfs for index, each in vf_addresses(root, pf).items() if each == device.resolve().name
    )
    return next(found, None)


def slaves(root: Path, bond: str) -> tuple[str, ...]:
    """The interfaces that a bond consists of; none where it is no bond."""
    return tuple(read_file(root / "sys/class/net" / bond / "bonding/slaves").split())


def read_bonds(root: Path, links: Links) -> tuple[Bond, ...]:
    """All bonds of this host."""
    found = [path.parent for path in sorted((root / "sys/class/net").glob("*/bonding"))]
    forwarding = links.forwarding() if found else {}
    return tuple(
        Bond(
            name=path.name,
            mode=read_file(path / "bonding/mode").split(" ")[0],
            ports=slaves(root, path.name),
            up=bool(int(read_file(path / "flags") or "0", 16) & IFF_UP),
            mtu=int(read_file(path / "mtu") or 1500),
            forwarding=forwarding.get(int(read_file(path / "ifindex") or 0), ()),
        )
        for path in found
    )


def forwarding_limit(root: Path, pf: str) -> int | None:
    """How many MACs the filter of a PF takes beside its own and one for each VF; None where that is not known."""
    device = root / "sys/class/net" / pf / "device"
    size = FILTERS.get((read_file(device / "vendor"), read_file(device / "device")))
    return None if size is None else size - 1 - len(vf_addresses(root, pf))


def free_vf(root: Path, address: str) -> str | None:
    """Takes a VF that a guest has given back from the NIC driver that it fell to; says which, if there was one."""
    driver = vf_driver(root, address)
    if driver is None or driver == VFIO:
        return None
    with contextlib.suppress(OSError):
        (root / "sys/bus/pci/devices" / address / "driver/unbind").write_text(address)
    return driver


def decode_settings(message: Any) -> dict[int, VfSettings]:
    """The settings of all VFs by index, from the message of ``ip link show`` on their PF."""
    listed = message.get_attr("IFLA_VFINFO_LIST")
    settings = {}
    for info in listed.get_attrs("IFLA_VF_INFO") if listed else ():
        mac = info.get_attr("IFLA_VF_MAC")
        if mac is not None:
            settings[mac["vf"]] = _decode(mac, info)
    return settings


def _decode(mac: Mapping[str, Any], info: Any) -> VfSettings:
    def value(attribute: str, key: str) -> int | None:
        found = info.get_attr(attribute)
        return None if found is None or found[key] == UNSAID else int(found[key])

    def switch(attribute: str, key: str) -> bool | None:
        found = value(attribute, key)
        return None if found is None else bool(found)

    link_state = value("IFLA_VF_LINK_STATE", "link_state")
    return VfSettings(
        mac=mac["mac"].lower(),
        vlan=value("IFLA_VF_VLAN", "vlan"),
        qos=value("IFLA_VF_VLAN", "qos"),
        trust=switch("IFLA_VF_TRUST", "trust"),
        spoof_check=switch("IFLA_VF_SPOOFCHK", "spoofchk"),
        link_state=None if link_state is None else LINK_STATES.get(link_state),
        min_tx_rate=value("IFLA_VF_RATE", "min_tx_rate"),
        max_tx_rate=value("IFLA_VF_RATE", "max_tx_rate"),
    )


def _read_pf(path: Path, links: Links, forwarding: dict[int, tuple[str, ...]]) -> Pf:
    name = path.name
    message = links.get(links.index(name))
    device = path / "device"
    settings = decode_settings(message)
    root = path.parents[3]
    switchdev = read_file(path / "phys_switch_id") != ""
    representors = _representors(path) if switchdev else {}
    vfs = tuple(
        Vf(
            pf=name,
            index=index,
            address=address,
            driver=_link_name(device / f"virtfn{index}/driver"),
            interface=_interface(device / f"virtfn{index}"),
            iommu_group=_iommu_group(device / f"virtfn{index}"),
            representor=representors.get(index),
            settings=settings.get(index, VfSettings()),
        )
        for index, address in vf_addresses(root, name).items()
    )
    return Pf(
        name=name,
        address=device.resolve().name,
        driver=_link_name(device / "driver") or "",
        mac=(message.get_attr("IFLA_ADDRESS") or "").lower(),
        mtu=message.get_attr("IFLA_MTU") or 1500,
        up=bool(message["flags"] & IFF_UP),
        eswitch="switchdev" if switchdev else None,
        forwarding=forwarding.get(message["index"], ()),
        forwarding_limit=forwarding_limit(root, name),
        vfs=vfs,
    )


def _pf_paths(root: Path) -> Iterator[Path]:
    for path in sorted((root / "sys/class/net").iterdir()):
        total = read_file(path / "device/sriov_totalvfs")
        if total and total != "0" and not REPRESENTOR.fullmatch(read_file(path / "phys_port_name")):
            yield path


def _representors(pf: Path) -> dict[int, str]:
    """By the indices of the VFs whose they are (https://docs.kernel.org/networking/representors.html)."""
    named = ((REPRESENTOR.fullmatch(read_file(each / "phys_port_name")), each) for each in sorted(pf.parent.iterdir()))
    device = (pf / "device").resolve()
    return {
        int(found["vf"]): each.name
        for found, each in named
        if found and found["vf"] and not found["other"] and (each / "device").resolve() == device
    }


def _interface(device: Path) -> str | None:
    return next((path.name for path in sorted((device / "net").glob("*"))), None)


def _iommu_group(device: Path) -> int | None:
    name = _link_name(device / "iommu_group")
    return int(name) if name and name.isdigit() else None


def _link_name(path: Path) -> str | None:
    try:
        return path.readlink().name
    except OSError:
        return None
