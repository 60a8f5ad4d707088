"""Vectors for the self-test of a device: frames, and what the golden model makes of them."""

import numpy as np

from brambling.errors import ConfigError
from brambling.hw.link.selftest import Vectors
from brambling.network import Network
from brambling.quant.formats import Bipolar
from brambling.sim import golden

__all__ = ["random_vectors"]


def random_vectors(network: Network, count: int = 1, seed: int = 0) -> Vectors:
    """Return ``count`` frames of random codes of the input's format, and their results.

    A frame takes as many bits of ROM on the chip as its codes have.

    Raises
    ------
    ConfigError
        There is not at least one frame.
    """
    if count < 1:
        raise ConfigError(f"a self-test has at least one frame, not {count}")
    rng = np.random.default_rng(seed)
    fmt, shape = network.input.fmt, (count, *network.input.shape)
    if fmt == Bipolar():
        frames = rng.choice([-1, 1], shape)
    else:
        frames = rng.integers(fmt.min, fmt.max, shape, endpoint=True)
    last = network.layers[-1].name
    results = golden.run(network, frames, edges=(last,))[last]
    return Vectors(frames.reshape(count, -1), results.reshape(count, -1).astype(np.int64))
