"""What the integers on an edge stand for, exactly, while a network is exported.

Each channel's real value is a :class:`~brambling.quant.export.Norm` of its integer ``x``:
``gain * (x - mean) / sqrt(variance) + bias``, which holds scales, offsets, biases and one
batch-norm, followed by monotone :data:`Bend` such as ReLU. So the integers at which a channel
passes a given real value can be computed without rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import inf, isqrt

import numpy as np
from numpy.typing import NDArray
from torch import nn

from brambling.network import Tensor
from brambling.quant.export import Norm
from brambling.quant.formats import Bipolar

__all__ = ["Bend", "Value", "clip", "leak", "linear", "ramp", "step_of"]

Level = Fraction | float  #: A real number; floats are only the two infinities.
Bend = Callable[
    [Level], Level
]  #: Of a rising function: the smallest argument that reaches a value.


def linear(scale: Fraction, mean: Fraction = Fraction(0), bias: Fraction = Fraction(0)) -> Norm:
    """``scale * (x - mean) + bias``."""
    return Norm(scale, bias, mean, Fraction(1))


def ramp(value: Level) -> Level:
    """Bend of a ReLU."""
    return value if value > 0 else -inf


def clip(low: Fraction, high: Fraction) -> Bend:
    """Bend of a clipping to ``low`` to ``high``."""
    return lambda value: -inf if value <= low else inf if value > high else value


def leak(slope: Fraction) -> Bend:
    """Bend of a leaky ReLU, with a slope above 0."""
    return lambda value: value if value >= 0 else value / slope


def step_of(norm: Norm, value: Level) -> Fraction | int | float:
    """Smallest integer at which a channel whose gain is above 0 reaches ``value``; or infinity.

    ``gain * (x - mean) / sqrt(variance) + bias >= value`` is ``d * x >= p + sqrt(n)`` or
    ``d * x >= p - sqrt(n)`` in integers, which an integer square root decides.
    """
    if isinstance(value, float):
        return value
    slope = (value - norm.bias) / norm.gain
    square = slope * slope * norm.variance
    (p, q), (n, d) = norm.mean.as_integer_ratio(), square.as_integer_ratio()
    # mean + sqrt(n / d) = (p * d + sqrt(q * q * n * d)) / (q * d)
    root = q * q * n * d
    above = isqrt(root - 1) + 1 if root else 0
    distance = -isqrt(root) if slope < 0 else above
    return -(-(p * d + distance) // (q * d))


@dataclass(frozen=True, eq=False)
class Value:
    """Result of a step of the float model, and the edge whose integers stand for it.

    Parameters
    ----------
    edge, tensor
        Name, shape and format of the edge of the network.
    norms
        Meaning of each channel (of each element of a vector); one for all channels alike.
    low, high
        Bounds of the integers of each channel, ``(channels,)`` or ``(1,)``.
    stride
        Distance of integers that can occur, from ``low`` on: 2 for sums of an odd or even number
        of bipolar products.
    bends
        Rising functions that come behind, in order.
    curve
        Other functions that come behind, in order; with them a table is needed.
    order
        For a flattened image: PyTorch's index of each element of our vector; else ``None``.
    alone
        Whether nothing but the consumer of this value reads what the product before it made.
    """

    edge: str
    tensor: Tensor
    norms: tuple[Norm, ...]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    stride: int = 1
    bends: tuple[Bend, ...] = ()
    curve: tuple[nn.Module, ...] = ()
    order: NDArray[np.int64] | None = field(default=None)
    alone: bool = False

    @classmethod
    def codes(cls, edge: str, tensor: Tensor, norms: Sequence[Norm]) -> "Value":
        """Any code of the format may occur."""
        low, high = np.array([tensor.fmt.min]), np.array([tensor.fmt.max])
        stride = 2 if tensor.fmt == Bipolar() else 1
        return cls(edge, tensor, tuple(norms), low, high, stride)

    @property
    def channels(self) -> int:
        return self.tensor.shape[-1] if self.tensor.shape else 1

    @property
    def plain(self) -> bool:
        """Whether each channel is a scale times its integers plus an offset: no root, no bend."""
        return not self.bends and not self.curve and all(n.variance == 1 for n in self.norms)

    def each(self) -> tuple[Norm, ...]:
        """Return the meaning of each channel."""
        return self.norms * (self.channels // len(self.norms))

    def spans(self) -> list[range]:
        """Return the integers of each channel that can occur, in rising order."""
        low = np.broadcast_to(self.low, self.channels).tolist()
        high = np.broadcast_to(self.high, self.channels).tolist()
        return [range(a, b + 1, self.stride) for a, b in zip(low, high, strict=True)]

    def levels(self, values: Sequence[Fraction]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Integers at which each channel passes real ``values``, which rise.

        Returns ``(channels, values)`` and which channels are falling, ``(channels,)``. Rising: the
        smallest integer that reaches the value, or one more than the largest that can occur.
        Falling: the largest that reaches it, or one less than the smallest.
        """
        wanted: list[Level] = list(values)
        for bend in reversed(self.bends):
            wanted = [bend(value) if isinstance(value, Fraction) else value for value in wanted]
        rows, falling = [], []
        known: dict[tuple[Norm, range], list[int]] = {}
        for norm, span in zip(self.each(), self.spans(), strict=True):
            if (norm, span) not in known:
                known[norm, span] = row_of(norm, span, wanted)
            rows.append(known[norm, span])
            falling.append(norm.gain < 0)
        return np.array(rows, dtype=np.int64), np.array(falling)

    def negated(self, chosen: NDArray[np.bool_]) -> "Value":
        """Return the same real values, of integers whose sign is turned in the chosen channels."""
        norms = tuple(
            replace(norm, gain=-norm.gain, mean=-norm.mean) if turn else norm
            for norm, turn in zip(self.each(), chosen, strict=True)
        )
        low, high = (np.broadcast_to(part, len(chosen)) for part in (self.low, self.high))
        return replace(
            self, norms=norms, low=np.where(chosen, -high, low), high=np.where(chosen, -low, high)
        )


def row_of(norm: Norm, span: range, wanted: Sequence[Level]) -> list[int]:
    """Levels of one channel within ``span``; see :meth:`Value.levels`."""
    if norm.gain < 0:
        turned = range(-span[-1], 1 - span[0], span.step)
        mirror = replace(norm, gain=-norm.gain, mean=-norm.mean)
        return [-level for level in row_of(mirror, turned, wanted)]
    if norm.gain == 0:
        return [span[0] if value <= norm.bias else span[-1] + 1 for value in wanted]
    return [snapped(step_of(norm, value), span) for value in wanted]


def snapped(x: Fraction | int | float, span: range) -> int:
    """Smallest number of ``span`` that is not below ``x``, or one more than its largest."""
    if x <= span[0]:
        return span[0]
    if x > span[-1]:
        return span[-1] + 1
    return span[0] - (span[0] - int(x)) // span.step * span.step
