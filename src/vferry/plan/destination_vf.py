"""Which VF of the destination a NIC gets."""

from collections.abc import Collection

from vferry.model.host import Inventory, Vf
from vferry.plan.facts import Refusal
from vferry.plan.plan import NetworkMode


def choose(destination: Inventory, network: str, mode: NetworkMode, taken: Collection[str]) -> Vf:
    """The first VF of the network's PFs that fits, that no guest has and nobody has claimed.

    A macvtap needs the VF's interface; what is passed through leaves those VFs that have one, if it can. `taken`: PCI
    addresses of VFs that other NICs get. Raises `Refusal`.
    """
    names = destination.networks[network].pfs
    pfs = [pf for pf in map(destination.pf, names) if pf is not None and pf.up]
    if not pfs:
        raise Refusal(
            "pf-missing",
            f"{destination.name} has no PF {' or '.join(names)} that is up",
            f"ip link set dev {names[0]} up",
        )
    vfs = [vf for pf in pfs for vf in pf.vfs]
    free = [vf for vf in vfs if vf.guest is None and vf.claim is None and vf.address not in taken]
    if not free:
        raise Refusal(
            "no-free-vf",
            f"{destination.name} has no free VF on {network}: all {len(vfs)} of {' and '.join(names)} are taken",
            "Free one, or choose another host, or make more (sriov_numvfs, by way of 0: all are gone then)",
        )
    wants_interface = mode is NetworkMode.MACVTAP
    fitting = [vf for vf in free if (vf.interface is not None) == wants_interface]
    if not fitting and wants_interface:
        raise _no_interface(destination.name, free[0])
    return (fitting or free)[0]


def _no_interface(host: str, vf: Vf) -> Refusal:
    device = "pci_" + vf.address.replace(":", "_").replace(".", "_")
    return Refusal(
        "no-vf-interface",
        f"No free VF of {vf.pf} on {host} has a network interface, which a macvtap needs",
        f"Give one to its NIC driver there, once that is loaded: virsh nodedev-reattach {device}",
    )
