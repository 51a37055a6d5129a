"""What things are: hosts, functions, NICs, guests, plans, reports. Frozen types, no I/O."""
