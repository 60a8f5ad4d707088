"""Small networks of images, and random plans for them."""

import numpy as np
import pytest

from brambling.boards.choices import foldings, pixel_counts
from brambling.boards.parts import PARTS
from brambling.boards.resources import Engine
from brambling.network import (
    Add,
    ArgMax,
    Conv,
    Dense,
    Flatten,
    Layer,
    Network,
    Pool,
    Requantise,
    Tensor,
    Thresholds,
)
from brambling.plan import Plan, steps
from brambling.quant.formats import Bipolar, Fixed

U4, U8, S4 = Fixed(4, 0, signed=False), Fixed(8, 0, signed=False), Fixed(4)


def conv(name, source, outputs, inputs, fmt, kernel=3, pad=1, stride=1):
    rng = np.random.default_rng(len(name))
    shape = outputs, kernel, kernel, inputs
    weights = rng.choice([-1, 1], shape) if fmt == Bipolar() else rng.integers(-8, 8, shape)
    return Conv(
        name=name,
        inputs=(source,),
        weights=weights,
        fmt=fmt,
        padding=(pad, pad, pad, pad),
        stride=(stride, stride),
    )


def sign(name, source, channels):
    levels, falling = np.arange(channels)[:, None], np.zeros(channels, bool)
    return Thresholds(name=name, inputs=(source,), levels=levels, falling=falling, fmt=Bipolar())


def scale(name, source, channels):
    factors, bias = np.arange(channels) + 9, np.arange(channels)
    return Requantise(name=name, inputs=(source,), fmt=U4, multiplier=factors, bias=bias, shift=9)


@pytest.fixture(scope="session")
def image_network():
    """Make a binary network of 10 x 10 images, or a residual one of 8 x 8."""

    def make(residual):
        layers: list[Layer]
        if residual:
            layers = [
                conv("stem", "input", 6, 3, S4),
                scale("act0", "stem", 6),
                conv("left", "act0", 6, 6, S4),
                scale("act1", "left", 6),
                Add(name="sum1", inputs=("act1", "act0")),
                scale("act2", "sum1", 6),
                conv("down", "act2", 8, 6, S4, stride=2),
                scale("act3", "down", 8),
                conv("short", "act2", 8, 6, S4, kernel=1, pad=0, stride=2),
                scale("act4", "short", 8),
                Add(name="sum2", inputs=("act3", "act4")),
                Pool(name="pool", inputs=("sum2",), kind="sum"),
            ]
            last, size, inputs, fmt = "pool", 8, 8, S4
        else:
            layers = [
                conv("conv1", "input", 6, 3, Bipolar(), pad=0),
                sign("act1", "conv1", 6),
                conv("conv2", "act1", 6, 6, Bipolar(), pad=0),
                sign("act2", "conv2", 6),
                Pool(name="pool", inputs=("act2",), kind="max", kernel=(2, 2)),
                Flatten(name="flat", inputs=("pool",)),
            ]
            last, size, inputs, fmt = "flat", 10, 54, Bipolar()
        weights = np.ones((4, inputs), int)
        layers += [
            Dense(name="fc", inputs=(last,), weights=weights, fmt=fmt),
            ArgMax(name="argmax", inputs=("fc",)),
        ]
        return Network("images", Tensor((size, size, 3), U8), tuple(layers))

    return make


@pytest.fixture(scope="session")
def any_plan():
    """Make a plan with a random stage for every step."""

    def make(network, seed):
        rng = np.random.default_rng(seed)
        stages = []
        for step in steps(network):
            pixels = int(rng.choice(pixel_counts(step.positions[1])))
            rows = [stage for stage, _ in foldings(Engine(step, PARTS["ecp5-85f"]), pixels)]
            stages.append(rows[int(rng.integers(len(rows)))])
        return Plan(
            network=network.name,
            board="ulx3s-85f",
            goal="hand",
            clock_hz=1_000_000,
            stages=tuple(stages),
        )

    return make
