"""CNN accelerators for small FPGAs: generate, simulate, verify."""

from brambling.network import ArgMax, Dense, Network, Tensor, Thresholds

__all__ = ["ArgMax", "Dense", "Network", "Tensor", "Thresholds"]
