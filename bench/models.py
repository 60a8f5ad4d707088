"""The networks that benchmarks measure, and images for them.

Those of the zoo, and a convolutional one of random weights: CNV as in Umuroglu et al., "FINN",
2017, section 4.1, on 32x32 pixels of 3 channels. What the hardware takes, and how long anything
lasts, does not depend on what the weights are.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brambling import api, zoo
from brambling.network import (
    ArgMax,
    Conv,
    Dense,
    Flatten,
    Layer,
    Network,
    Pool,
    Tensor,
    Thresholds,
)
from brambling.plan import Plan
from brambling.quant.formats import Bipolar, Fixed

__all__ = ["CNV", "CONVOLUTIONAL", "PLANS", "RANDOM", "images", "load", "names", "plan"]

RANDOM = "cnv-w1a1-random"
CNV = "cnv-w1a1" if "cnv-w1a1" in zoo.names() else RANDOM
CONVOLUTIONAL = (CNV, RANDOM)
PLANS = "take plans from this folder, and leave new ones there"  #: Help of an option.
CONVOLUTIONS = ((64, 1), (64, 2), (128, 1), (128, 2), (256, 1), (256, 1))  #: Outputs, pool.
SIZES = (512, 512, 10)
FRAMES = 100  #: Random images.


def names() -> tuple[str, ...]:
    """Names of all networks."""
    return (*zoo.names(), RANDOM)


def load(name: str) -> Network:
    """Return the network of that name."""
    return cnv() if name == RANDOM else zoo.load(name)


def images(network: Network) -> tuple[NDArray[np.integer], NDArray[np.uint8] | None]:
    """Return images ``(n, elements)`` for a network, and labels ``(n,)`` where they have any."""
    if network.name == RANDOM:
        shape = FRAMES, network.input.size
        return np.random.default_rng(1).integers(0, 256, shape, np.uint8), None
    pixels, labels = zoo.evaluation_set(zoo.dataset_of(network))
    return pixels.reshape(len(pixels), -1), labels


def plan(network: Network, board: str, goal: str, folder: Path | None) -> tuple[Plan, float | None]:
    """Return a plan, and how many seconds it took to make; ``None`` if ``folder`` has it."""
    file = folder and folder / f"{network.name}-{board}-{goal}.toml"
    if file and file.exists():
        return Plan.load(file), None
    start = time.perf_counter()
    made = api.plan(network, board, goal)
    seconds = round(time.perf_counter() - start, 2)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        made.save(file)
    return made, seconds


def cnv(seed: int = 0) -> Network:
    """Make CNV of random weights."""
    rng = np.random.default_rng(seed)
    layers: list[Layer] = []
    start = tensor = Tensor((32, 32, 3), Fixed(8, 0, signed=False))

    def add(kind: type[Layer], name: str, /, **parameters: Any) -> None:
        nonlocal tensor
        inputs = (layers[-1].name if layers else "input",)
        layers.append(kind(name=name, inputs=inputs, **parameters))
        tensor = layers[-1].output(tensor)

    def activate(name: str, elements: int) -> None:
        reach, channels = int(elements**0.5), tensor.shape[-1]
        levels = rng.integers(-reach, reach + 1, (channels, 1))
        falling = rng.integers(0, 2, channels, bool)
        add(Thresholds, name, levels=levels, falling=falling, fmt=Bipolar())

    for n, (outputs, pool) in enumerate(CONVOLUTIONS, start=1):
        weights = rng.choice([-1, 1], (outputs, 3, 3, tensor.shape[-1]))
        add(Conv, f"conv{n}", weights=weights, fmt=Bipolar())
        activate(f"act{n}", weights[0].size)
        if pool > 1:
            add(Pool, f"pool{n}", kind="max", kernel=(pool, pool))
    add(Flatten, "flat")
    for n, outputs in enumerate(SIZES, start=1):
        elements = tensor.size
        add(Dense, f"fc{n}", weights=rng.choice([-1, 1], (outputs, elements)), fmt=Bipolar())
        if n < len(SIZES):
            activate(f"fc_act{n}", elements)
    add(ArgMax, "argmax")
    return Network(RANDOM, start, tuple(layers))
