"""What the integers on an edge stand for, exactly, while a network is made of a float model.

Each channel's real value is a :class:`~brambling.quant.norms.Norm` of its integer ``x``:
``gain * (x - mean) / sqrt(variance) + bias``, which holds scales, offsets, biases and one
batch-norm, followed by monotone bends such as ReLU. So the integers at which a channel passes a
given real value can be computed without rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brambling.network import Tensor
from brambling.quant.formats import Bipolar
from brambling.quant.norms import Affine, Bend, Clip, Norm, Reach, row_of

__all__ = ["Value"]


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
        Rising and falling functions that come behind, in order.
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
    curve: tuple[Callable[[Any], Any], ...] = ()
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

    def moved(self, gains: Sequence[Fraction], offsets: Sequence[Fraction]) -> "Value":
        """Return ``gain * value + offset``, for each channel, or one for all."""
        clips = [bend for bend in self.bends if isinstance(bend, Clip)]
        if self.bends and len(clips) == len(self.bends) and len(gains) == len(offsets) == 1:
            # Clipping and then moving is moving and then clipping elsewhere.
            moved = tuple(bend.moved(gains[0], offsets[0]) for bend in clips)
            return replace(replace(self, bends=()).moved(gains, offsets), bends=moved)
        if self.bends:
            return replace(self, bends=(*self.bends, Affine(tuple(gains), tuple(offsets))))
        count = max(len(gains), len(offsets), len(self.norms))
        norms = [
            replace(n, gain=n.gain * gain, bias=n.bias * gain + offset)
            for n, gain, offset in zip(
                self.norms * (count // len(self.norms)),
                list(gains) * (count // len(gains)),
                list(offsets) * (count // len(offsets)),
                strict=True,
            )
        ]
        return replace(self, norms=tuple(norms))

    def slopes(self) -> NDArray[np.float64]:
        """About how far each channel's value moves for each 1 of its integer, ``(channels,)``."""
        rows = []
        for channel, norm in enumerate(self.each()):
            gain = norm.gain
            for bend in self.bends:
                gain *= bend.gain(channel) if isinstance(bend, Affine) else 1
            rows.append(float(gain) / float(norm.variance) ** 0.5)
        return np.array(rows)

    def asked(self, wanted: Sequence[Reach], channel: int) -> list[Reach]:
        """Turn questions about a channel's value into questions before its bends."""
        for bend in reversed(self.bends):
            wanted = [bend(reach, channel) for reach in wanted]
        return list(wanted)

    def falling(self) -> NDArray[np.bool_]:
        """Which channels fall where their integers rise, ``(channels,)``; constants do not."""
        return self.levels([[Reach(Fraction(0))]])[1]

    def levels(
        self, wanted: Sequence[Sequence[Reach]]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Integers at which each channel passes real values, which rise.

        Returns ``(channels, values)`` and which channels are falling, ``(channels,)``. Rising: the
        smallest integer that reaches the value, or one more than the largest that can occur.
        Falling: the largest that reaches it, or one less than the smallest.

        Parameters
        ----------
        wanted
            Questions to each channel, or to all alike, as :class:`Reach` that are above.
        """
        rows, falling = [], []
        known: dict[tuple[Norm, range, tuple[Reach, ...]], list[int]] = {}
        for channel, (norm, span) in enumerate(zip(self.each(), self.spans(), strict=True)):
            asked = self.asked(wanted[channel % len(wanted)], channel)
            key = norm, span, tuple(asked)
            if key not in known:
                known[key] = row_of(norm, span, asked)
            rows.append(known[key])
            falling.append((norm.gain < 0) == asked[0].above)
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
