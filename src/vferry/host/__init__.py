"""The agent on a hypervisor, and the client that reaches it."""
