"""The memory path: the gateway between the two hypervisors."""
