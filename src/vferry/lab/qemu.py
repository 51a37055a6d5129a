"""The command line of an emulated host. Decisions only; `hosts` starts it."""

from dataclasses import dataclass
from pathlib import Path

from vferry.lab.topology import USUAL, VFS, VLANS, Guest, Host, Setup

MEMORY_MIB, RELAY_MEMORY_MIB = 3072, 4096
CPUS, RELAY_CPUS = 1, 2
FORWARDS = 1
"""The CPU that only forwards, where there may be a relay: guests stay on the first, as without (docs/lab.md)."""
# Where the emulator, which runs inside the built root, finds the outer machine's folders.
BASE = Path("/mnt/base")
PRODUCT = Path("/mnt/product")
LAB = Path("/mnt/lab")
RUN = Path("/mnt/run")
KEPT = Path("/mnt/kept")


@dataclass(frozen=True, slots=True)
class Taps:
    """File descriptors of a host's tap devices, which the emulator inherits."""

    data: int
    mgmt: int
    second: int | None = None
    """Of the second PF, where there is one."""


def marker(host: Host) -> str:
    """Name of the emulator's process; by it, what a killed `lab up` left behind is found again."""
    return f"vferry-lab-{host.name}"


def accelerator(cpu_flags: set[str]) -> list[str]:
    """How the hosts' CPU is run. /dev/kvm may open and still run no guest: only the CPU's flags tell.

    Without KVM, EPYC-v4 with SVM and nested paging is emulated, so that KVM works inside the hosts.
    """
    if cpu_flags & {"svm", "vmx"}:
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi", "-cpu", "EPYC-v4,+svm,+npt,-x2apic"]


def kernel_words(host: Host, key: str, setup: Setup) -> str:
    """A host's kernel command line; `key` is the base64 part of the lab's ed25519 public key."""
    words = {
        "vferry.host": host.name,
        "vferry.mgmt": f"{host.address}/24",
        "vferry.vfs": VFS,
        "vferry.vlans": ",".join(map(str, VLANS)),
        "vferry.standby": setup.standby.name,
        "vferry.key": key,
    }
    if setup.relay:
        words |= {"isolcpus": FORWARDS, "vferry.relay": 1}
    own = " ".join(f"{name}={value}" for name, value in words.items())
    return (
        "console=ttyS0 quiet intel_iommu=on iommu=pt mitigations=off audit=0 cryptomgr.notests panic=1 nowatchdog "
        f"systemd.show_status=false systemd.unit=multi-user.target systemd.machine_id={host.machine_id} {own}"
    )


def overlays(host: Host) -> dict[str, Path]:
    """Files in the lab's folder that take what a host writes, and the images they lie over."""
    return {
        f"{host.name}.root.qcow2": BASE / "host.img",
        f"{host.name}.product.qcow2": PRODUCT / "product.img",
    }


def disk(name: str, source: str, options: str = "") -> list[str]:
    """A virtio disk with `name` as its serial number."""
    device = f"virtio-blk-pci,drive={name},serial={name},disable-legacy=on,num-queues=1{options}"
    return ["-drive", f"file={source},if=none,id={name}", "-device", device]


def command(
    host: Host,
    taps: Taps,
    guests: tuple[Guest, ...],
    key: str,
    flags: set[str],
    *,
    restore: bool = False,
    setup: Setup = USUAL,
) -> list[str]:
    """The emulator's argument vector for `host`; with `restore`, it waits for a kept state (`booted`)."""
    argv = [
        "qemu-system-x86_64",
        "-name",
        marker(host),
        "-nodefaults",
        "-display",
        "none",
        "-no-user-config",
        "-no-reboot",
    ]
    argv += ["-machine", "q35,kernel-irqchip=split", *accelerator(flags)]
    memory, cpus = (RELAY_MEMORY_MIB, RELAY_CPUS) if setup.relay else (MEMORY_MIB, CPUS)
    argv += ["-m", str(memory), "-smp", str(cpus), "-uuid", host.uuid]
    argv += ["-smbios", f"type=1,manufacturer=vferry,product=lab,serial={host.name},uuid={host.uuid}"]
    argv += ["-device", "intel-iommu,intremap=on,device-iotlb=on"]
    argv += ["-kernel", str(PRODUCT / "vmlinux"), "-initrd", str(PRODUCT / "host.cpio")]
    argv += ["-append", kernel_words(host, key, setup)]
    for name, overlay in zip(("root", "product"), overlays(host), strict=True):
        argv += disk(name, f"{LAB}/{overlay},format=qcow2")
    for guest in guests:
        argv += disk(guest.name, f"{LAB}/{guest.disk},format=raw,file.locking=off", ",share-rw=on")
    argv += nic(1, "data", taps.data, f"igb,mac={host.mac(1)}")
    argv += nic(2, "mgmt", taps.mgmt, f"virtio-net-pci,mac={host.mac(2)}")
    if taps.second is not None:
        argv += nic(3, "data2", taps.second, f"igb,mac={host.mac(3)}")
    argv += ["-device", "virtio-rng-pci"]
    log = LAB / f"{host.name}.console"
    socket = f"socket,id=console,path={RUN}/{host.name}.console,server=on,wait=off,logfile={log}"
    argv += ["-chardev", socket, "-serial", "chardev:console"]
    argv += ["-qmp", f"unix:{RUN}/{host.name}.qmp,server=on,wait=off"]
    return [*argv, "-incoming", "defer"] if restore else argv


def nic(port: int, name: str, tap: int, device: str) -> list[str]:
    """A NIC behind its own root port (the igb's VFs need the bus), on an inherited tap device."""
    return [
        "-device",
        f"pcie-root-port,id=port{port},chassis={port}",
        "-netdev",
        f"tap,id={name},fd={tap},vhost=off",
        "-device",
        f"{device},netdev={name},id=nic-{name},bus=port{port}",
    ]
