"""Figures as words, the same in text, page and picture. What is null reads "not measured"."""

from collections.abc import Mapping

from vferry.model.compression import CodecShare
from vferry.model.report import Connections, Kind, Network, Phase, Report, Stall, Status, Tcp, Transfer, VfState
from vferry.model.text import clean as clean

NOT_MEASURED = "not measured"

STATUS = {
    Status.COMPLETED: "completed",
    Status.REFUSED: "refused before anything was changed",
    Status.UNDONE: "failed, and undone",
    Status.FAILED: "failed: needs the operator",
    Status.ABORTED: "aborted, and undone",
}

# One colour a phase, told apart by colour-blind readers too, and readable on white and on black.
COLOURS: Mapping[Phase, str] = {
    Phase.CHECK: "#9aa5b1",
    Phase.PREPARE: "#6f8fbf",
    Phase.TO_STANDBY: "#e0a030",
    Phase.COPY: "#3f8fd2",
    Phase.SWITCHOVER: "#d1495b",
    Phase.TO_VF: "#b07cc6",
    Phase.RESTORE: "#4aa58a",
    Phase.DONE: "#7a8a99",
}


def milliseconds(value: float | None) -> str:
    """A time in ms, as seconds from ten seconds on."""
    if value is None:
        return NOT_MEASURED
    if value >= 10_000:
        return seconds(value / 1000)
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms"


def seconds(value: float | None) -> str:
    """A time in seconds, as minutes from two minutes on."""
    if value is None:
        return NOT_MEASURED
    if value >= 120:
        return f"{int(value) // 60} min {int(value) % 60:02d} s"
    return f"{value:.0f} s" if value >= 100 else f"{value:.1f} s" if value >= 1 else f"{value:.2f} s"


def count(value: int | None) -> str:
    """A number of things."""
    return NOT_MEASURED if value is None else f"{value:,}"


def size(value: float | None) -> str:
    """A number of bytes, in binary units."""
    if value is None:
        return NOT_MEASURED
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


def ratio(transfer: Transfer) -> str:
    """How many bytes of the guest went over the wire as one."""
    if transfer.guest_bytes is None or not transfer.wire_bytes:
        return NOT_MEASURED
    return f"{transfer.guest_bytes / transfer.wire_bytes:.2f} : 1"


def compression(transfer: Transfer) -> str | None:
    """What compressing has brought, in one line; None where there was none."""
    if transfer.ratio is None:
        return None
    used = ", ".join(_share(name, share) for name, share in transfer.codecs.items())
    said = f"{transfer.ratio:.2f} : 1, {size(transfer.stream_bytes)} of QEMU's stream, by {used}"
    if not transfer.pages:
        return said
    zero, delta = count(transfer.zero_pages), count(transfer.delta_pages)
    there = f", {count(transfer.resident_pages)} there already" if transfer.resident_pages else ""
    return f"{said}; of {count(transfer.pages)} pages {zero} empty, {delta} as differences{there}"


def connections(found: Connections) -> str:
    """How many tracked connections were taken along, and how many were not."""
    lost = [
        f"{count(number)} {why}" for number, why in ((found.refused, "refused"), (found.left_out, "left out")) if number
    ]
    return ", ".join((f"{count(found.taken)} taken along", *lost))


def _share(name: str, share: CodecShare) -> str:
    blocks = f"{name} in {count(share.blocks)} blocks"
    return f"{blocks}, {count(share.software_blocks)} of them in software" if share.software_blocks else blocks


def way(report: Report) -> str:
    """From where to where it was to go."""
    if report.kind is Kind.NIC:
        return f"on {report.source}, {report.mac} to {report.to}"
    return f"{report.source} → {report.destination}"


def status(report: Report) -> str:
    """How it ended, with what is missing."""
    text = STATUS[report.status]
    return f"{text}, degraded: {report.degraded}" if report.degraded else text


def lost(network: Network | None) -> str:
    """How many probes were lost of how many."""
    return NOT_MEASURED if network is None else f"{count(network.lost)} of {count(network.sent)} probes"


def tcp(found: Tcp) -> str:
    """What became of the TCP connection, in one line."""
    return (
        f"longest stall {milliseconds(found.stall_ms)}{_in(found.stall_phase)}"
        f", {count(found.echoed)} of {count(found.sent)} records echoed"
        f", {count(found.retransmissions)} retransmissions, port {found.port}, {survival(found)}"
    )


def survival(found: Tcp) -> str:
    """Whether the TCP connection lives, and if not, when and why it ended."""
    if found.ended is None:
        return "survived" if found.survived else "was silent at the end"
    return f"ended after {seconds(found.ended_s)}{_in(found.ended_phase)}: {found.ended}"


def _in(phase: Phase | None) -> str:
    return "" if phase is None else f" in {phase}"


def headline(report: Report) -> str:
    """The figures that matter most, in one line."""
    network = report.network
    late = None if network is None else network.late
    gap = None if network is None else network.longest_gap_ms
    stall = f" · TCP stall {milliseconds(network.tcp.stall_ms)}" if network and network.tcp else ""
    return (
        f"lost {lost(network)} · late {count(late)} · longest gap {milliseconds(gap)}{stall}"
        f" · pause {milliseconds(report.pause_ms)} · total {seconds(report.total_s)}"
    )


def device_state(transfer: Transfer) -> str | None:
    """How much state devices have sent, with what was expected; None where none has."""
    if transfer.device_bytes is None:
        return None
    before = transfer.device_bytes_estimated
    return f"{size(transfer.device_bytes)} sent" + ("" if before is None else f", {size(before)} estimated before")


def stall(found: Stall) -> str:
    """What was done as the copy stalled, and when."""
    done = {
        "pause": f"pause of up to {milliseconds(found.pause_ms)} allowed",
        "throttle": f"guest slowed by {found.throttle} %",
        "abort": "aborted",
    }
    return f"{done[found.action]} in pass {found.round}, after {seconds(found.after_s)}"


def stalls(transfer: Transfer | None) -> str | None:
    """All that was done as the copy stalled, in one line; None where that was nothing."""
    return "; ".join(map(stall, transfer.stalls)) if transfer and transfer.stalls else None


def transfer_facts(transfer: Transfer | None) -> list[tuple[str, str]]:
    """The memory path as pairs of label and value."""
    if transfer is None:
        return [("transfer", NOT_MEASURED)]
    peak = NOT_MEASURED if transfer.cpu_peak is None else f"{transfer.cpu_peak:.2f} cores"
    compressed, devices, stalled = compression(transfer), device_state(transfer), stalls(transfer)
    return [
        ("policy", f"{transfer.policy}, by QEMU itself" if transfer.direct else transfer.policy),
        ("codec", transfer.codec or NOT_MEASURED),
        ("guest memory sent", size(transfer.guest_bytes)),
        ("on the wire", size(transfer.wire_bytes)),
        ("ratio", ratio(transfer)),
        ("rounds", count(transfer.rounds)),
        ("CPU time", seconds(transfer.cpu_s)),
        ("CPU at most", peak),
        *([("compression", compressed)] if compressed else []),
        *([("state of devices", devices)] if devices else []),
        *([("pause allowed", milliseconds(transfer.pause_limit_ms))] if transfer.pause_limit_ms else []),
        *([("guest slowed by", f"{transfer.throttle} %")] if transfer.throttle is not None else []),
        *([("as it stalled", stalled)] if stalled else []),
    ]


def vf_facts(vf: VfState | None) -> list[tuple[str, str]]:
    """A virtual function as pairs of label and value, without what was not read."""
    if vf is None:
        return []
    switch = {True: "on", False: "off", None: None}
    facts: list[tuple[str, object]] = [
        ("host", vf.host),
        ("address", vf.address),
        ("PF", vf.pf),
        ("number", vf.index),
        ("MAC", vf.mac),
        ("VLAN", vf.vlan),
        ("QoS", vf.qos),
        ("trust", switch[vf.trust]),
        ("spoof check", switch[vf.spoof_check]),
        ("link", vf.link_state),
        ("least rate", None if vf.min_rate is None else f"{vf.min_rate} Mbit/s"),
        ("greatest rate", None if vf.max_rate is None else f"{vf.max_rate} Mbit/s"),
    ]
    return [(label, str(value)) for label, value in facts if value is not None]


def phase_rows(report: Report) -> list[tuple[Phase, str, str, str, str]]:
    """Each phase that ran: time, lost, late, longest gap."""
    spans = report.timeline.phases if report.timeline else []
    took: dict[Phase, float] = {}
    for span in spans:
        took[span.phase] = took.get(span.phase, 0.0) + span.end_s - span.start_s
    measured = report.network.phases if report.network else {}
    rows = []
    for phase in Phase:
        part = measured.get(phase)
        if phase not in took and part is None:
            continue
        gap = "none" if part is not None and part.longest_gap_ms is None else None
        rows.append(
            (
                phase,
                seconds(took.get(phase)),
                count(part.lost if part else None),
                count(part.late if part else None),
                gap or milliseconds(part.longest_gap_ms if part else None),
            )
        )
    return rows


def caveats(report: Report) -> list[str]:
    """What a reader must know to read the figures right, and the notes."""
    network, said = report.network, []
    if network is None and report.kind is Kind.MIGRATION:
        said.append(f"The network was not measured: {report.network_note or 'no reason was given'}.")
    if network is not None and network.self_stall_max_ms is not None:
        stall = milliseconds(network.self_stall_max_ms)
        said.append(f"The prober itself stood still for up to {stall}; that is taken off the gaps.")
    if network is not None and network.unsent:
        said.append(f"{count(network.unsent)} of the lost probes could not be sent by the measuring machine.")
    if network is not None and network.tcp is not None:
        said += of_tcp(network.tcp)
    return said + list(report.notes)


def of_tcp(found: Tcp) -> list[str]:
    """What a reader must know to read the figures of the TCP connection right."""
    said = []
    if not found.survived:
        said.append(f"The TCP connection {survival(found)}.")
    if found.wrong_bytes:
        said.append(f"{count(found.wrong_bytes)} bytes of the TCP connection came back other than they were sent.")
    if found.self_stall_max_ms is not None:
        stall = milliseconds(found.self_stall_max_ms)
        said.append(f"The TCP connection's prober stood still for up to {stall}; that is taken off its stall.")
    return said
