"""Networks of random weights, of many forms, that the resource and clock models are fitted to."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from brambling import zoo
from brambling.layers import (
    Add,
    ArgMax,
    Conv,
    Dense,
    Flatten,
    Layer,
    Pool,
    Requantise,
    Tensor,
    Thresholds,
)
from brambling.network import Network
from brambling.quant.formats import Bipolar, Fixed, Format, Ternary

__all__ = ["SAMPLES", "network_of"]

U2, U4, U8 = (Fixed(width, 0, signed=False) for width in (2, 4, 8))
S4, S8 = Fixed(4), Fixed(8)
PAD = (1, 1, 1, 1)


class Builder:
    """A chain of layers; :attr:`tensor` is what the last one makes."""

    def __init__(self, name: str, *shape: int, fmt: Format, seed: int = 1) -> None:
        self.name, self.start = name, Tensor(shape, fmt)
        self.layers: list[Layer] = []
        self.tensor = self.start
        self.rng = np.random.default_rng(seed)

    @property
    def last(self) -> str:
        return self.layers[-1].name if self.layers else "input"

    def add(self, layer: type[Layer], /, *tensors: Tensor, **parameters: Any) -> None:
        parameters.setdefault("inputs", (self.last,))
        self.layers.append(layer(name=f"layer{len(self.layers) + 1}", **parameters))
        self.tensor = self.layers[-1].output(self.tensor, *tensors)

    def codes(self, fmt: Format, *shape: int) -> np.ndarray:
        if fmt == Bipolar():
            return self.rng.choice([-1, 1], shape)
        return self.rng.integers(fmt.min, fmt.max + 1, shape)

    def dense(self, outputs: int, fmt: Format) -> None:
        if len(self.tensor.shape) > 1:
            self.add(Flatten)
        self.add(Dense, weights=self.codes(fmt, outputs, self.tensor.size), fmt=fmt)

    def conv(self, outputs: int, fmt: Format, kernel: int = 3, **options: Any) -> None:
        inputs = self.tensor.shape[-1] // options.get("groups", 1)
        weights = self.codes(fmt, outputs, kernel, kernel, inputs)
        self.add(Conv, weights=weights, fmt=fmt, **options)

    def depthwise(self, fmt: Format) -> None:
        channels = self.tensor.shape[-1]
        self.conv(channels, fmt, padding=PAD, groups=channels)

    def thresholds(self, fmt: Format, count: int = 1) -> None:
        reach, channels = 1 << (self.tensor.fmt.width - 2), self.tensor.shape[-1]
        levels = np.sort(self.rng.integers(-reach, reach, (channels, count)), axis=1)
        falling = self.rng.integers(0, 2, channels, bool) & (count == 1)
        self.add(Thresholds, levels=levels, falling=falling, fmt=fmt)

    def scale(self, fmt: Format, bits: int = 8) -> None:
        """Requantise, by another factor for each channel."""
        channels, width = self.tensor.shape[-1], self.tensor.fmt.width
        self.add(
            Requantise, fmt=fmt, multiplier=self.rng.integers(1 << bits - 1, 1 << bits, channels),
            bias=self.rng.integers(-100, 100, channels), shift=max(0, width + bits - fmt.width - 2),
        )  # fmt: skip

    def shift(self, fmt: Format) -> None:
        """Requantise by a power of two."""
        one, none = np.ones(1, int), np.zeros(1, int)
        shift = max(0, self.tensor.fmt.width - fmt.width - 1)
        self.add(Requantise, fmt=fmt, multiplier=one, bias=none, shift=shift)

    def pool(self, kind: str = "max", size: int = 2) -> None:
        self.add(Pool, kind=kind, kernel=(size, size))

    def network(self) -> Network:
        self.add(ArgMax)
        return Network(self.name, self.start, tuple(self.layers))


def mlp(name: str, inputs: int, *sizes: int) -> Network:
    """Binary, as SFC."""
    made = Builder(name, inputs, fmt=Bipolar())
    for size in sizes:
        made.dense(size, Bipolar())
        made.thresholds(Bipolar())
    made.dense(10, Bipolar())
    return made.network()


def wide_mlp(name: str, x: Format, w: Format, inputs: int, *sizes: int) -> Network:
    """Of several bits."""
    made = Builder(name, inputs, fmt=x)
    for size in sizes:
        made.dense(size, w)
        made.scale(x)
    made.dense(10, w)
    return made.network()


def binary_cnn(name: str, size: int, *channels: int) -> Network:
    """As CNV: pixels of 8 bits first, pooling behind every second convolution."""
    made = Builder(name, size, size, 3, fmt=U8)
    for number, outputs in enumerate(channels):
        made.conv(outputs, Bipolar())
        made.thresholds(Bipolar())
        if number % 2:
            made.pool()
    made.dense(64, Bipolar())
    made.thresholds(Bipolar())
    made.dense(10, Bipolar())
    return made.network()


def lenet(name: str, x: Format, w: Format, *channels: int) -> Network:
    """Convolution, factors by channel, pooling; dense at the end."""
    made = Builder(name, 20, 20, 1, fmt=U8)
    for outputs in channels:
        made.conv(outputs, w, kernel=5)
        made.scale(x)
        made.pool()
    made.dense(40, w)
    made.scale(x)
    made.dense(10, w)
    return made.network()


def counted(name: str, x: Format, w: Format, *channels: int) -> Network:
    """Activation by thresholds, as many as codes."""
    made = Builder(name, 16, 16, 3, fmt=U8)
    for outputs in channels:
        made.conv(outputs, w, padding=PAD)
        made.thresholds(x, x.max)
        made.pool()
    made.dense(10, w)
    return made.network()


def separable(name: str, x: Format, w: Format, *channels: int) -> Network:
    """Depthwise and pointwise convolutions, as MobileNet."""
    made = Builder(name, 16, 16, 8, fmt=x)
    for outputs in channels:
        made.depthwise(w)
        made.scale(x)
        made.conv(outputs, w, kernel=1)
        made.scale(x)
    made.pool("average", 4)
    made.shift(x)
    made.dense(10, w)
    return made.network()


def residual(name: str, x: Format, w: Format, channels: int, blocks: int) -> Network:
    """Blocks with a way around them, as ResNet."""
    made = Builder(name, 16, 16, 3, fmt=U8)
    made.conv(channels, w, padding=PAD)
    made.scale(x)
    for _ in range(blocks):
        source, tensor = made.last, made.tensor
        made.conv(channels, w, padding=PAD)
        made.scale(x)
        made.conv(channels, w, padding=PAD)
        made.scale(x)
        made.add(Add, tensor, inputs=(made.last, source))
        made.shift(x)
    made.pool("average", 4)
    made.shift(x)
    made.dense(10, w)
    return made.network()


BITS = Bipolar()
SAMPLES: dict[str, Callable[[str], Network]] = {
    "mlp": lambda name: mlp(name, 256, 64, 64),
    "mlp-wide": lambda name: mlp(name, 784, 128, 128, 128),
    "mlp-u4s4": lambda name: wide_mlp(name, U4, S4, 128, 48, 32),
    "mlp-u8t": lambda name: wide_mlp(name, U8, Ternary(), 128, 64),
    "cnn-binary": lambda name: binary_cnn(name, 14, 16, 32),
    "cnn-binary-wide": lambda name: binary_cnn(name, 20, 32, 32, 64, 64),
    "lenet-u4s4": lambda name: lenet(name, U4, S4, 6, 16),
    "lenet-u8s8": lambda name: lenet(name, U8, S8, 6, 12),
    "counted-u2b": lambda name: counted(name, U2, BITS, 16, 32),
    "counted-u4s4": lambda name: counted(name, U4, S4, 8, 16),
    "separable-u8s8": lambda name: separable(name, U8, S8, 16, 24),
    "separable-u4s4": lambda name: separable(name, U4, S4, 16, 32),
    "residual-u4s4": lambda name: residual(name, U4, S4, 8, 1),
    "residual-u8s8": lambda name: residual(name, U8, S8, 8, 1),
}  #: By name: what makes the network of that name.


@cache
def network_of(name: str) -> Network:
    """Return a network of the sample, or of the zoo."""
    return SAMPLES[name](name) if name in SAMPLES else zoo.load(name)
