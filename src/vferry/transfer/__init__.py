"""The memory path: the gateway pair that carries a migration's connections between two hosts."""
