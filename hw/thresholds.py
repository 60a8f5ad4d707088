"""Thresholds on their own: a quantiser in front of, or between, engines that do not include one."""

from dataclasses import dataclass, replace

import numpy as np
from amaranth.hdl import Cat, Module, Value
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.elementwise import Code, Elementwise, ElementwiseSpec, spanning
from brambling.hw.pipe import Pipe
from brambling.hw.rom import rom
from brambling.quant.formats import Bipolar, Format

__all__ = ["ThresholdUnit", "ThresholdsSpec"]

PARALLEL = 3  #: Up to so many levels a comparator for each is smaller than a search.


@dataclass(frozen=True, eq=False, kw_only=True)
class ThresholdsSpec(ElementwiseSpec):
    """Count of the levels that each code reaches, as a code of ``target``.

    Same meaning as :class:`brambling.layers.Thresholds`. Up to three levels are compared at a time;
    more are searched, a comparison for each bit of the count.

    Parameters
    ----------
    target
        Format of the result.
    levels, falling
        ``(channels, n)``, rows in rising order, and ``(channels,)``; or one row for all channels.
    store
        Memory of the levels of a search: ``"lut"`` or ``"block"``.
    """

    target: Format
    levels: NDArray[np.int64]
    falling: NDArray[np.bool_]
    store: str = "lut"

    def __post_init__(self) -> None:
        self._check_channels("levels", len(self.levels))
        codes = 2 if self.target == Bipolar() else self.target.max - self.target.min + 1
        if self.levels.shape[1] >= codes:
            raise ConfigError(
                f"levels must be fewer than the {codes} codes of {self.target}, "
                f"not {self.levels.shape[1]}"
            )

    @property
    def o(self) -> Beats:
        return replace(self.i, fmt=self.target)

    @property
    def steps(self) -> int:
        """Comparisons that a search takes, the bits of its result; 0: all levels at a time."""
        n = self.levels.shape[1]
        return 0 if n <= PARALLEL else n.bit_length()

    @property
    def latency(self) -> int:
        # A level is fetched, and then compared.
        return 2 * max(1, self.steps)

    def reference(self, x: NDArray) -> NDArray[np.int64]:
        pixels = self.pixels_of(x)
        reached = np.zeros(pixels.shape, np.int64)
        for level in self.levels.T:
            reached += np.where(self.falling, pixels <= level, pixels >= level)
        codes = 2 * reached - 1 if self.target == Bipolar() else reached + self.target.min
        return codes.reshape(len(x), -1)

    def bounds(self) -> NDArray[np.int64]:
        """Levels as the hardware has them, ``(channels, 2**steps - 1)`` if searched, else n.

        A code is compared as the integer that its bits spell: it counts where it is at least the
        bound; in a falling channel, whose row is in falling order, where it is less. Bounds that
        pad a row are out of reach.
        """
        source = self.i.fmt
        falls = self.falling[:, None]
        # x <= T is not x >= T + 1. Clipped first: the sum could overflow.
        levels = np.clip(self.levels, source.min - 1, source.max + 1)
        levels = np.clip(levels + falls, source.min, source.max + 1)
        beyond = source.max + 1
        if source == Bipolar():  # -1, +1 and beyond.
            levels, beyond = (levels + 1 + 1) // 2, 2
            lowest = 0
        else:
            lowest = source.min
        levels = np.where(falls, levels[:, ::-1], levels)
        spare = ((1 << self.steps) - 1 if self.steps else levels.shape[1]) - levels.shape[1]
        padding = np.where(falls, lowest, beyond).repeat(spare, axis=1)
        return np.concatenate([levels, padding], axis=1)

    def build(self) -> "ThresholdUnit":
        return ThresholdUnit(self)


class ThresholdUnit(Elementwise[ThresholdsSpec]):
    """Streaming form of :class:`ThresholdsSpec`: one beat a cycle.

    Members
    -------
    i : ``In(spec.i.signature)``
    o : ``Out(spec.o.signature)``
    """

    def __init__(self, spec: ThresholdsSpec) -> None:
        super().__init__(spec)
        self.bounds = spec.bounds()
        self.shape = spanning(int(self.bounds.min()), int(self.bounds.max()))
        # A bound, and above it whether its channel is falling, where any is.
        self.stride = self.shape.width + bool(spec.falling.any())

    def _words(self, lane: int) -> NDArray[np.int64]:
        """Bounds of a lane as bits, ``(lane groups, n)``."""
        spec, width = self.spec, self.shape.width
        bits = self.bounds & ((1 << width) - 1)
        falls = spec.falling.astype(np.int64)[:, None] << width
        return spec.of_lane(bits | falls, lane)

    def _reached(self, x: Value, word: Value) -> Value:
        level = word[: self.shape.width]
        reached = x >= (level.as_signed() if self.shape.signed else level)
        return reached ^ word[-1] if self.stride > self.shape.width else reached

    def parameters(self, lane: int) -> tuple[list[int], int]:
        if self.spec.steps:
            return super().parameters(lane)
        rows = self._words(lane)
        words = [sum(int(w) << n * self.stride for n, w in enumerate(row)) for row in rows]
        return words, self.stride * rows.shape[1]

    def compute(self, m: Module, pipe: Pipe, code: Code) -> Value:
        if self.spec.steps:
            return self._search(m, pipe, code)
        (x,) = pipe.stage(x=code.bits)
        starts = range(0, len(code.parameters), self.stride)
        first, *more = (self._reached(x, code.parameters[n : n + self.stride]) for n in starts)
        total = sum(more, first)
        return pipe.stage(code=self._code(total))[0]

    def _search(self, m: Module, pipe: Pipe, code: Code) -> Value:
        """Find one bit of the count after the other, the highest first."""
        spec, steps = self.spec, self.spec.steps
        words = self._words(code.lane)
        x: Value = code.bits
        found: list[Value] = []  # Bits of the count so far, the lowest first.
        group = (Value.cast(code.position[0]),) if len(words) > 1 else ()
        for n in range(steps):
            # One edge fetches the bound in the middle of what is left, one compares.
            left = 1 << steps - n
            between = words[:, left // 2 - 1 :: left].reshape(-1).tolist()
            address = Cat(*found, *group)
            bound = rom(m, f"bounds{n}", between, self.stride, address, spec.store)
            x, group, found = _stage(pipe, x, group, found)
            x, group, found = _stage(pipe, x, group, [self._reached(x, bound), *found])
        return self._code(Cat(*found))

    def _code(self, total: Value) -> Value:
        """Return the ``total``-th code, as bits."""
        target = self.spec.target
        return total if target == Bipolar() else (total + target.min)[: target.width]


def _stage(
    pipe: Pipe, x: Value, group: tuple[Value, ...], found: list[Value]
) -> tuple[Value, tuple[Value, ...], list[Value]]:
    """Register what a search carries along."""
    rest = {f"group{n}": value for n, value in enumerate(group)}
    x, *kept = pipe.stage(x=x, **rest, **{f"bit{n}": bit for n, bit in enumerate(found)})
    return x, tuple(kept[: len(group)]), [*kept[len(group) :]]
