"""Making neighbours agree: foldings that need fewer adapters between engines."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from brambling.boards.choices import Choices
from brambling.boards.memories import Needs
from brambling.boards.parts import Part
from brambling.boards.resources import Engine
from brambling.boards.wiring import Link, between
from brambling.plan import Stage, Step

__all__ = ["Polish"]

ROUNDS = 4  #: Times that every stage is looked at again.
EXCESS = 1e3  #: Price of as much as all there is, where there is no more.


class Polish:
    """Exchanges the stages of a network, one at a time, for better ones.

    Better is what takes less of the part together with all that stands between engines; as long as
    all together are too much, what comes nearer to fitting. The numbers of pixels stay.

    Parameters
    ----------
    every
        All foldings of a step with a number of pixels, by step.
    prices
        Of a block RAM, a LUT and a multiplier.
    """

    def __init__(
        self,
        chain: Sequence[Step],
        joined: Sequence[Link],
        part: Part,
        every: Callable[[int, int], Choices],
        prices: tuple[float, float, float],
    ) -> None:
        self.part = part
        self.every = every
        self.prices = prices
        self.engines = [Engine(step, part) for step in chain]
        self.inputs: list[list[Link]] = [[] for _ in chain]
        self.outputs: list[list[Link]] = [[] for _ in chain]
        for link in joined:
            if link.source >= 0:
                self.outputs[link.source].append(link)
                self.inputs[link.reader].append(link)
        self._between = lru_cache(maxsize=None)(self._adapter)

    def run(self, stages: Sequence[Stage], limit: int, most: Needs) -> tuple[Stage, ...]:
        """Return better stages, all with an interval of at most ``limit``."""
        chosen = list(stages)
        for _ in range(ROUNDS):
            before = list(chosen)
            for n in range(len(chosen)):
                chosen[n] = self._best(n, chosen, limit, most)
            if chosen == before:
                break
        return tuple(chosen)

    def total(self, stages: Sequence[Stage]) -> Needs:
        """Estimate what all stages take, with what stands between them."""
        rows = [self._own(n, stages) + self._before(n, stages) for n in range(len(stages))]
        return Needs(*np.sum(rows, axis=0).tolist())

    def _best(self, n: int, chosen: Sequence[Stage], limit: int, most: Needs) -> Stage:
        """Return the best stage for a step, its neighbours as they are."""
        stage = chosen[n]
        every = self.every(n, stage.pixels)
        fast = np.flatnonzero(every.rows[:, 0] <= limit)
        # What comes to a line buffer more than a pixel at a time costs all of them alike.
        more = self._own(n, chosen) - vector(self.engines[n].needs(stage))
        lanes = {(s.pe, s.simd) for s in (every.stages[k] for k in fast)}
        around = {pair: self._around(n, *pair, chosen) for pair in lanes}
        adapters = [around[every.stages[k].pe, every.stages[k].simd] for k in fast]
        taken = every.rows[fast, 1:] + np.array(adapters) + more
        rest = vector(self.total(chosen)) - self._own(n, chosen)
        rest -= self._around(n, stage.pe, stage.simd, chosen)
        costs = self._cost(taken + rest, most)
        best = int(np.argmin(costs))
        if costs[best] >= self._cost(vector(self.total(chosen)), most):
            return stage
        return every.stage(int(fast[best]), self.engines[n].step)

    def _cost(self, taken: NDArray[np.int64], most: Needs) -> NDArray[np.float64]:
        there = np.maximum(vector(most), 1)
        excess = np.maximum(taken - there, 0) / there
        return taken @ np.array(self.prices) + EXCESS * excess.sum(axis=-1)

    def _own(self, n: int, chosen: Sequence[Stage]) -> NDArray[np.int64]:
        pixels = None
        for link in self.inputs[n]:
            if link.number == 0 and not link.flat:
                pixels = chosen[link.source].pixels
        return vector(self.engines[n].needs(chosen[n], pixels))

    def _before(self, n: int, chosen: Sequence[Stage]) -> NDArray[np.int64]:
        """Adapters at the inputs of a step."""
        found, reader = np.zeros(3, np.int64), chosen[n]
        for link in self.inputs[n]:
            source = chosen[link.source]
            lanes = source.pe, source.pixels, reader.simd, reader.pixels
            found = found + self._between(link, *lanes)
        return found

    def _around(self, n: int, pe: int, simd: int, chosen: Sequence[Stage]) -> NDArray[np.int64]:
        """Adapters at both ends of a step, if it had that many lanes."""
        found, pixels = np.zeros(3, np.int64), chosen[n].pixels
        for link in self.inputs[n]:
            source = chosen[link.source]
            found = found + self._between(link, source.pe, source.pixels, simd, pixels)
        for link in self.outputs[n]:
            reader = chosen[link.reader]
            found = found + self._between(link, pe, pixels, reader.simd, reader.pixels)
        return found

    def _adapter(
        self, link: Link, lanes: int, pixels: int, target: int, wanted: int
    ) -> NDArray[np.int64]:
        """Estimate what stands at an input, from the beats of its source and of its reader."""
        if self.engines[link.reader].window:  # A line buffer takes any number of pixels.
            wanted = pixels
        return vector(between(self.part, link, lanes, pixels, target, wanted))


def vector(need: Needs) -> NDArray[np.int64]:
    """Block RAMs, LUTs and multipliers."""
    return np.array([need.blocks, need.luts, need.dsps], np.int64)
