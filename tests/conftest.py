"""Networks and plans that many tests need."""

import numpy as np
import pytest

from brambling.network import ArgMax, Dense, Layer, Network, Tensor, Thresholds
from brambling.plan import Plan, Stage, steps
from brambling.quant.formats import Bipolar, Fixed


@pytest.fixture(scope="session")
def small_network():
    """Make a random binary perceptron of the given sizes on bytes, as the zoo's are built."""

    def make(sizes, seed, *, falling=False):
        rng = np.random.default_rng(seed)
        layers: list[Layer] = [
            Thresholds(
                name="binarise",
                inputs=("input",),
                levels=np.array([[128]]),
                falling=np.array([False]),
                fmt=Bipolar(),
            )
        ]
        for n, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False), 1):
            weights = rng.choice([-1, 1], (outputs, inputs)).astype(np.int8)
            source = (layers[-1].name,)
            layers.append(Dense(name=f"fc{n}", inputs=source, weights=weights, fmt=Bipolar()))
            if n < len(sizes) - 1:
                spread = int(inputs**0.5)
                layers.append(
                    Thresholds(
                        name=f"act{n}",
                        inputs=(f"fc{n}",),
                        levels=rng.integers(-spread, spread + 1, (outputs, 1)),
                        falling=(rng.random(outputs) < 0.5) & falling,
                        fmt=Bipolar(),
                    )
                )
        layers.append(ArgMax(name="argmax", inputs=(layers[-1].name,)))
        frame = Tensor((sizes[0],), Fixed(8, signed=False))
        return Network("small", frame, tuple(layers))

    return make


@pytest.fixture(scope="session")
def hand_plan():
    """Make a plan from rows of pe, simd, fifo and queue."""

    def make(network, rows):
        stages = tuple(
            Stage(layer=step.name, engine=step.engine, pe=pe, simd=simd, fifo=fifo, queue=queue)
            for step, (pe, simd, fifo, queue) in zip(steps(network), rows, strict=True)
        )
        return Plan(
            network=network.name,
            board="ulx3s-85f",
            goal="hand",
            clock_hz=100_000_000,
            stages=stages,
        )

    return make
