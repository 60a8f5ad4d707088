"""A network small enough to print, and a plan for it: what the pages of the documentation use."""

import numpy as np

from brambling import ArgMax, Dense, Network, Tensor, Thresholds
from brambling.plan import Plan, Stage
from brambling.quant.formats import Bipolar, Fixed

rng = np.random.default_rng(2)


def dense(name: str, source: str, outputs: int, inputs: int) -> Dense:
    weights = rng.choice([-1, 1], (outputs, inputs))
    return Dense(name=name, inputs=(source,), weights=weights, fmt=Bipolar())


def threshold(name: str, source: str, level: int) -> Thresholds:
    return Thresholds(
        name=name,
        inputs=(source,),
        levels=np.array([[level]]),
        falling=np.array([False]),
        fmt=Bipolar(),
    )


network = Network(
    name="tiny",
    input=Tensor((24,), Fixed(8, 0, signed=False)),
    layers=(
        threshold("binarise", "input", 128),
        dense("fc1", "binarise", 12, 24),
        threshold("act1", "fc1", 0),
        dense("fc2", "act1", 4, 12),
        ArgMax(name="argmax", inputs=("fc2",)),
    ),
    classes=("north", "east", "south", "west"),
)

plan = Plan(
    network="tiny",
    board="ulx3s-85f",
    goal="hand",
    clock_hz=100_000_000,
    stages=(
        Stage(layer="binarise", engine="thresholds", pe=3, simd=3),
        Stage(layer="fc1", engine="xnor", pe=4, simd=8),
        Stage(layer="fc2", engine="xnor", pe=2, simd=3),
        Stage(layer="argmax", engine="argmax", pe=1, simd=2),
    ),
)

images = rng.integers(0, 256, (5, 24), dtype=np.uint8)
