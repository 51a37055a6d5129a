"""The peer in a VLAN: a process that tags and untags frames between two tap devices.

Not every kernel has VLAN devices, nor bridges that know of VLANs. `python -m vferry.lab.vlan DEVICE PORT VLAN` runs in
the namespace where both devices are: DEVICE has the peer's addresses in the VLAN, PORT is a port of the bridge.
"""

import contextlib
import os
import selectors
import sys

from vferry.lab import net

TAGGED = b"\x81\x00"
LONGEST = 65536  # bytes of a frame


def tag(frame: bytes, vlan: int) -> bytes:
    """The frame with a tag; `vlan` is 1 to 4094."""
    return frame[:12] + TAGGED + vlan.to_bytes(2, "big") + frame[12:]


def untag(frame: bytes, vlan: int) -> bytes | None:
    """The frame without its tag, or None if it is not of this VLAN."""
    if frame[12:14] != TAGGED or int.from_bytes(frame[14:16], "big") & 0xFFF != vlan:
        return None
    return frame[:12] + frame[16:]


def relay(device: int, port: int, vlan: int) -> None:
    """Passes frames between the descriptors of both devices, until one of them is gone (an end, or `OSError`)."""
    with selectors.DefaultSelector() as selector:
        selector.register(device, selectors.EVENT_READ)
        selector.register(port, selectors.EVENT_READ)
        while True:
            for entry, _ in selector.select():
                frame = os.read(entry.fd, LONGEST)
                if not frame:
                    return
                passed, to = (tag(frame, vlan), port) if entry.fd == device else (untag(frame, vlan), device)
                if passed is not None:
                    with contextlib.suppress(OSError):  # the other device is down: the frame is lost, as on a wire
                        os.write(to, passed)


def main(device: str, port: str, vlan: str) -> None:
    relay(net.open_tap(device), net.open_tap(port), int(vlan))


if __name__ == "__main__":
    main(*sys.argv[1:])
