"""Rewriting a guest's libvirt definition for its destination. Pure."""

from collections.abc import Mapping

from vferry.model.definition import attached, parse, with_vfs
from vferry.model.host import Attachment


def rewritten(xml: str, passed: Mapping[str, str], attachments: Mapping[str, Attachment]) -> tuple[str, list[str]]:
    """The definition for the destination, and what it did not name: VFs passed through, and MACs of virtio NICs.

    `passed` as for `with_vfs`, `attachments` as for `attached`.
    """
    xml, missing = with_vfs(xml, passed)
    xml, also = attached(xml, attachments)
    return xml, missing + also


def pools(xml: str) -> dict[str, str]:
    """The libvirt networks from which NICs get what they are on when the guest starts, by MAC."""
    found = {}
    for interface in parse(xml).iterfind("./devices/interface[@type='network']"):
        mac, source = interface.find("mac"), interface.find("source")
        if mac is not None and source is not None:
            found[mac.get("address", "").lower()] = source.get("network", "")
    return found
