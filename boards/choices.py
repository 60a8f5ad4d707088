"""The ways to fold an engine, and what each needs."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Self

import numpy as np
from numpy.typing import NDArray

from brambling.boards.latency import tail
from brambling.boards.memories import Needs
from brambling.boards.parts import Part
from brambling.boards.resources import PARALLEL, Engine
from brambling.boards.wiring import repixel
from brambling.layers import Conv, Requantise, Tensor, Thresholds
from brambling.layers.product import Product
from brambling.plan import Stage, Step
from brambling.steps import PARTED, Runs

__all__ = ["NEVER", "Choices", "foldings", "narrowest", "pixel_counts", "ways"]

#: Words up to which a memory is cheaper in LUTs.
SHALLOW = 64
#: Pixels at a time, of those that do not divide a row.
MOST_PIXELS = 8
#: A way that needs so many times what there is will not fit by being wider.
MARGIN = 1.25
NEVER = 1 << 40  #: Cycles, or lanes, of what cannot be.


def narrowest(elements: int) -> list[int]:
    """For each number of beats that ``elements`` can be made of, the fewest lanes; ascending."""
    return sorted({-(-elements // beats) for beats in range(1, elements + 1)})


def divisors(elements: int) -> list[int]:
    """Divisors, ascending."""
    return [n for n in range(1, elements + 1) if not elements % n]


def pixel_counts(columns: int) -> list[int]:
    """Pixels at a time that are worth a try: divisors of a row, and small numbers."""
    return [n for n in narrowest(columns) if n <= MOST_PIXELS or not columns % n]


def widths(step: Step) -> Iterator[tuple[int, int]]:
    """Yield ``pe`` and ``simd``: for each number of beats and folds the narrowest.

    Not only the narrowest that is fast enough: a wider one can need fewer block RAMs, where it
    divides the sizes better or its words suit a block's geometry.
    """
    if step.products:
        values = divisors if step.chunks > 1 else narrowest
        yield from product(values(step.outputs), values(step.inputs))
        return
    lanes = divisors(step.grain) if step.engine in PARTED else narrowest(step.inputs)
    for simd in lanes:
        yield (1 if step.engine == "argmax" else simd), simd


def styles(engine: Engine) -> tuple[str, ...]:
    """Ways in which an engine can multiply."""
    dsp = ("dsp",) if engine.part.dsps else ()
    if engine.step.engine == "product":
        return ("lut", "planes", *dsp)
    return ("lut", *dsp) if engine.step.engine == "depthwise" or engine.multiplies else ("lut",)


def ways(engine: Engine, pe: int, simd: int, pixels: int, runs: Runs) -> Iterator[Stage]:
    """Yield every way to build an engine of such a width: styles and memories."""
    step, layer = engine.step, engine.step.layers[0]
    rows = runs.chunks * runs.folds
    # A convolution reads its few weights at every position, a dense layer each of many once.
    shallow = isinstance(layer, Conv) and rows * runs.beats <= SHALLOW
    large = ("spram",) if engine.part.sprams and isinstance(layer, Product) else ()
    weights = ("block", "lut", *large) if shallow else ("block", *large)
    searched = isinstance(layer, Thresholds) and layer.levels.shape[1] > PARALLEL
    deep = ("block",) if step.products and rows > SHALLOW else ("lut",)
    levels = ("lut", "block") if searched or step.engine == "table" else deep
    lines = ("block", "lut") if engine.window and engine.part.lut_ram else ("block",)
    fifo = (0,) * len(step.sources)
    for style, *stores in product(styles(engine), weights, levels, lines):
        yield Stage(
            layer=step.name,
            engine=step.engine,
            pe=pe,
            simd=simd,
            pixels=pixels,
            style=style,
            weights=stores[0],
            levels=stores[1],
            lines=stores[2],
            fifo=fifo,
        )


def foldings(engine: Engine, pixels: int) -> Iterator[tuple[Stage, Runs]]:
    """Yield every way to fold a step with ``pixels`` at a time, and the work of a frame."""
    for pe, simd in widths(engine.step):
        runs = engine.step.runs(pe, simd, pixels)
        for stage in ways(engine, pe, simd, pixels, runs):
            yield stage, runs


@dataclass(frozen=True, slots=True)
class Choices:
    """Ways to fold a step.

    Parameters
    ----------
    stages
        The stages, for one layer of that shape.
    rows
        Interval, block RAMs, LUTs, multipliers and SPRAMs of each, ``(n, 5)``.
    tails
        Cycles of each from the last input beat of a frame to the last result, at the least,
        ``(n,)``; see :func:`brambling.boards.latency.tail`.
    fastest
        Smallest interval of any way, also of those that were left out.
    """

    stages: tuple[Stage, ...]
    rows: NDArray[np.int64]
    tails: NDArray[np.int64]
    fastest: int

    @classmethod
    def of(
        cls,
        step: Step,
        part: Part,
        pixels: int,
        flat: bool,
        image: Tensor | None = None,
        most: Needs | None = None,
    ) -> Self:
        """Find all ways on a part.

        ``flat``: the result is read as a vector; ``image``: the network's input, where it comes as
        that and is read as a vector: no beat has channels of two pixels. Ways that need far more
        than ``most`` are left out, with all that are as wide or wider.
        """
        stages, rows, tails, fastest = [], [], [], NEVER
        engine, limits = Engine(step, part), Limits(most)
        for pe, simd in widths(step):
            runs = step.runs(pe, simd, pixels)
            cycles = _cycles(step, pe, simd, pixels, runs, flat, image)
            fastest = min(fastest, cycles)
            if limits.exceeded(simd):
                continue
            more = repixel(part, step.result, pe, pixels, 1) if flat and pixels > 1 else Needs()
            found = [*ways(engine, pe, simd, pixels, runs)]
            needs = [engine.needs(stage, None, runs) + more for stage in found]
            limits.note(simd, needs)
            stages += found
            rows += [(cycles, n.blocks, n.luts, n.dsps, n.sprams) for n in needs]
            tails += [tail(step, pixels, runs)] * len(found)
        return cls(tuple(stages), np.array(rows, np.int64), np.array(tails, np.int64), fastest)

    def best(self, latency: bool = False) -> Self:
        """Return those that no other one equals or beats in everything.

        ``latency``: also in how soon the last result comes.
        """
        rows = np.column_stack([self.rows, self.tails]) if latency else self.rows
        return self._only(undominated(rows))

    def within(self, limit: int, latency: bool = False) -> Self:
        """Return those with an interval of at most ``limit``; of them, again the best only."""
        fast = np.flatnonzero(self.rows[:, 0] <= limit)
        rows = self.rows[fast, 1:]
        if latency:
            rows = np.column_stack([rows, self.tails[fast]])
        return self._only(fast[undominated(rows)])

    def _only(self, kept: NDArray[np.int64]) -> Self:
        stages = tuple(self.stages[n] for n in kept)
        return type(self)(stages, self.rows[kept], self.tails[kept], self.fastest)

    def stage(self, n: int, step: Step) -> Stage:
        """Return a stage, for ``step``."""
        return replace(self.stages[n], layer=step.name)


def _cycles(
    step: Step, pe: int, simd: int, pixels: int, runs: Runs, flat: bool, image: Tensor | None
) -> int:
    """Interval of an engine of such a width, and of what stands before and behind it."""
    height, columns, channels = (1, 1, 1, *step.result.shape)[-3:]
    cycles = max(runs.cycles, step.arrival(simd, 1 if step.window else pixels))
    if flat and pixels > 1:
        cycles = max(cycles, height * columns * -(-channels // pe))
    if image:
        depth = image.shape[-1]
        cycles = max(cycles, image.size // depth * -(-depth // min(depth, simd)))
    return cycles


class Limits:
    """Widths that need far more than there is, and so all that are as wide or wider.

    Widths come with ``pe`` rising, and for each with ``simd`` rising.
    """

    def __init__(self, most: Needs | None) -> None:
        self.most = most
        self.too_wide = NEVER  # This ``simd`` was too much for a smaller ``pe``.

    def exceeded(self, simd: int) -> bool:
        """Whether no more need be known of these lanes."""
        return simd >= self.too_wide

    def note(self, simd: int, needs: Sequence[Needs]) -> None:
        """Learn what all ways with these lanes need."""
        if self.most is not None and all(_far_more(need, self.most) for need in needs):
            self.too_wide = min(self.too_wide, simd)


def _far_more(need: Needs, most: Needs) -> bool:
    """Whether some need is more than there is, by more than another width could make up for.

    Only logic and multipliers: block RAMs can become fewer where an engine is wider.
    """
    return need.luts > MARGIN * most.luts or need.dsps > MARGIN * most.dsps


def undominated(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indices of the rows that no other row equals or beats in every column."""
    scale = np.maximum(rows.max(axis=0, initial=1), 1)
    left = np.argsort((rows / scale).sum(axis=1), kind="stable")
    kept = []
    while len(left):
        best = left[0]  # Nothing beats it: its sum would be smaller.
        kept.append(best)
        left = left[(rows[left] < rows[best]).any(axis=1)]
    return np.array(kept, np.int64)


def shape_of(step: Step, part: Part) -> Hashable:
    """Return what the needs of a step's foldings depend on: equal for layers of equal shape."""
    layer = step.layers[0]
    parameters: tuple[object, ...] = (len(step.layers),)
    if isinstance(layer, Product):
        parameters += (str(layer.fmt), *sorted(layer.attributes().items(), key=str))
    elif isinstance(layer, Requantise):
        parameters += (layer.multiplier.tobytes(), layer.bias.tobytes(), layer.slope)
    elif isinstance(layer, Thresholds):
        parameters += (layer.levels.shape, bool(layer.falling.any()))
    else:
        parameters += (str(layer.attributes()),)
    width = Engine(step, part).width  # Of an accumulator: by the levels that are compared.
    return step.engine, step.tensors, step.result, width, str(parameters)
