"""What `vferry host show` shows of a host."""

from collections.abc import Iterator

from rich.table import Table

from vferry.cli import output
from vferry.cli.guest import describe
from vferry.cli.rate import per_second
from vferry.model.host import Inventory, MigrationEndpoint, Pf, QemuTls, Vf, VfSettings
from vferry.model.relay import Relay, SwitchAbilities


def tables(host: Inventory) -> Iterator[Table]:
    """In the order in which they are shown."""
    yield _summary(host)
    yield _networks(host)
    for pf in host.pfs:
        yield _functions(pf)
    if host.mdev_types:
        yield _mediated(host)
    yield _guests(host)
    yield _claims(host)


def _summary(host: Inventory) -> Table:
    versions, migration = host.versions, host.migration
    table = Table(box=None, show_header=False, title=f"Host {host.name}", title_justify="left", pad_edge=False)
    for key, value in (
        ("vferry", versions.vferry),
        ("Kernel", versions.kernel),
        ("QEMU", ".".join(map(str, versions.qemu))),
        ("libvirt", ".".join(map(str, versions.libvirt))),
        ("CPUs", f"{host.cpus} ({versions.cpu_model or 'model unknown'}, microcode {versions.microcode or 'unknown'})"),
        ("Memory", f"{_gib(host.memory_free)} free of {_gib(host.memory_total)}"),
        ("IOMMU", _yes(value=host.iommu)),
        ("vhost-net", _yes(value=host.vhost_net)),
        ("Huge pages", _huge_pages(host)),
        ("Open vSwitch", _switch(host.relay_ground.switch)),
        ("Relay", _relay(host.relay)),
        ("Tracked connections", "none" if host.connections is None else str(host.connections)),
        ("Migration", f"{migration.address}, ports {migration.ports[0]}-{migration.ports[1]}"),
        ("Bandwidth", _bandwidth(migration)),
        ("Compression", ", ".join(host.codecs) or "none"),
        ("QEMU's own TLS", _qemu_tls(host.qemu_tls)),
        ("Slots", f"{migration.slots - sum(claim.slot for claim in host.claims)} free of {migration.slots}"),
    ):
        table.add_row(key, value)
    return table


def _huge_pages(host: Inventory) -> str:
    said = (
        f"{pool.free} free of {pool.total} ({pool.size_kib >> 10} MiB, NUMA node {node.number})"
        for node in host.relay_ground.nodes
        for pool in node.pools
        if pool.total
    )
    return "; ".join(said) or "none"


def _switch(switch: SwitchAbilities | None) -> str:
    if switch is None:
        return "none"
    dpdk = switch.dpdk_version or "without DPDK"
    runs, offload = ", which runs" if switch.dpdk_started else "", "on" if switch.offloads else "off"
    if not switch.answers:
        runs = ", but ovs-vswitchd does not answer"
    return f"{switch.version or 'version unknown'}, {dpdk}{runs}, hw-offload {offload}"


def _qemu_tls(tls: QemuTls | None) -> str:
    if tls is None:
        return "not known to this agent"
    return f"as {', '.join(tls.names)}" if tls.lacks is None else f"no: {tls.lacks}"


def _relay(relay: Relay | None) -> str:
    return "none" if relay is None else f"{relay.kind} on {', '.join(relay.uplinks)}, {relay.state}"


def _bandwidth(migration: MigrationEndpoint) -> str:
    if not migration.bandwidth_set:
        return f"{per_second(migration.bandwidth)} (configured)"
    return f"{per_second(migration.bandwidth)} (set; configured: {per_second(migration.bandwidth_configured)})"


def _networks(host: Inventory) -> Table:
    table = output.table("NETWORK", "PF", "UPLINK", "BRIDGE", "BRIDGE STATE", "PORTS", title="Networks")
    for name, network in sorted(host.networks.items()):
        bridge = host.bridge(network.bridge)
        on = host.attachment(name)
        state = "missing" if bridge is None else "up" if bridge.up else "down"
        table.add_row(
            name,
            " ".join(network.pfs),
            _uplink(host, host.uplink(name)),
            f"{on.device} ({on.kind})" if on.bridged else "none: macvtaps",
            state if on.bridged else "-",
            " ".join(bridge.ports) if bridge else "-",
        )
    return table


def _uplink(host: Inventory, name: str) -> str:
    bond = host.bond(name)
    return f"{name} ({bond.mode} of {' '.join(bond.ports)})" if bond else name


def _functions(pf: Pf) -> Table:
    limit = f" of {pf.forwarding_limit}" if pf.forwarding_limit is not None else ""
    title = (
        f"PF {pf.name}  {pf.address}  {pf.driver}  {pf.mac}  MTU {pf.mtu}  {'up' if pf.up else 'down'}  "
        f"{pf.eswitch or 'legacy'}  {len(pf.forwarding)}{limit} forwarded MACs"
    )
    switch = ("REPRESENTOR",) if pf.switchdev else ()
    columns = (
        "VF",
        "ADDRESS",
        "INTERFACE",
        *switch,
        "MAC",
        "VLAN",
        "QOS",
        "TRUST",
        "SPOOF CHECK",
        "RATE Mbit/s",
        "LINK",
        "GUEST",
        "CLAIM",
    )
    table = output.table(*columns, title=title)
    for vf in pf.vfs:
        table.add_row(*_row(vf, switchdev=pf.switchdev))
    return table


def _row(vf: Vf, *, switchdev: bool) -> tuple[str, ...]:
    s = vf.settings
    return (
        str(vf.index),
        vf.address,
        vf.interface or "-",
        *((vf.representor or "-",) if switchdev else ()),
        s.mac or "-",
        _or_dash(s.vlan),
        _or_dash(s.qos),
        _yes(value=s.trust),
        _yes(value=s.spoof_check),
        _rates(s),
        s.link_state or "-",
        vf.guest or "-",
        vf.claim or "-",
    )


def _mediated(host: Inventory) -> Table:
    table = output.table("TYPE", "OF", "MORE", "THERE ARE", title="Mediated devices")
    for offer in host.mdev_types:
        there = [mdev.uuid for mdev in host.mdevs if (mdev.type, mdev.parent) == (offer.name, offer.parent)]
        table.add_row(offer.name, offer.parent, str(offer.available), "\n".join(there) or "-")
    return table


def _guests(host: Inventory) -> Table:
    table = output.table("GUEST", "STATE", "MEMORY", "CPUS", "NICS", title="Guests")
    for guest in host.guests:
        nics = [f"{nic.mac} ({describe(nic)})" for nic in guest.nics]
        table.add_row(guest.name, guest.state, _gib(guest.memory), str(guest.vcpus), "\n".join(nics) or "-")
    return table


def _claims(host: Inventory) -> Table:
    table = output.table("OPERATION", "EPOCH", "GUEST", "VFS", title="Claims")
    for claim in host.claims:
        table.add_row(claim.operation, str(claim.epoch), claim.guest or "-", "\n".join(claim.vfs) or "-")
    return table


def _rates(settings: VfSettings) -> str:
    low, high = settings.min_tx_rate, settings.max_tx_rate
    if low is None and high is None:
        return "-"
    return f"{low or 0}-{high or 'unlimited'}"


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _yes(*, value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)
