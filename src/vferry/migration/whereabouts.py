"""Where does the guest run? Decided from what both hosts say, never from what the journal remembers."""

from enum import StrEnum

from vferry.host.api import Host, ShowGuest
from vferry.model.guest import GuestState
from vferry.model.problem import Problem


class Seen(StrEnum):
    """How a host sees the guest."""

    RUNNING = "running"
    PAUSED = "paused"
    OFF = "off"
    """Defined there, or not even that."""
    UNREACHABLE = "unreachable"


class Verdict(StrEnum):
    """Where the guest is, and what follows."""

    SOURCE = "source"
    SOURCE_PAUSED = "source-paused"
    """It runs nowhere and can only go on at the source."""
    DESTINATION = "destination"
    DESTINATION_PAUSED = "destination-paused"
    """It runs nowhere and can only go on at the destination."""
    BOTH = "both"
    NOWHERE = "nowhere"
    UNKNOWN = "unknown"
    """A host that does not answer may be running it: nothing may be resumed on a guess."""


def decide(source: Seen, destination: Seen) -> Verdict:
    """The verdict on two sightings.

    A host that runs the guest is believed even if the other one is silent: QEMU starts it at the destination only
    after the source has stopped it. Where neither runs it, one silent host is enough not to know.
    """
    match source, destination:
        case Seen.RUNNING, Seen.RUNNING:
            return Verdict.BOTH
        case Seen.RUNNING, _:
            return Verdict.SOURCE
        case _, Seen.RUNNING:
            return Verdict.DESTINATION
        case (Seen.UNREACHABLE, _) | (_, Seen.UNREACHABLE):
            return Verdict.UNKNOWN
        case Seen.PAUSED, _:
            return Verdict.SOURCE_PAUSED
        case _, Seen.PAUSED:
            return Verdict.DESTINATION_PAUSED
        case _:
            return Verdict.NOWHERE


async def look(host: Host, guest: str) -> Seen:
    """How one host sees the guest."""
    try:
        seen = await host.call(ShowGuest(guest=guest), timeout_s=10)
    except Problem as problem:
        return Seen.OFF if problem.code == "guest-unknown" else Seen.UNREACHABLE
    return {GuestState.RUNNING: Seen.RUNNING, GuestState.PAUSED: Seen.PAUSED, GuestState.OFF: Seen.OFF}[seen.state]


async def startable(source: Host, destination: Host, guest: str) -> Verdict:
    """Where a guest that runs on neither host is to be started, by where it is defined.

    libvirt defines it at the destination as it resumes there, and none was defined there before. Raises `Problem`.
    """
    if await _is_defined(destination, guest):
        return Verdict.DESTINATION
    return Verdict.SOURCE if await _is_defined(source, guest) else Verdict.NOWHERE


async def _is_defined(host: Host, guest: str) -> bool:
    try:
        return (await host.call(ShowGuest(guest=guest), timeout_s=10)).persistent
    except Problem as problem:
        if problem.code != "guest-unknown":
            raise
        return False


async def locate(source: Host, destination: Host, guest: str) -> Verdict:
    """Asks both hosts and decides."""
    return decide(await look(source, guest), await look(destination, guest))
