"""Tensors while a graph is lowered: where each element lies on an edge, or what a constant is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError, UnsupportedLayer
from brambling.origin import Layout
from brambling.quant.values import Value

__all__ = [
    "Codes",
    "Pad",
    "Placed",
    "channels_of",
    "finite",
    "fractions",
    "image_index",
    "layout_of",
]


@dataclass(frozen=True, eq=False)
class Codes:
    """A constant that a quantiser made: integers, and what 1 of them stands for.

    Parameters
    ----------
    codes
        Integers.
    scale
        Fractions, of a shape that broadcasts to that of the codes and has as many dimensions.
    """

    codes: NDArray[np.int64]
    scale: NDArray[Any]

    def reshaped(self, shape: Sequence[int]) -> "Codes":
        """Return it in another shape."""
        if self.scale.size == 1:
            return Codes(self.codes.reshape(shape), self.scale.reshape([1] * len(shape)))
        full = np.broadcast_to(self.scale, self.codes.shape)
        return Codes(self.codes.reshape(shape), full.reshape(shape))

    def transposed(self, axes: Sequence[int]) -> "Codes":
        """Return it with its dimensions in another order."""
        return Codes(self.codes.transpose(axes), self.scale.transpose(axes))

    def fractions(self) -> list[Fraction]:
        """Return the numbers that it stands for, in order."""
        full = np.broadcast_to(self.scale, self.codes.shape).reshape(-1).tolist()
        return [
            scale * code for scale, code in zip(full, self.codes.reshape(-1).tolist(), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Pad:
    """Pixels around an image that no layer has added yet: top, bottom, left, right."""

    amounts: tuple[int, int, int, int]
    value: Fraction


@dataclass(frozen=True, eq=False)
class Placed:
    """A tensor of the graph: a value, and where its elements lie on that value's edge.

    Parameters
    ----------
    value
        Meaning of the edge's integers.
    index
        In the shape of the tensor, without the batch: the place of each element on the edge, whose
        channels are innermost. Each place of the edge is there once.
    pad
        What the next window has to add.
    across
        Whether a vector's elements are its first dimension, and the batch its second.
    """

    value: Value
    index: NDArray[np.int64]
    pad: Pad | None = None
    across: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.index.shape

    def moved(self, index: NDArray[np.int64]) -> "Placed":
        """Return the same elements in another order or shape."""
        return replace(self, index=index)

    def image(self, last: bool) -> NDArray[np.int64] | None:
        """Return the index of an image, channels first (last); a sequence has height 1."""
        if self.index.ndim not in {2, 3}:
            return None
        sequence = self.index[np.newaxis] if last else self.index[:, np.newaxis]
        return sequence if self.index.ndim == 2 else self.index


def image_index(shape: Sequence[int], last: bool = False) -> NDArray[np.int64]:
    """Places of an image's elements: channels first, or last, as on the edge."""
    index = np.arange(prod(shape)).reshape(shape)
    return index if last else index.transpose(2, 0, 1)


def finite(array: NDArray, what: str) -> None:
    """Refuse what is no finite number, and name the first."""
    values = np.asarray(array).reshape(-1)
    if values.dtype.kind not in "iufb":
        raise ConfigError(f"{what}: must be numbers, not {values.dtype}")
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise ConfigError(
            f"{what}: element {wrong[0]} must be finite, not {values[wrong[0]]}: export a model "
            "whose training converged"
        )


def fractions(array: NDArray, what: str) -> list[Fraction]:
    """Numbers as the fractions that they are; refuse what is not finite."""
    finite(array, what)
    return [Fraction(value) for value in np.asarray(array).reshape(-1).tolist()]


def channels_of(array: NDArray, x: Placed, what: str) -> NDArray:
    """Numbers for each channel of the edge, ``(channels,)``, or ``(1,)`` for all.

    ``array`` is broadcast to the tensor with its batch, as ONNX does.
    """
    if array.size == 1:
        return array.reshape(1)
    if array.dtype.kind == "f" and np.isnan(array).any():  # It equals nothing.
        finite(array, what)
    shape = (1, *x.shape)
    try:
        full = np.broadcast_to(array, shape)
    except ValueError:
        raise UnsupportedLayer(
            f"{what}: a constant of shape {array.shape} does not go with {shape}: give a number, "
            "or one for each channel"
        ) from None
    placed = np.empty(x.index.size, array.dtype)
    placed[x.index.reshape(-1)] = full.reshape(-1)
    rows = placed.reshape(-1, x.value.channels)
    if (rows != rows[:1]).any():
        raise UnsupportedLayer(
            f"{what}: a constant differs from pixel to pixel: give a number, or one for each "
            "channel"
        )
    return rows[0] if (rows[0] != rows[0, :1]).any() else rows[0, :1]


def layout_of(index: NDArray[np.int64], shape: Sequence[int]) -> Layout | None:
    """Describe how a tensor's elements lie on an edge of a shape, by one transposition."""
    if len(shape) == 3 and np.array_equal(index.reshape(-1), image_index(shape).reshape(-1)):
        rows, columns, channels = shape
        return Layout(tuple(index.shape), (channels, rows, columns), (1, 2, 0))
    view = [n for n in index.shape if n > 1] or [1]
    flat = index.reshape(view)
    # The steps from element to element along each dimension tell its place in the edge's order.
    strides = [
        int(flat.take(1, axis).reshape(-1)[0] - flat.take(0, axis).reshape(-1)[0]) if n > 1 else 1
        for axis, n in enumerate(view)
    ]
    axes = sorted(range(len(view)), key=lambda axis: -strides[axis])
    straight = np.arange(index.size).reshape([view[axis] for axis in axes])
    if not np.array_equal(straight.transpose(np.argsort(axes)), flat):
        return None
    return Layout(tuple(index.shape), tuple(view), tuple(axes))
