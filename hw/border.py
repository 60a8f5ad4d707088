"""Borders: what zero padding adds to a convolution of bipolar pixels, which have no zero."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from amaranth.hdl import Module, Value
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.elementwise import Code, Elementwise, ElementwiseSpec, spanning
from brambling.hw.pipe import Pipe
from brambling.hw.rom import rom
from brambling.layers.image import Window
from brambling.quant.formats import Fixed

__all__ = ["BorderSpec", "BorderUnit"]


@dataclass(frozen=True, eq=False, kw_only=True)
class BorderSpec(ElementwiseSpec):
    """Sums of a bipolar convolution with zero padding, from those with -1 as padding.

    A tap in the padding has taken its weight away instead of adding nothing: it is given back. How
    much depends on the output channel and on which taps lie in the padding. All rows with the same
    taps there are one class, and so are columns.

    Parameters
    ----------
    i
        The sums with a padding of -1, an image of ``window.extent(height, width)``.
    window
        The window that slides.
    weights
        Codes, ``(outputs, kernel height, kernel width, channels)``.
    height, width
        Of the convolution's input, without padding.
    store
        Memory of the corrections: ``"lut"`` or ``"block"``.
    """

    window: Window
    weights: NDArray
    height: int
    width: int
    store: str = "lut"

    def __post_init__(self) -> None:
        extent = (*self.window.extent(self.height, self.width), len(self.weights))
        shape = self.i.rows, self.i.columns, self.i.elements
        if shape != extent:
            raise ConfigError(
                f"the sums must be an image of {'x'.join(map(str, extent))}, "
                f"not {'x'.join(map(str, shape))}"
            )
        if self.weights.ndim != 4 or self.weights.shape[1:3] != self.window.kernel:
            raise ConfigError(
                f"weights must be (outputs, {self.window.kernel[0]}, {self.window.kernel[1]}, "
                f"channels), not of shape {self.weights.shape}"
            )

    @property
    def o(self) -> Beats:
        # Every sum of the products, as brambling.layers.Conv has it.
        reach = int(np.abs(self.weights.astype(np.int64)).sum(axis=(1, 2, 3)).max())
        return replace(self.i, fmt=Fixed.spanning(-reach, reach, self.i.fmt.frac))

    @property
    def latency(self) -> int:
        # Class of the position, address, correction, sum.
        return 4

    def _padded(self, axis: int) -> NDArray[np.bool_]:
        """Which taps of a row (0) or column (1) of windows lie in the padding, ``(n, taps)``."""
        size = (self.height, self.width)[axis]
        starts = np.arange((self.i.rows, self.i.columns)[axis]) * self.window.stride[axis]
        taps = np.arange(self.window.kernel[axis]) * self.window.dilation[axis]
        at = starts[:, None] + taps - self.window.padding[2 * axis]
        return (at < 0) | (at >= size)

    @cached_property
    def classes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Class of each row, ``(rows,)``, and of each column, ``(columns,)``, from 0."""
        rows, columns = (
            np.unique(self._padded(axis), axis=0, return_inverse=True)[1].reshape(-1)
            for axis in (0, 1)
        )
        return rows, columns

    @cached_property
    def corrections(self) -> NDArray[np.int64]:
        """What is given back, ``(row classes, column classes, outputs)``."""
        rows, columns = (np.unique(self._padded(axis), axis=0) for axis in (0, 1))
        padded = rows[:, None, :, None] | columns[None, :, None, :]
        weights = self.weights.astype(np.int64).sum(axis=3)
        return np.einsum("rcij,oij->rco", padded.astype(np.int64), weights)

    def reference(self, x: NDArray) -> NDArray[np.int64]:
        # Position by position and tap by tap, without classes.
        down, across = self._padded(0), self._padded(1)
        sums = self.pixels_of(x)
        for r, c in np.ndindex(self.i.rows, self.i.columns):
            for i, j in np.ndindex(*self.window.kernel):
                if down[r, i] or across[c, j]:
                    sums[:, r, c] += self.weights[:, i, j].astype(np.int64).sum(axis=1)
        return sums.reshape(len(x), -1)

    def build(self) -> "BorderUnit":
        return BorderUnit(self)


class BorderUnit(Elementwise[BorderSpec]):
    """Streaming form of :class:`BorderSpec`: one beat a cycle.

    Members
    -------
    i : ``In(spec.i.signature)``
    o : ``Out(spec.o.signature)``
    """

    @property
    def counts(self) -> tuple[int, ...]:
        i = self.spec.i
        return i.groups, i.steps, i.rows

    def compute(self, m: Module, pipe: Pipe, code: Code) -> Value:
        spec, i = self.spec, self.spec.i
        group, step, row = (Value.cast(number) for number in code.position)
        rows, columns = spec.classes
        corrections = spec.corrections
        words = corrections.reshape(-1, i.elements).T  # (outputs, classes)
        words = spec.of_lane(words, code.lane).T.reshape(-1)  # Class by class, group by group.

        # Cycle 1: where the corrections of the row's class begin, and in them the column's.
        places = np.pad(columns, (0, i.steps * i.pixels - i.columns))[code.place :: i.pixels]
        down, across = rows * corrections.shape[1] * i.groups, places * i.groups
        begins = _lookup(m, "row", down, row), _lookup(m, "column", across, step)
        x, group = pipe.stage(x=code.bits, group=group)

        # Cycle 2: the address. Cycle 3: the correction. Cycle 4: the sum.
        address = sum(begins, group)[: max(1, (len(words) - 1).bit_length())]
        x, address = pipe.stage(x=x, address=address)
        correction = _lookup(m, "corrections", words, address, spec.store)
        (x,) = pipe.stage(x=x)
        total = (x + correction)[: spec.o.fmt.width]
        return pipe.stage(sum=total.as_signed() if spec.o.fmt.signed else total)[0]


def _lookup(
    m: Module, name: str, numbers: NDArray[np.int64], address: Value, store: str = "lut"
) -> Value:
    """Return the number at ``address``, one edge later."""
    low, high = int(numbers.min()), int(numbers.max())
    if low == high:
        numbers = numbers[:1]
    shape = spanning(low, high)
    words = (numbers & ((1 << shape.width) - 1)).tolist()
    word = rom(m, name, words, shape.width, address, store)
    return word.as_signed() if shape.signed else word
