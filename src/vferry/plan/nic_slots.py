"""Whether a running guest has a place for another NIC beside one that it has, and lets go of that one then."""

from collections.abc import Iterator

from vferry.model.definition import parse
from vferry.plan.devices import ROOT_BUS, attribute, bus_of, free_ports
from vferry.plan.facts import Finding, error


def about(live: str, alias: str, mac: str) -> Iterator[Finding]:
    """What keeps a running guest from being given another NIC beside one, and then from losing that one."""
    domain = parse(live)
    if "q35" not in attribute(domain, "os/type", "machine"):
        return
    nic = next((each for each in domain.iterfind("devices/*") if attribute(each, "alias", "name") == alias), None)
    if nic is not None and bus_of(nic) == ROOT_BUS:
        yield error(
            "nic-not-unpluggable",
            f"{mac} sits on the guest's root bus, from where it cannot be unplugged",
            "Shut the guest down, ask again, and start it",
        )
    if not free_ports(domain):
        yield error(
            "no-free-port",
            f"The guest has no free PCIe root port for another NIC beside {mac}",
            "Add <controller type='pci' model='pcie-root-port'/> to its definition; or shut it down, ask again, and "
            "start it",
        )
