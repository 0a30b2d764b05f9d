"""Parity: random checkpoints written to disk by the reference library, read back by this one."""
