"""Making neighbours agree: foldings that need fewer adapters between engines."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from brambling.boards.choices import NEVER, Choices
from brambling.boards.memories import Needs
from brambling.boards.parts import Part
from brambling.boards.resources import Engine, interval
from brambling.boards.wiring import Lanes, Link, Wiring, between, cycles
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
        Of a block RAM, a LUT, a multiplier and a SPRAM.
    """

    def __init__(
        self,
        chain: Sequence[Step],
        joined: Sequence[Link],
        part: Part,
        every: Callable[[int, int], Choices],
        prices: Sequence[float],
    ) -> None:
        self.part = part
        self.every = every
        self.prices = prices
        self.engines = [Engine(step, part) for step in chain]
        self.joints = Wiring(chain, tuple(joined))
        self.read: list[list[Link]] = [[] for _ in chain]  # What a step's ``pe`` matters to.
        self.near: list[list[Link]] = [[] for _ in chain]  # What its ``simd`` matters to.
        for link in joined:
            self.near[link.reader].append(link)
            if link.source >= 0:
                self.read[link.source].append(link)
            elif link.reader != self.joints.first.reader:
                self.near[self.joints.first.reader].append(link)
        self._between = cache(self._adapter)
        self._engine = cache(self._estimate)
        self._lanes = cache(self._every_lanes)

    def run(
        self,
        stages: Sequence[Stage],
        limit: int,
        most: Needs,
        tails: Sequence[int] | None = None,
    ) -> tuple[Stage, ...]:
        """Return better stages, all with an interval of at most ``limit``.

        ``tails``: the longest of each step, where they matter.
        """
        chosen = list(stages)
        for _ in range(ROUNDS):
            before = list(chosen)
            for n in range(len(chosen)):
                longest = NEVER if tails is None else tails[n]
                chosen[n] = self._best(n, chosen, limit, most, longest)
            if chosen == before:
                break
        return tuple(chosen)

    def total(self, stages: Sequence[Stage]) -> Needs:
        """Estimate what all stages take, with what stands between them."""
        return Needs(*self._total(stages).tolist())

    def slowest(self, stages: Sequence[Stage]) -> int:
        """Cycles a frame that the slowest engine or adapter of lanes needs."""
        engines = (interval(engine.step, s) for engine, s in zip(self.engines, stages, strict=True))
        adapters = (int(self._at(link, stages)[-1]) for link in self.joints.joined)
        return max(*engines, *adapters)

    def _best(
        self, n: int, chosen: Sequence[Stage], limit: int, most: Needs, longest: int
    ) -> Stage:
        """Return the best stage for a step, its neighbours as they are."""
        stage = chosen[n]
        every = self.every(n, stage.pixels)
        fast = np.flatnonzero((every.rows[:, 0] <= limit) & (every.tails <= longest))
        if not len(fast):
            return stage
        # What comes to a line buffer more than a pixel at a time costs all of them alike.
        own = self._own(n, chosen)
        more = own - self._engine(n, stage, None)
        adapters = self._around(n, self._lanes(n, stage.pixels)[fast], chosen, limit)
        here = self._around(n, np.array([(stage.pe, stage.simd)]), chosen, limit)[0]
        total = self._total(chosen)
        taken = every.rows[fast, 1:] + adapters[:, :-1] + more
        costs = self._cost(taken + (total - own - here[:-1]), most) + EXCESS * adapters[:, -1]
        best = int(np.argmin(costs))
        if costs[best] >= self._cost(total, most) + EXCESS * here[-1]:
            return stage
        return every.stage(int(fast[best]), self.engines[n].step)

    def _cost(self, taken: NDArray[np.int64], most: Needs) -> NDArray[np.float64]:
        there = np.maximum(vector(most), 1)
        excess = np.maximum(taken - there, 0) / there
        return taken @ np.array(self.prices) + EXCESS * excess.sum(axis=-1)

    def _total(self, stages: Sequence[Stage]) -> NDArray[np.int64]:
        brought = self.joints.brought(stages)
        rows = [self._engine(n, stage, brought[n]) for n, stage in enumerate(stages)]
        rows += [self._at(link, stages)[:-1] for link in self.joints.joined]
        return np.array(np.sum(rows, axis=0))

    def _own(self, n: int, chosen: Sequence[Stage]) -> NDArray[np.int64]:
        return self._engine(n, chosen[n], self.joints.brought(chosen)[n])

    def _around(
        self, n: int, lanes: NDArray[np.int64], chosen: Sequence[Stage], limit: int
    ) -> NDArray[np.int64]:
        """Adapters around a step, if it had such lanes; and how many would be too slow.

        ``lanes``: ``pe`` and ``simd``, ``(n, 2)``; returns ``(n, 5)``.
        """
        found = np.zeros((len(lanes), 5), np.int64)
        own = Lanes(chosen[n].pe, chosen[n].simd, chosen[n].pixels)
        for key, links, column in (("pe", self.read[n], 0), ("simd", self.near[n], 1)):
            values, places = np.unique(lanes[:, column], return_inverse=True)
            rows = np.zeros((len(values), 5), np.int64)
            stages: list[Stage | Lanes] = list(chosen)
            for k, value in enumerate(values.tolist()):
                stages[n] = own._replace(**{key: value})
                for link in links:
                    row = self._at(link, stages)
                    rows[k, :-1] += row[:-1]
                    rows[k, -1] += row[-1] > limit
            found += rows[places]
        return found

    def _at(self, link: Link, stages: Sequence[Stage | Lanes]) -> NDArray[np.int64]:
        return self._between(link, *self.joints.beats(link, stages))

    def _adapter(
        self, link: Link, lanes: int, pixels: int, target: int, wanted: int
    ) -> NDArray[np.int64]:
        """Estimate what stands at an input, and how many cycles a frame it needs."""
        beats = lanes, pixels, target, wanted
        need = between(self.part, link, *beats)
        return np.append(vector(need), cycles(link, *beats))

    def _estimate(self, n: int, stage: Stage, brought: int | None) -> NDArray[np.int64]:
        return vector(self.engines[n].needs(stage, brought))

    def _every_lanes(self, n: int, pixels: int) -> NDArray[np.int64]:
        stages = self.every(n, pixels).stages
        return np.array([(stage.pe, stage.simd) for stage in stages], np.int64)


def vector(need: Needs) -> NDArray[np.int64]:
    """Block RAMs, LUTs, multipliers and SPRAMs."""
    return np.array([need.blocks, need.luts, need.dsps, need.sprams], np.int64)
