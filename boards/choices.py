"""The ways to fold an engine, and what each needs."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Self

import numpy as np
from numpy.typing import NDArray

from brambling.boards.parts import Part
from brambling.boards.resources import PARALLEL, Engine
from brambling.boards.wiring import repixel
from brambling.layers import Conv, Requantise, Tensor, Thresholds
from brambling.layers.product import Product
from brambling.plan import Stage, Step
from brambling.steps import PARTED, Runs

__all__ = ["Choices", "foldings", "narrowest", "pixel_counts"]

#: Words up to which a memory is cheaper in LUTs.
SHALLOW = 64
#: Pixels at a time, of those that do not divide a row.
MOST_PIXELS = 8


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


def foldings(engine: Engine, pixels: int) -> Iterator[tuple[Stage, Runs]]:
    """Yield every way to fold a step with ``pixels`` at a time, and the work of a frame."""
    step, layer = engine.step, engine.step.layers[0]
    searched = isinstance(layer, Thresholds) and layer.levels.shape[1] > PARALLEL
    looks_up = searched or step.engine == "table"
    lines = ("block", "lut") if engine.window and engine.part.lut_ram else ("block",)
    for pe, simd in widths(step):
        runs = step.runs(pe, simd, pixels)
        rows = runs.chunks * runs.folds
        # A convolution reads its few weights at every position, a dense layer each of many once.
        shallow = isinstance(layer, Conv) and rows * runs.beats <= SHALLOW
        weights = ("block", "lut") if shallow else ("block",)
        deep = ("block",) if step.products and rows > SHALLOW else ("lut",)
        levels = ("lut", "block") if looks_up else deep
        for style, *stores in product(styles(engine), weights, levels, lines):
            keys = dict(zip(("weights", "levels", "lines"), stores, strict=True))
            fifo = (0,) * len(step.sources)
            stage = Stage(
                layer=step.name,
                engine=step.engine,
                pe=pe,
                simd=simd,
                pixels=pixels,
                style=style,
                fifo=fifo,
                **keys,
            )
            yield stage, runs


@dataclass(frozen=True, slots=True)
class Choices:
    """Ways to fold a step.

    Parameters
    ----------
    stages
        The stages, for one layer of that shape.
    rows
        Interval, block RAMs, LUTs and multipliers of each, ``(n, 4)``.
    """

    stages: tuple[Stage, ...]
    rows: NDArray[np.int64]

    @classmethod
    def of(
        cls, step: Step, part: Part, pixels: int, flat: bool, image: Tensor | None = None
    ) -> Self:
        """Find all ways on a part.

        ``flat``: the result is read as a vector; ``image``: the network's input, where it comes as
        that and is read as a vector: no beat has channels of two pixels.
        """
        stages, rows = [], []
        engine = Engine(step, part)
        height, width, channels = (1, 1, 1, *step.result.shape)[-3:]
        for stage, runs in foldings(engine, pixels):
            brought = 1 if engine.window else pixels
            need = engine.needs(stage, None, runs)
            cycles = max(runs.cycles, step.arrival(stage.simd, brought))
            if flat and pixels > 1:
                need += repixel(part, step.result, stage.pe, pixels, 1)
                cycles = max(cycles, height * width * -(-channels // stage.pe))
            if image:
                depth = image.shape[-1]
                cycles = max(cycles, image.size // depth * -(-depth // min(depth, stage.simd)))
            stages.append(stage)
            rows.append((cycles, need.blocks, need.luts, need.dsps))
        return cls(tuple(stages), np.array(rows, np.int64).reshape(-1, 4))

    def best(self) -> Self:
        """Return those that no other one equals or beats in everything."""
        return self._only(undominated(self.rows))

    def within(self, limit: int) -> Self:
        """Return those with an interval of at most ``limit``; of them, again the best only."""
        fast = np.flatnonzero(self.rows[:, 0] <= limit)
        return self._only(fast[undominated(self.rows[fast, 1:])])

    def _only(self, kept: NDArray[np.int64]) -> Self:
        return type(self)(tuple(self.stages[n] for n in kept), self.rows[kept])

    def stage(self, n: int, step: Step) -> Stage:
        """Return a stage, for ``step``."""
        return replace(self.stages[n], layer=step.name)


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


def shape_of(step: Step) -> Hashable:
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
    return step.engine, step.tensors, step.result, str(parameters)
