"""Real migrations between two QEMU processes of this machine, measured: `vferry bench transfer`."""
