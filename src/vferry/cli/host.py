"""`vferry host`: adds, lists, shows and removes hosts."""

import asyncio

import click
from rich.table import Table

from vferry.cli import output
from vferry.cli import show as show_lines
from vferry.cli.guest import describe
from vferry.controller.hosts import add_host, list_hosts, open_host, remove_host
from vferry.host.api import TakeInventory
from vferry.model.host import Inventory, Pf, Vf, VfSettings
from vferry.model.relay import Relay, SwitchAbilities
from vferry.plan import relay_cpus

as_json = click.option("--json", "json_output", is_flag=True, help="Print JSON.")


@click.group()
def command() -> None:
    """Add, list and show hosts.

    \b
    Example: vferry host add host1 ssh://root@host1
    """


@command.command()
@click.argument("name")
@click.argument("uri")
@click.option("--probe-from", metavar="netns:NAME", help="Send the probes of its guests from a network namespace.")
def add(name: str, uri: str, probe_from: str | None) -> None:
    """Register a host by its agent's URI, and give it a certificate.

    NAME is what the host's own /etc/vferry/agent.toml calls it. URI is unix:///PATH, ssh://root@HOST[:PORT] or
    https://HOST:PORT; the first time not https, which needs the certificate. Adding a host again renews it.

    \b
    Example: vferry host add host1 ssh://root@192.0.2.1
    """
    inventory = asyncio.run(add_host(name, uri, probe_from))
    vfs = sum(len(pf.vfs) for pf in inventory.pfs)
    click.echo(f"Added {name}: {len(inventory.pfs)} PFs with {vfs} VFs, {len(inventory.guests)} guests")


@command.command(name="list")
@as_json
def list_(json_output: bool) -> None:  # noqa: FBT001
    """List the registered hosts.

    \b
    Example: vferry host list --json
    """
    records = list_hosts()
    if json_output:
        output.json(records)
        return
    table = output.table("NAME", "URI", "PROBE FROM")
    for record in records:
        table.add_row(record.name, record.uri, record.probe_from or "-")
    output.tables(table)


@command.command()
@click.argument("name")
@as_json
def show(name: str, json_output: bool) -> None:  # noqa: FBT001
    """Show what a host has: functions, networks, guests, claims.

    \b
    Example: vferry host show host1
    """
    inventory = asyncio.run(_inventory(name))
    if json_output:
        output.json(inventory)
        return
    output.tables(
        _summary(inventory),
        _networks(inventory),
        *(_functions(pf) for pf in inventory.pfs),
        *([_mediated(inventory)] if inventory.mdev_types else []),
        _guests(inventory),
        _claims(inventory),
    )
    show_lines.findings(tuple(relay_cpus.about(inventory)), err=True)


@command.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget a host. Nothing changes on the host itself.

    \b
    Example: vferry host remove host1
    """
    asyncio.run(remove_host(name))
    click.echo(f"Removed {name}")


async def _inventory(name: str) -> Inventory:
    async with open_host(name) as host:
        return await host.call(TakeInventory(), timeout_s=60.0)


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
        ("Compression", ", ".join(host.codecs) or "none"),
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


def _relay(relay: Relay | None) -> str:
    return "none" if relay is None else f"{relay.kind} on {', '.join(relay.uplinks)}, {relay.state}"


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
