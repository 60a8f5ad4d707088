"""Small random networks, plans and frames for them."""

from itertools import pairwise

import numpy as np
import pytest

from brambling.network import ArgMax, Dense, Layer, Network, Tensor, Thresholds
from brambling.plan import Plan, Stage, steps
from brambling.quant.formats import Bipolar, Fixed


@pytest.fixture(scope="session")
def small_network():
    """Make a binary perceptron with random weights: u8 in, binarised at 128, arg-max out."""

    def make(sizes, seed=0, *, falling=False, name="small", argmax=True):
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
        for n, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
            layers.append(
                Dense(
                    name=f"fc{n}",
                    inputs=(layers[-1].name,),
                    weights=rng.choice([-1, 1], (outputs, inputs)),
                    fmt=Bipolar(),
                )
            )
            if n < len(sizes) - 1:
                reach = int(inputs**0.5) + 1
                layers.append(
                    Thresholds(
                        name=f"act{n}",
                        inputs=(f"fc{n}",),
                        levels=rng.integers(-reach, reach + 1, (outputs, 1)),
                        falling=rng.integers(0, 2, outputs, bool) & falling,
                        fmt=Bipolar(),
                    )
                )
        if argmax:
            layers.append(ArgMax(name="argmax", inputs=(layers[-1].name,)))
        frame = Tensor((sizes[0],), Fixed(8, 0, signed=False))
        return Network(name, frame, tuple(layers))

    return make


@pytest.fixture(scope="session")
def hand_plan():
    """Make a plan from ``(pe, simd)`` of each engine; everything one at a time where not given."""

    def make(network, rows=None, **options):
        chain = steps(network)
        stages = tuple(
            Stage(
                layer=step.name,
                engine=step.engine,
                **dict(zip(("pe", "simd", "fifo", "queue"), row, strict=False)),
                **options,
            )
            for step, row in zip(chain, rows or [(1, 1)] * len(chain), strict=True)
        )
        return Plan(
            network=network.name,
            board="ulx3s-85f",
            goal="hand",
            clock_hz=100_000_000,
            stages=stages,
        )

    return make


@pytest.fixture(scope="session")
def random_frames():
    """Make frames of random codes of a network's input format."""

    def make(network, n, seed=0):
        fmt = network.input.fmt
        rng = np.random.default_rng(seed)
        if fmt == Bipolar():
            return rng.choice([-1, 1], (n, *network.input.shape))
        return rng.integers(fmt.min, fmt.max + 1, (n, *network.input.shape)).astype(fmt.dtype)

    return make
