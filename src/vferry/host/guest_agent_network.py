"""The guest's network as the guest sees it: one script that works with iproute2, old or new, and with busybox."""

import json
import re
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import Any

from msgspec import Struct

from vferry.host.api import GuestRun
from vferry.host.guest_agent import nonsense
from vferry.model.guest import GuestAddress, GuestLink, GuestNetwork
from vferry.model.problem import Problem
from vferry.model.text import clean

# sysfs tells of the links whatever `ip` is installed; of `ip` only the addresses and the links' kinds are taken.
SCRIPT = r"""
LC_ALL=C; export LC_ALL
PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH
# busybox reads byte by byte, and of /proc/sys only the first byte comes so: `read` fails with it in hand.
first() { line=; read -r line < "$1"; printf '%s' "$line"; }
echo '== links'
for d in /sys/class/net/*; do
  [ -e "$d/address" ] || continue
  driver=$(readlink "$d/device/driver" 2>/dev/null)
  master=$(readlink "$d/master" 2>/dev/null)
  kind=$(sed -n 's/^DEVTYPE=//p' "$d/uevent" 2>/dev/null)
  [ -d "$d/bonding" ] && kind="bond $(first "$d/bonding/mode" 2>/dev/null)"
  [ -d "$d/bridge" ] && kind=bridge
  echo "${d##*/}|$(first "$d/address" 2>/dev/null)|$(first "$d/mtu" 2>/dev/null)|$(first "$d/flags" 2>/dev/null)|\
$(first "$d/carrier" 2>/dev/null)|${driver##*/}|${master##*/}|$kind"
done
echo '== json'
ip -d -j addr show 2>/dev/null || ip -j addr show 2>/dev/null
echo
echo '== plain'
ip -o addr show 2>/dev/null
echo '== rp_filter'
for f in /proc/sys/net/ipv4/conf/*/rp_filter; do
  n=${f%/rp_filter}; echo "${n##*/} $(first "$f" 2>/dev/null)"
done
echo '== forwarding'
echo "$(first /proc/sys/net/ipv6/conf/all/forwarding 2>/dev/null)"
echo '== processes'
cat /proc/[0-9]*/comm 2>/dev/null | sort -u
echo '== interfaces'
cat /etc/network/interfaces /etc/network/interfaces.d/* 2>/dev/null
echo '== end'
"""

LINE = re.compile(r"^\d+:\s+(\S+?)(?:@\S+)?\s+(inet6?)\s+([0-9a-fA-F:.]+)(?:/(\d+))?(.*)$")
STANZA = re.compile(r"^\s*iface\s+(?!lo\b)\S+", re.MULTILINE)
DHCP_CLIENTS = ("dhclient", "udhcpc", "dhcpcd", "connman")
IFF_UP = 1
MOST_LINKS = 1000
MOST_NAME = 15
"""Letters of an interface's name, as the kernel has it."""
MOST_WORD = 60
"""Letters of what else is one word: a driver, a kind, the address of a link."""
MTUS = range(1 << 31)
FAMILIES = ("inet", "inet6")
STACKED = ("vlan", "macvlan", "macvtap", "ipvlan", "ipvtap")
"""Kinds of interfaces that are on top of another one."""


class _Extra(Struct, frozen=True, kw_only=True):
    """What `ip` adds to sysfs for one link."""

    kind: str | None = None
    over: str | None = None
    addresses: tuple[GuestAddress, ...] = ()


def read_network(guest: str, run: GuestRun) -> GuestNetwork:
    """Reads what `SCRIPT` printed. Problem ``guest-agent-nonsense`` when it is not that."""
    sections = _sections(run.stdout)
    if run.code != 0 or "links" not in sections or "end" not in sections:
        raise _nonsense(guest, f"the script ended with {run.code}: {run.stderr.strip()[:200] or 'no output'}")
    try:
        extra = _from_json(sections.get("json", ())) or _from_plain(sections.get("plain", ()))
        links = tuple(_link(line, extra) for line in sections["links"][:MOST_LINKS])
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise _nonsense(guest, repr(error)) from error
    rp_filter = (line.split() for line in sections.get("rp_filter", ()))
    return GuestNetwork(
        links=links,
        strict_rp_filter=tuple(clean(words[0], MOST_NAME) for words in rp_filter if words[1:] == ["1"]),
        routes_ipv6=sections.get("forwarding", ()) == ["1"],
        configured_by=_configured_by(sections),
    )


def _sections(output: str) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in output.splitlines():
        if line.startswith("== "):
            current = sections.setdefault(line[3:].strip(), [])
        elif line.strip():
            current.append(line)
    return sections


def _link(line: str, extra: dict[str, _Extra]) -> GuestLink:
    name, mac, mtu, flags, carrier, driver, master, kinds = line.split("|")
    kind, mode, *_ = *kinds.split(), "", ""
    more = extra.get(name, _Extra())
    if int(mtu or 0) not in MTUS:
        raise ValueError(f"an MTU of {mtu[:MOST_WORD]}")
    return GuestLink(
        name=clean(name, MOST_NAME),
        mac=clean(mac, MOST_WORD).lower(),
        mtu=int(mtu or 0),
        up=bool(int(flags or "0", 16) & IFF_UP),
        carrier=carrier == "1",
        driver=clean(driver, MOST_WORD) or None,
        master=clean(master, MOST_NAME) or None,
        kind=clean(more.kind or kind, MOST_WORD) or None,
        bond_mode=clean(mode, MOST_WORD) or None,
        over=clean(more.over or "", MOST_NAME) or None,
        addresses=more.addresses,
    )


def _from_json(lines: Iterable[str]) -> dict[str, _Extra]:
    # busybox prints nothing here, an old iproute2 its usage.
    text = "\n".join(lines).strip()
    if not text.startswith("["):
        return {}
    links = json.loads(text)
    return {link["ifname"]: _json_link(link) for link in links if "ifname" in link}


def _json_link(link: dict[str, Any]) -> _Extra:
    addresses = tuple(
        _address(
            str(item["local"]),
            int(item.get("prefixlen", 0)),
            str(item["family"]),
            str(item.get("scope", "global")),
            dynamic=bool(item.get("dynamic", False)),
        )
        for item in link.get("addr_info", ())
        if "local" in item and item["family"] in FAMILIES
    )
    kind = link.get("linkinfo", {}).get("info_kind")
    over = link.get("link") if kind in STACKED else None
    return _Extra(kind=str(kind) if kind else None, over=str(over) if over else None, addresses=addresses)


def _address(address: str, prefix: int, family: str, scope: str, *, dynamic: bool) -> GuestAddress:
    """ValueError if it is none."""
    if prefix not in range(ip_address(address).max_prefixlen + 1):
        raise ValueError(f"a prefix of {prefix}")
    return GuestAddress(
        address=clean(address, MOST_WORD), prefix=prefix, family=family, scope=clean(scope, MOST_WORD), dynamic=dynamic
    )


def _from_plain(lines: Iterable[str]) -> dict[str, _Extra]:
    found: dict[str, tuple[GuestAddress, ...]] = {}
    for name, address in _plain_addresses(lines):
        found[name] = (*found.get(name, ()), address)
    return {name: _Extra(addresses=addresses) for name, addresses in found.items()}


def _plain_addresses(lines: Iterable[str]) -> Iterator[tuple[str, GuestAddress]]:
    for line in lines:
        match = LINE.match(line.strip())
        if not match:
            continue
        name, family, address, prefix, rest = match.groups()
        words = rest.replace("\\", " ").split()
        scope = words[words.index("scope") + 1] if "scope" in words[:-1] else "global"
        whole = 32 if family == "inet" else 128
        yield (
            name,
            _address(address, int(prefix) if prefix else whole, family, scope, dynamic="dynamic" in words),
        )


def _configured_by(sections: dict[str, list[str]]) -> str | None:
    running = set(sections.get("processes", ()))
    if "NetworkManager" in running:
        return "NetworkManager"
    # The kernel keeps 15 characters of a process's name.
    if "systemd-network" in running:
        return "networkd"
    if STANZA.search("\n".join(sections.get("interfaces", ()))):
        return "ifupdown"
    return "dhcp" if running.intersection(DHCP_CLIENTS) else None


def _nonsense(guest: str, what: str) -> Problem:
    message = f"What guest {guest} says of its network makes no sense: {what}"
    return nonsense(guest, message, "Run `ip addr` in the guest and look at qemu-guest-agent there")
