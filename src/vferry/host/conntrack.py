"""The connections of a guest, in and out of this host's connection tracking."""

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from itertools import islice

from vferry.host.api import MOST_CONNECTIONS, PutConnections, PutOutcome, ReadConnections, Tracked
from vferry.host.conntrack_netlink import Put, Table, create, decode, portable, replace, update
from vferry.model.connections import Connection
from vferry.model.problem import Problem

TOGETHER = 50
"""Connections in one packet to the kernel: its answers to all of them have to fit the socket's buffer."""


def read_connections(table: Table, wanted: ReadConnections) -> Tracked:
    """The connections that have one of the addresses at an end. Problem ``connections-unreadable``."""
    packed = {_packed(address) for address in wanted.addresses}
    addresses = {socket.inet_ntop(_family(each), each) for each in packed}
    found: list[Connection] = []
    left_out = 0
    try:
        # Most entries are of others, and not looked into: the bytes of an address are found faster.
        for message in table.entries():
            if not any(each in message for each in packed) or addresses.isdisjoint(ends(connection := decode(message))):
                continue
            if len(found) < MOST_CONNECTIONS and portable(message):
                found.append(connection)
            else:
                left_out += 1
    except OSError as error:
        raise Problem(
            "connections-unreadable",
            f"The kernel does not tell its connections: {error.strerror}",
            "Look whether it has ctnetlink: modprobe nf_conntrack_netlink",
        ) from error
    return Tracked(connections=tuple(found), left_out=left_out)


def put_connections(table: Table, wanted: PutConnections) -> PutOutcome:
    """Puts each as far as the kernel takes it. Problem ``connection-invalid`` where an address is none."""
    refusals = [
        refusal
        for some in _batches(wanted.connections)
        for refusal in _refusals(table, [_requests(each, wanted.lease_s) for each in some])
    ]
    refused = [refusal for refusal in refusals if refusal]
    return PutOutcome(
        taken=len(refusals) - len(refused), refused=len(refused), why=os.strerror(refused[0]) if refused else ""
    )


def ends(connection: Connection) -> set[str]:
    """The addresses of both ends, as either direction has them."""
    ways = (connection.original, connection.reply)
    return {address for way in ways for address in (way.source, way.destination)}


def _requests(connection: Connection, lease_s: int | None) -> tuple[Put, ...]:
    try:
        if lease_s is None:
            return (replace(connection),)
        return create(connection, timeout=min(connection.timeout, lease_s)), update(connection)
    except OSError as error:
        raise Problem("connection-invalid", f"{connection.original} has no addresses of one family") from error


def _refusals(table: Table, requests: Sequence[tuple[Put, ...]]) -> list[int]:
    """Of each connection why the kernel does not take it, or 0."""
    errors = iter(table.put([put for each in requests for put in each]))
    # The last request of each decides. Where the kernel's own entry is further on than ours, it is busy with that.
    last = [tuple(islice(errors, len(each)))[-1] for each in requests]
    return [0 if error == errno.EBUSY else error for error in last]


def _batches(connections: Sequence[Connection]) -> Iterator[Sequence[Connection]]:
    return (connections[at : at + TOGETHER] for at in range(0, len(connections), TOGETHER))


def _packed(address: str) -> bytes:
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except OSError as error:
        raise Problem("address-invalid", f"{address} is no address") from error


def _family(packed: bytes) -> socket.AddressFamily:
    return socket.AF_INET if len(packed) == 4 else socket.AF_INET6
