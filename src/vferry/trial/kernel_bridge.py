"""Bridges of the kernel between taps: one that passes all, or two with rules and a tunnel."""

import shutil
import subprocess
from collections.abc import Iterable

from vferry.model.problem import Exit, Problem
from vferry.trial.namespace import Namespace
from vferry.trial.relay_rules import ENDS, NETWORK, acls, take_addresses

NFT = "nft"


def missing() -> str:
    """What this machine lacks for rules, in words; empty if nothing."""
    return "" if shutil.which(NFT) else f"there is no {NFT}: apt install nftables"


def bridge(namespace: Namespace, name: str, ports: Iterable[str]) -> None:
    """A bridge of interfaces that are there. Problem ``bench-no-link``."""
    namespace.ip(f"link add name {name} type bridge", *(f"link set {port} master {name} up" for port in ports))
    namespace.ip(f"link set {name} up")


def bridge_with_rules(namespace: Namespace, ports: Iterable[str]) -> None:
    """A bridge for each of two interfaces, as of two hosts, and GRE between them.

    VXLAN would go without its header from a host to itself. Problem ``bench-no-link``.
    """
    take_addresses(namespace)
    for at, port in enumerate(ports):
        way = f"local {ENDS[at]} remote {ENDS[1 - at]}"
        namespace.ip(f"link add name tunnel{at} mtu 1500 type gretap {way} key {NETWORK}")
        bridge(namespace, f"host{at}", (port, f"tunnel{at}"))
    _filter(namespace)


def ruleset() -> str:
    """As nft(8) reads it: what is of a connection passes, and one is begun by an ACL."""
    rules = "".join(f"    {acl.in_nft()} accept\n" for acl in acls())
    return (
        "table bridge bench {\n"
        "  chain forward {\n"
        "    type filter hook forward priority 0; policy drop;\n"
        "    ct state established accept\n"
        "    ct state invalid drop\n"
        f"{rules}"
        "  }\n"
        "}\n"
    )


def _filter(namespace: Namespace) -> None:
    argv = namespace.inside([NFT, "--file", "-"])
    done = subprocess.run(argv, input=ruleset(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise Problem("bench-no-link", f"{NFT}: {done.stderr.strip()[:500]}", "Run it as root", exit=Exit.UNDONE)
