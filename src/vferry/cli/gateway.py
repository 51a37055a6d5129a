"""`vferry gateway`: one of the two gateways of a migration."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from vferry.model.compression import CODECS, DELTA_MIB, MOST_DELTA_MIB, MOST_STREAMS, Codec
from vferry.model.problem import Problem
from vferry.transfer.compression import MIB, Compression
from vferry.transfer.endpoint import DEFAULT_SERVICE, ROOT_ONLY, parse_owner, parse_services, parse_tcp
from vferry.transfer.gateway import Security
from vferry.transfer.place import Place, parse_place
from vferry.transfer.process import log, lost, read_token, run
from vferry.transfer.receiving import ReceivingGateway
from vferry.transfer.sending import SendingGateway
from vferry.transfer.tls import Credentials, make_context

SAMPLE_LIMIT = 64 * MIB
FILE = click.Path(path_type=Path)
COMMON = (
    click.option("--ca", type=FILE, help="PEM file of the authority that signs both gateways' certificates."),
    click.option("--cert", type=FILE, help="PEM file of this gateway's certificate."),
    click.option("--key", type=FILE, help="PEM file of this gateway's private key."),
    click.option("--peer", metavar="NAME", help="Host name or address the other gateway's certificate must carry."),
    click.option("--token-file", type=FILE, help="File with a secret of at most 256 bytes that both gateways share."),
    click.option("--insecure-plaintext", is_flag=True, help="No TLS: anybody on the path can read the guest's memory."),
    click.option(
        "--peer-timeout",
        type=click.IntRange(3, 3600),
        default=15,
        show_default=True,
        metavar="SECONDS",
        help="Break connections when the other host has not answered for so long.",
    ),
    click.option(
        "--delta-memory",
        type=click.IntRange(0, MOST_DELTA_MIB),
        default=DELTA_MIB,
        show_default=True,
        metavar="MIB",
        help="Memory for copies of pages, so that a page sent again goes as its difference; the lesser of both sides'.",
    ),
    click.option("--json", "details", is_flag=True, help="Print statistics every second, and the rates at the end."),
)


def common(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that both roles have."""
    for option in reversed(COMMON):
        function = option(function)
    return function


def _place(written: str) -> Place:
    try:
        return parse_place(written)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.group(name="gateway")
def command() -> None:
    """Carry a migration's connections between two hosts over mutual TLS."""


@command.command()
@click.option("--listen", required=True, multiple=True, metavar="[SERVICE=]unix:PATH", help="Where it is used from.")
@click.option("--connect", required=True, metavar="HOST:PORT", help="The receiving gateway.")
@click.option(
    "--memory-owner",
    metavar="USER[:GROUP]",
    help="Who may open the socket of the service memory; with GROUP the group too.",
)
@click.option(
    "--hold",
    multiple=True,
    metavar="SERVICE",
    help="Do not tell its local process when the wire breaks: leave it waiting until this gateway is ended.",
)
@click.option(
    "--codec",
    type=click.Choice(CODECS),
    default=Codec.NONE.value,
    show_default=True,
    help="Compress the service memory; auto follows the link's speed, none passes the bytes on as they are.",
)
@click.option(
    "--streams",
    type=click.IntRange(1, MOST_STREAMS),
    default=1,
    show_default=True,
    help="With a codec, spread each connection over so many; multifd's channels are connections already.",
)
@common
def send(
    listen: tuple[str, ...],
    connect: str,
    memory_owner: str | None,
    hold: tuple[str, ...],
    codec: str,
    streams: int,
    *,
    delta_memory: int,
    details: bool,
    **options: Any,
) -> None:
    """Run the gateway of the source.

    \b
    Example: vferry gateway send --listen unix:/run/vferry/7/memory.sock --connect host2:7001 \\
               --ca ca.pem --cert host1.pem --key host1.key
    """
    services = parse_services(listen)
    receiver = parse_tcp(connect)
    _check_hold(services, hold)
    options["peer"] = options["peer"] or receiver.host
    gateway = SendingGateway(
        services,
        receiver,
        _security(services, server=False, **options),
        log=log,
        peer_timeout_s=options["peer_timeout"],
        memory_owner=parse_owner(memory_owner) if memory_owner else ROOT_ONLY,
        hold=hold,
        lost=lost,
        compression=Compression(codec, delta_memory * MIB, streams),
    )
    run(gateway, details=details)


@command.command()
@click.option("--listen", required=True, metavar="HOST:PORT", help="Where the sending gateway connects to.")
@click.option("--connect", required=True, multiple=True, metavar="[SERVICE=]unix:PATH", help="Where it leads to.")
@click.option(
    "--resident",
    multiple=True,
    type=_place,
    metavar="PID:START-END",
    help="Memory of a guest that runs here, in the process PID as /proc/PID/maps has it: pages that the other guest "
    "has, too, are not sent. May be repeated; at most --delta-memory is copied of it.",
)
@common
def receive(
    listen: str,
    connect: tuple[str, ...],
    resident: tuple[Place, ...],
    *,
    delta_memory: int,
    details: bool,
    **options: Any,
) -> None:
    """Run the gateway of the destination.

    \b
    Example: vferry gateway receive --listen 192.0.2.2:7001 --connect unix:/run/vferry/7/memory.sock \\
               --ca ca.pem --cert host2.pem --key host2.key --peer host1
    """
    services = parse_services(connect)
    gateway = ReceivingGateway(
        parse_tcp(listen),
        services,
        _security(services, server=True, **options),
        log=log,
        peer_timeout_s=options["peer_timeout"],
        delta_bytes=delta_memory * MIB,
        resident=resident,
    )
    run(gateway, details=details)


@command.command()
def sample() -> None:
    """Tell what each codec that works here makes of memory, which is read from standard input: 64 MiB at most.

    \b
    Example: head -c 16M guest.core | vferry gateway sample
    """
    # With numpy, which a gateway that does not compress can do without.
    from vferry.transfer.sampling import sample_memory

    found = sample_memory(sys.stdin.buffer.read(SAMPLE_LIMIT))
    if found is None:
        raise Problem("sample-empty", "There is not one page of 4 KiB on standard input", "Pipe memory to it")
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")


def _security(
    services: dict[str, Path],
    *,
    server: bool,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    peer: str | None,
    token_file: Path | None,
    insecure_plaintext: bool,
    peer_timeout: int,
) -> Security:
    token = read_token(token_file) if token_file else b""
    if insecure_plaintext:
        _check_plaintext(services, tls_wanted=bool(ca or cert or key))
        log("WARNING: no TLS: anybody on the path can read and change the guest's memory")
        return Security(None, "", token)
    if not (ca and cert and key and peer):
        raise Problem(
            "tls-missing",
            "The gateway needs --ca, --cert, --key" + (" and --peer" if server else ""),
            "Give them, or --insecure-plaintext between two plain QEMU processes",
        )
    return Security(make_context(Credentials(ca, cert, key), server=server), peer, token)


def _check_hold(services: dict[str, Path], hold: tuple[str, ...]) -> None:
    for service in hold:
        if service not in services:
            raise Problem("service-unknown", f"There is no service {service!r} to hold", "Name one of --listen")


def _check_plaintext(services: dict[str, Path], *, tls_wanted: bool) -> None:
    if tls_wanted:
        raise Problem("tls-contradicted", "--insecure-plaintext and TLS files exclude each other", "Leave one out")
    if set(services) - {DEFAULT_SERVICE}:
        raise Problem(
            "plaintext-service",
            "Without TLS the gateway carries the service memory only: libvirt's socket would be open to anybody",
            "Use TLS",
        )
