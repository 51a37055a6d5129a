"""A realistic report: a guest that moved by its bond, with QEMU's pause as the only loss."""

import math

from msgspec import structs

from vferry.model.compression import CodecShare
from vferry.model.report import (
    Connections,
    Network,
    Phase,
    PhaseNetwork,
    PhaseSpan,
    ProbeBuckets,
    Report,
    Status,
    Step,
    Tcp,
    Timeline,
    Transfer,
    Vf,
    VfState,
)

BOUNDS = [0.0, 0.42, 2.31, 4.12, 12.84, 12.99, 15.6, 16.3, 16.34]
STEPS = [
    (Phase.CHECK, "preflight", "host1", 410.0, "done", ""),
    (Phase.PREPARE, "claim the guest", "host1", 12.0, "done", ""),
    (Phase.PREPARE, "reserve a VF", "host2", 31.0, "done", "0000:01:10.2"),
    (Phase.TO_STANDBY, "bond to standby", "host1", 88.0, "done", "eth0 is active"),
    (Phase.TO_STANDBY, "unplug the VF", "host1", 1640.0, "done", ""),
    (Phase.COPY, "copy memory", "host1", 8720.0, "done", "4 rounds"),
    (Phase.SWITCHOVER, "resume", "host2", 99.0, "done", "paused 98.7 ms"),
    (Phase.TO_VF, "plug the VF", "host2", 1812.0, "done", "0000:01:10.2"),
    (Phase.RESTORE, "wipe the old VF", "host1", 44.0, "done", ""),
]


def timeline() -> Timeline:
    count = 164
    lost, late = [0] * count, [0] * count
    rtt: list[float | None] = [1.3 + 0.4 * math.sin(at / 3) + (at % 7) * 0.1 for at in range(count)]
    lost[128], lost[129] = 9, 49
    rtt[129] = None
    late[130], rtt[130] = 9, 231.0
    for at in range(140, 143):
        rtt[at] = 70.0 - 9 * (at - 140)
    phases = [
        PhaseSpan(phase=phase, start_s=start, end_s=end)
        for phase, start, end in zip(Phase, BOUNDS, BOUNDS[1:], strict=False)
    ]
    rate = [(4.12 + at * 0.25, 9.2e6 * (0.72 + 0.28 * math.cos(at / 5) ** 2)) for at in range(35)]
    return Timeline(phases=phases, rate=rate, probes=ProbeBuckets(lost=lost, late=late, rtt_ms_max=rtt))


def tcp(**changes: object) -> Tcp:
    """A connection that stalled for the pause and the kernel's waiting to send again, with fields exchanged."""
    fields: dict[str, object] = {
        "port": 7,
        "sent": 812,
        "echoed": 812,
        "wrong_bytes": 0,
        "stall_ms": 214.3,
        "stall_phase": Phase.SWITCHOVER,
        "retransmissions": 3,
    }
    return Tcp(**(fields | changes))  # type: ignore[arg-type]


def watched(**changes: object) -> Report:
    """The report of a migration through which a connection was watched."""
    return sample(network=structs.replace(network(), tcp=tcp(**changes)))


def network() -> Network:
    gaps = [1.6, 2.0, 8.4, 3.1, 104.9, 71.2, 2.2, None]
    lost = {Phase.SWITCHOVER: 58}
    phases = {
        phase: PhaseNetwork(lost=lost.get(phase, 0), late=9 if phase is Phase.TO_VF else 0, longest_gap_ms=gap)
        for phase, gap in zip(Phase, gaps, strict=True)
    }
    return Network(probe_hz=1000, sent=16340, lost=58, late=9, longest_gap_ms=104.9, phases=phases, unsent=0)


def sample(**changes: object) -> Report:
    """The report, with fields exchanged."""
    fields: dict[str, object] = {
        "operation": "m-2f9c01",
        "guest": "guest1",
        "source": "host1",
        "destination": "host2",
        "status": Status.COMPLETED,
        "network_mode": "bond",
        "reason": "the guest has an active-backup bond over its VF and a virtio NIC",
        "started": "2026-03-14T15:09:26Z",
        "total_s": 16.34,
        "pause_ms": 98.7,
        "network": network(),
        "transfer": Transfer(
            policy="multifd",
            codec="zstd",
            guest_bytes=93_400_000,
            wire_bytes=31_200_000,
            rounds=4,
            cpu_s=3.12,
            cpu_peak=0.84,
            stream_bytes=61_400_000,
            ratio=2.013,
            pages=22_800,
            zero_pages=7_900,
            delta_pages=1_420,
            resident_pages=3_000,
            codecs={"zstd": CodecShare(blocks=131, stream_bytes=61_400_000, wire_bytes=30_500_000)},
        ),
        "connections": Connections(taken=1204, refused=1, left_out=2),
        "vf": Vf(
            before=VfState(
                host="host1",
                address="0000:01:10.0",
                pf="eth1",
                index=0,
                mac="52:54:00:12:34:56",
                vlan=100,
                trust=True,
                spoof_check=False,
                link_state="auto",
            ),
            after=VfState(
                host="host2",
                address="0000:01:10.2",
                pf="eth1",
                index=1,
                mac="52:54:00:12:34:56",
                vlan=100,
                trust=True,
                spoof_check=False,
                link_state="auto",
            ),
        ),
        "steps": [
            Step(
                phase=phase,
                name=name,
                host=host,
                started="2026-03-14T15:09:26Z",
                duration_ms=took,
                outcome=outcome,
                detail=detail,
            )
            for phase, name, host, took, outcome, detail in STEPS
        ],
        "timeline": timeline(),
    }
    return Report(**(fields | changes))  # type: ignore[arg-type]


def bare() -> Report:
    """A report of which nothing was measured."""
    return Report(
        operation="m-0",
        guest="guest1",
        source="host1",
        destination="host2",
        status=Status.REFUSED,
        reason="host2 has no free VF",
        started="2026-03-14T15:09:26Z",
        network_note="refused before measuring began",
    )
