"""What drives a migration: the journal, the registered hosts, the operations."""
