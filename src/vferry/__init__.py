"""vferry live-migrates KVM virtual machines, the ones with SR-IOV virtual functions included."""
