"""What a host must have for a relay, whichever it is: each thing that is missing is said with what to do."""

from collections.abc import Iterator

from vferry.model.host import Inventory
from vferry.model.switch import LOG, RESTART
from vferry.plan.facts import Finding, error

OWN_DRIVER = frozenset({"mlx4_core", "mlx5_core"})
"""Drivers that share their device with DPDK: a VF stays with them."""

PACKAGES = "apt install openvswitch-switch-dpdk python3-openvswitch"
DPDK_PROGRAM = "update-alternatives --set ovs-vswitchd /usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"
OLDEST = (2, 17)
"""Since then DPDK needs no hugetlbfs mounted; Debian 12 has 3.1."""


def uplinks(host: Inventory, names: tuple[str, ...]) -> Iterator[Finding]:
    """The PFs that were named."""
    known = ", ".join(pf.name for pf in host.pfs) or "none"
    if not names:
        yield error("relay-no-uplink", "No PF is named", f"Name some of these with --uplink: {known}")
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield error("relay-uplink-twice", f"The PF {name} is named twice", "Name it once")
    for name in dict.fromkeys(names):
        pf = host.pf(name)
        if pf is None:
            yield error("pf-unknown", f"{host.name} has no PF {name}", f"Name some of these with --uplink: {known}")
        elif not pf.up:
            yield error("pf-down", f"The PF {name} of {host.name} is down", f"ip link set dev {name} up")


def platform(host: Inventory, names: tuple[str, ...]) -> Iterator[Finding]:
    """The IOMMU and vfio."""
    pfs = [pf for name in names if (pf := host.pf(name)) is not None]
    if any(pf.driver not in OWN_DRIVER for pf in pfs):
        if not host.iommu:
            yield error(
                "relay-no-iommu",
                f"{host.name} has no IOMMU, without which a VF cannot be driven from user space",
                "Turn it on in the firmware, and boot with intel_iommu=on iommu=pt (AMD: iommu=pt)",
            )
        if not host.relay_ground.vfio:
            yield error(
                "relay-no-vfio",
                f"The driver vfio-pci is not loaded on {host.name}",
                "modprobe vfio-pci, and for the next boot: echo vfio-pci > /etc/modules-load.d/vfio-pci.conf",
            )


def switch(host: Inventory) -> Iterator[Finding]:
    """Open vSwitch, with DPDK, and its binding for the agent."""
    ground = host.relay_ground
    if not ground.library:
        yield error(
            "relay-no-library",
            f"The agent of {host.name} does not find Open vSwitch's Python binding",
            "apt install python3-openvswitch there (the agent's venv is made with --system-site-packages)",
        )
    found = ground.switch
    if found is None:
        yield error("relay-no-switch", f"No Open vSwitch answers on {host.name}", f"{PACKAGES}, and start it")
        return
    yield from silent(host)
    if found.release < OLDEST:
        version = found.version or "of no version that it says"
        yield error(
            "relay-switch-old", f"Open vSwitch {version} on {host.name} is too old", "Upgrade it to 2.17 or later"
        )
    elif found.dpdk_version is None:
        yield error(
            "relay-no-dpdk",
            f"The Open vSwitch of {host.name} is without DPDK",
            f"{PACKAGES}; {DPDK_PROGRAM}; {RESTART}",
        )
    elif not found.dpdk_started:
        yield from _unstarted(host.name, found.settings.get("dpdk-init"))


def silent(host: Inventory) -> Iterator[Finding]:
    """Open vSwitch of which only the database is there."""
    found = host.relay_ground.switch
    if found is not None and not found.answers:
        yield error(
            "relay-switch-silent",
            f"ovs-vswitchd does not answer on {host.name}: what its database says of it is of before",
            f"Look why ({LOG}), then {RESTART}",
        )


def _unstarted(name: str, asked: str | None) -> Iterator[Finding]:
    """Where nobody has asked for DPDK, the relay does; what an operator has set is not overruled."""
    if asked in ("true", "try"):
        yield error(
            "relay-dpdk-failed",
            f"DPDK was to start in the Open vSwitch of {name}, and has not",
            f"Look why (grep -i dpdk {LOG}), then {RESTART}",
        )
    elif asked is not None:
        yield error(
            "relay-dpdk-off",
            f"DPDK is turned off in the Open vSwitch of {name} (dpdk-init is {asked})",
            "If that may change: ovs-vsctl remove Open_vSwitch . other_config dpdk-init",
        )
