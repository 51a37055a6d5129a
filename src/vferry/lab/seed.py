"""What a cloud tells a new guest: the NoCloud seed, as a disk that cloud-init finds by its label."""

import json
from collections.abc import Mapping

from vferry.lab import iso
from vferry.lab.topology import Guest

LABEL = "cidata"
NIC = "eth0"


def image(guest: Guest) -> bytes:
    """The seed as an ISO 9660 image."""
    files = {
        "meta-data": _yaml({"instance-id": f"vferry-{guest.name}", "local-hostname": guest.name}),
        "network-config": _yaml(network(guest)),
        "user-data": "#cloud-config\n" + _yaml(USER),
    }
    return iso.image(LABEL, files)


# The hosts have no route out, so there is no mirror to ask; one key rather than three, for a server that is not there.
USER = {"package_update": False, "ssh_genkeytypes": ["ed25519"]}


def network(guest: Guest) -> dict[str, object]:
    """Network configuration, version 2, as OpenStack and EC2 have it made: the NIC is found by its MAC, and named."""
    nic = {
        "match": {"macaddress": guest.mac},
        "set-name": NIC,
        "mtu": 1500,
        "addresses": [f"{guest.address}/24", f"{guest.address6}/64"],
        "routes": [
            {"to": "0.0.0.0/0", "via": guest.subnet.address4},
            {"to": "::/0", "via": guest.subnet.address6},
        ],
    }
    return {"version": 2, "ethernets": {NIC: nic}}


def _yaml(value: Mapping[str, object]) -> str:
    """YAML, of which JSON is a part."""
    return json.dumps(value, indent=1) + "\n"
