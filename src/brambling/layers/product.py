"""Layers that multiply by weights: dense layers and convolutions."""

from dataclasses import dataclass
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.layers.base import LIMIT, Layer, Tensor, frozen, integers
from brambling.layers.image import Window
from brambling.quant.formats import Bipolar, Fixed, Format, parse_format

__all__ = ["Conv", "Dense", "Product"]


def packed(weights: NDArray, fmt: Format) -> NDArray:
    """Weights as they are stored: bipolar ones as bits, a row for each output."""
    if fmt == Bipolar():
        return np.packbits(weights.reshape(len(weights), -1) > 0, axis=1, bitorder="little")
    return weights


def unpacked(weights: NDArray, fmt: Format, elements: int, what: str) -> NDArray:
    """Inverse of :func:`packed`, rows of ``elements`` where they were bits."""
    if fmt != Bipolar():
        return weights
    if weights.dtype != np.uint8:
        raise ConfigError(f"{what}: packed bits must be uint8, not {weights.dtype}")
    if weights.ndim != 2 or weights.shape[1] != -(-elements // 8):
        raise ConfigError(
            f"{what}: {elements} packed bits a row need shape "
            f"(outputs, {-(-elements // 8)}), not {weights.shape}"
        )
    bits = np.unpackbits(weights, axis=1, count=elements, bitorder="little")
    return 2 * bits.astype(np.int8) - 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Product(Layer, kind=False):
    """What dense layers and convolutions share: each output is a sum of weights times inputs."""

    weights: NDArray[np.integer]
    fmt: Format

    def _freeze(self, shape: str, dimensions: int) -> None:
        what = f"{self.name}.weights"
        object.__setattr__(self, "weights", frozen(self.weights, self.fmt.dtype.type, what))
        if self.weights.ndim != dimensions or 0 in self.weights.shape:
            raise ConfigError(f"{what}: shape must be {shape}, not {self.weights.shape}")
        if not self.fmt.holds(self.weights):
            raise ConfigError(f"{what}: every value must be a code of {self.fmt}")

    @property
    def matrix(self) -> NDArray[np.integer]:
        """Weights of each output in the order in which the hardware takes them, a row each."""
        raise NotImplementedError

    def bounds(self, x: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Smallest and largest result of each output over every possible input, ``(outputs,)``."""
        w = self.matrix.astype(np.int64)
        positive, negative = np.maximum(w, 0).sum(axis=1), np.minimum(w, 0).sum(axis=1)
        low = positive * x.fmt.min + negative * x.fmt.max
        return low, positive * x.fmt.max + negative * x.fmt.min

    def accumulator(self, x: Tensor) -> Fixed:
        """Narrowest format of all sums, from the actual weights; refuse what could overflow."""
        elements = self.matrix.shape[1]
        if elements * max(-x.fmt.min, x.fmt.max) * max(-self.fmt.min, self.fmt.max) >= LIMIT:
            raise ConfigError(f"{self.name}: {elements} products of {x.fmt} and {self.fmt} "
                              "could overflow 63 bits")  # fmt: skip
        low, high = self.bounds(x)
        return Fixed.spanning(int(low.min()), int(high.max()), x.fmt.frac + self.fmt.frac)

    @property
    def weight_bits(self) -> int:
        return self.weights.size * self.fmt.width


@dataclass(frozen=True, eq=False, kw_only=True)
class Dense(Product):
    """Matrix-vector product: ``y[o] = sum(weights[o, i] * x[i])``, exactly.

    Parameters
    ----------
    weights
        Codes, integers ``(outputs, inputs)``.
    fmt
        Format of the weights. ``Bipolar`` weights are -1 and +1.
    """

    weights: NDArray[np.integer]
    fmt: Format

    def __post_init__(self) -> None:
        self._freeze("(outputs, inputs)", 2)

    def output(self, *inputs: Tensor) -> Tensor:
        x = self._one(inputs)
        outputs, elements = self.weights.shape
        if x.size != elements:
            raise ConfigError(
                f"{self.name}.weights: takes {elements} inputs, but {self.inputs[0]!r} is {x}"
            )
        return Tensor((outputs,), self.accumulator(x))

    def arrays(self) -> dict[str, NDArray]:
        return {"weights": packed(self.weights, self.fmt)}

    def attributes(self) -> dict[str, Any]:
        return {"fmt": str(self.fmt), "elements": self.weights.shape[1]}

    @classmethod
    def read(cls, attributes: dict[str, Any], arrays: dict[str, NDArray], **names: Any) -> Self:
        fmt, elements = parse_format(attributes["fmt"]), int(attributes["elements"])
        weights = unpacked(arrays["weights"], fmt, elements, f"{names['name']}.weights")
        return cls(**names, weights=weights, fmt=fmt)

    @property
    def matrix(self) -> NDArray[np.integer]:
        return self.weights

    def macs(self, *inputs: Tensor) -> int:
        return self.weights.size


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv(Product):
    """Convolution of an image ``(height, width, channels)``, exactly (a correlation, as usual).

    ``y[r, c, o] = sum(weights[o, i, j, k] * x[r*stride + i*dilation - top, ..., group + k])``.
    A sequence is an image of height 1.

    Parameters
    ----------
    weights
        Codes, integers ``(outputs, kernel height, kernel width, channels / groups)``.
    fmt
        Format of the weights.
    stride, dilation
        Rows and columns from one window to the next, and from one tap to the next.
    padding
        Rows above and below, columns left and right, that are added around the image.
    pad_value
        What the added pixels hold: a code of the input, or 0, also where the input is bipolar and
        has no 0: such taps then add nothing.
    groups
        Outputs and channels are cut into so many groups; each output sees its group's channels.
    """

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    pad_value: int = 0
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        self._freeze("(outputs, kernel height, kernel width, channels / groups)", 4)
        if type(self.groups) is not int or self.groups < 1 or len(self.weights) % self.groups:
            raise ConfigError(
                f"{self.name}: groups must divide the {len(self.weights)} outputs, "
                f"not {self.groups}"
            )
        if type(self.pad_value) is not int:
            raise ConfigError(f"{self.name}: pad_value must be an integer, not {self.pad_value!r}")

    @property
    def window(self) -> Window:
        """The window that slides."""
        kernel = self.weights.shape[1], self.weights.shape[2]
        return Window(
            kernel=kernel, stride=self.stride, padding=self.padding, dilation=self.dilation
        )

    @property
    def matrix(self) -> NDArray[np.integer]:
        return self.weights.reshape(len(self.weights), -1)

    def output(self, *inputs: Tensor) -> Tensor:
        x = self._one(inputs)
        height, width, channels = self._image(x, self.inputs[0])
        if self.weights.shape[3] * self.groups != channels:
            raise ConfigError(
                f"{self.name}.weights: takes {self.weights.shape[3]} channels in each of "
                f"{self.groups} groups, but {self.inputs[0]!r} is {x}"
            )
        if any(self.padding) and self.pad_value and not x.fmt.holds(np.array(self.pad_value)):
            raise ConfigError(
                f"{self.name}: pad_value must be 0 or a code of {x.fmt}, not {self.pad_value}"
            )
        self.window.check(self.name, self.inputs[0], height, width)
        rows, columns = self.window.extent(height, width)
        return Tensor((rows, columns, len(self.weights)), self.accumulator(x))

    def arrays(self) -> dict[str, NDArray]:
        return {"weights": packed(self.weights, self.fmt)}

    def attributes(self) -> dict[str, Any]:
        return {
            "fmt": str(self.fmt),
            "shape": list(self.weights.shape),
            "stride": list(self.stride),
            "padding": list(self.padding),
            "pad_value": self.pad_value,
            "dilation": list(self.dilation),
            "groups": self.groups,
        }

    @classmethod
    def read(cls, attributes: dict[str, Any], arrays: dict[str, NDArray], **names: Any) -> Self:
        row = {key: value for key, value in attributes.items() if key != "shape"}
        shape: Any = attributes.get("shape")
        shape = tuple(shape) if isinstance(shape, list) else shape
        weights = arrays["weights"]
        what = f"{names['name']}.weights"
        if not integers(shape, 4, 1):
            raise ConfigError(f"{what}: shape must be 4 integers of at least 1, not {shape}")
        if row.get("fmt") == str(Bipolar()):
            weights = unpacked(weights, Bipolar(), prod(shape[1:]), what)
            if len(weights) != shape[0]:
                raise ConfigError(f"{what}: must have {shape[0]} rows, not {len(weights)}")
            weights = weights.reshape(shape)
        if weights.shape != shape:
            raise ConfigError(f"{what}: shape must be {shape}, not {weights.shape}")
        return super().read(row, {**arrays, "weights": weights}, **names)

    def macs(self, *inputs: Tensor) -> int:
        rows, columns, _ = self.output(*inputs).shape
        return self.weights.size * rows * columns
