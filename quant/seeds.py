"""Randomness that can be repeated: each use has a generator of its own, and sums have one order.

There is no generator whose state could be lost, so a resumed training goes on bit for bit. Equal
bits on another processor or version of PyTorch cannot be promised: sums round differently there.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["generator", "reproducible"]


def generator(seed: int, purpose: str, index: int) -> torch.Generator:
    """Source of random numbers that depends on nothing but the arguments."""
    digest = hashlib.sha256(f"{seed} {purpose} {index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


@contextmanager
def reproducible() -> Iterator[None]:
    """Sum in one order whatever the number of cores, and leave PyTorch as it was."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)
