"""What the kernel's vhost-net offers to a virtio NIC, on top of what QEMU does by itself."""

import fcntl
import os
import struct
from pathlib import Path

VHOST_GET_FEATURES = 0x8008AF00
"""``_IOR(VHOST_VIRTIO, 0x00, __u64)`` of linux/vhost.h."""


def read_features(root: Path) -> int | None:
    """The feature bits of virtio's specification; None where there is no vhost-net, or it does not say."""
    try:
        device = os.open(root / "dev/vhost-net", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        answer = fcntl.ioctl(device, VHOST_GET_FEATURES, bytes(8))
    except OSError:
        return None
    finally:
        os.close(device)
    return int(struct.unpack("=Q", answer)[0])
