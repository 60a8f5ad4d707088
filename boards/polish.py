"""Making neighbours agree: foldings that need fewer adapters between engines."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from brambling.boards.choices import Choices
from brambling.boards.memories import Needs
from brambling.boards.parts import Part
from brambling.boards.resources import Engine, interval
from brambling.boards.wiring import Link, Wiring, between, cycles
from brambling.plan import Stage, Step

__all__ = ["Polish"]

ROUNDS = 4  #: Times that every stage is looked at again.
EXCESS = 1e3  #: Price of as much as all there is, where there is no more; of a slow adapter too.


class Polish:
    """Exchanges the stages of a network, one at a time, for better ones.

    Better is what takes less of the part together with all that stands between engines; as long as
    all together are too much, or what stands between is too slow, what comes nearer to fitting. The
    numbers of pixels stay.

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
        self.joints = Wiring(chain, tuple(joined))
        self.inputs: list[list[Link]] = [[] for _ in chain]
        self.near: list[list[Link]] = [[] for _ in chain]  # What a step's lanes matter to.
        for link in joined:
            self.inputs[link.reader].append(link)
            source = self.joints.first.reader if link.source < 0 else link.source
            for n in {source, link.reader}:
                self.near[n].append(link)
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

    def slowest(self, stages: Sequence[Stage]) -> int:
        """Cycles a frame that the slowest engine or adapter of lanes needs."""
        engines = (interval(engine.step, s) for engine, s in zip(self.engines, stages, strict=True))
        adapters = (int(self._at(link, stages)[3]) for link in self.joints.joined)
        return max(*engines, *adapters)

    def _best(self, n: int, chosen: Sequence[Stage], limit: int, most: Needs) -> Stage:
        """Return the best stage for a step, its neighbours as they are."""
        stage = chosen[n]
        every = self.every(n, stage.pixels)
        fast = np.flatnonzero(every.rows[:, 0] <= limit)
        # What comes to a line buffer more than a pixel at a time costs all of them alike.
        more = self._own(n, chosen) - vector(self.engines[n].needs(stage))
        lanes = {(s.pe, s.simd) for s in (every.stages[k] for k in fast)}
        around = {pair: self._around(n, *pair, chosen, limit) for pair in lanes}
        adapters = np.array([around[every.stages[k].pe, every.stages[k].simd] for k in fast])
        here = self._around(n, stage.pe, stage.simd, chosen, limit)
        taken = every.rows[fast, 1:] + adapters[:, :3] + more
        rest = vector(self.total(chosen)) - self._own(n, chosen) - here[:3]
        costs = self._cost(taken + rest, most) + EXCESS * adapters[:, 3]
        best = int(np.argmin(costs))
        if costs[best] >= self._cost(vector(self.total(chosen)), most) + EXCESS * here[3]:
            return stage
        return every.stage(int(fast[best]), self.engines[n].step)

    def _cost(self, taken: NDArray[np.int64], most: Needs) -> NDArray[np.float64]:
        there = np.maximum(vector(most), 1)
        excess = np.maximum(taken - there, 0) / there
        return taken @ np.array(self.prices) + EXCESS * excess.sum(axis=-1)

    def _own(self, n: int, chosen: Sequence[Stage]) -> NDArray[np.int64]:
        return vector(self.engines[n].needs(chosen[n], self.joints.brought(chosen)[n]))

    def _before(self, n: int, chosen: Sequence[Stage]) -> NDArray[np.int64]:
        """Adapters at the inputs of a step."""
        rows = (self._at(link, chosen)[:3] for link in self.inputs[n])
        return sum(rows, start=np.zeros(3, np.int64))

    def _around(
        self, n: int, pe: int, simd: int, chosen: Sequence[Stage], limit: int
    ) -> NDArray[np.int64]:
        """Adapters around a step, if it had that many lanes; and how many would be too slow."""
        stages = list(chosen)
        stages[n] = replace(stages[n], pe=pe, simd=simd)
        rows = np.array([self._at(link, stages) for link in self.near[n]], np.int64).reshape(-1, 4)
        rows[:, 3] = rows[:, 3] > limit
        return np.array(rows.sum(axis=0))

    def _at(self, link: Link, stages: Sequence[Stage]) -> NDArray[np.int64]:
        return self._between(link, *self.joints.beats(link, stages))

    def _adapter(
        self, link: Link, lanes: int, pixels: int, target: int, wanted: int
    ) -> NDArray[np.int64]:
        """Estimate what stands at an input, and how many cycles a frame it needs."""
        beats = lanes, pixels, target, wanted
        return np.append(vector(between(self.part, link, *beats)), cycles(link, *beats))


def vector(need: Needs) -> NDArray[np.int64]:
    """Block RAMs, LUTs and multipliers."""
    return np.array([need.blocks, need.luts, need.dsps], np.int64)
