"""Stand-ins for hosts, journals and clocks: whole migrations without a hypervisor, in milliseconds."""
