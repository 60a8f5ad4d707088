"""Vectors of a self-test."""

import numpy as np
import pytest

from brambling.errors import ConfigError
from brambling.sim import golden
from brambling.vectors import random_vectors


def test_results_are_golden(small_cnn):
    network = small_cnn(1)
    vectors = random_vectors(network, 2, seed=3)
    frames = vectors.frames.reshape(2, *network.input.shape)
    wanted = golden.run(network, frames)[network.layers[-1].name]
    assert vectors.frames.shape == (2, network.input.size)
    assert np.array_equal(vectors.results, wanted.reshape(2, -1))
    assert vectors.results.shape == (2, network.output.size)
    again = random_vectors(network, 2, seed=3)
    assert np.array_equal(again.frames, vectors.frames)


def test_there_is_at_least_one_frame(small_network):
    with pytest.raises(ConfigError, match=r"^a self-test has at least one frame, not 0$"):
        random_vectors(small_network([4, 2]), 0)
