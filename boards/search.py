"""Finding stages that fit with their adapters: prices are raised for what is short.

The duality of linear programming, by a few steps of a multiplicative update (Arora, Hazan and Kale,
"The Multiplicative Weights Update Method", 2012): a resource of which too much is taken gets
dearer. At any prices the cheapest foldings are known exactly, see
:class:`~brambling.boards.relaxation.Relaxation`; where they cost more than all there is, that is
the proof that nothing fits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from brambling.boards.memories import Needs
from brambling.boards.options import Options, excess
from brambling.boards.polish import vector
from brambling.boards.relaxation import Relaxation
from brambling.plan import Stage

__all__ = ["Search"]

Stages = tuple[Stage, ...]

STEPS, PROOFS = 12, 8  #: Times that prices are changed, to find stages and to prove.
NEARLY = 1.2  #: Times what there is, from which on it is not tried to make stages fit.
RATE = 2.0  #: By how much, for each share that is too much.
FIRST, CLOSE = 1.01, 1.002  #: Interval by which the first try is longer; and the last.
RESERVES = (1, 2, 4, 16)  #: Times what adapters lack, left free in a choice without adapters.
NOTHING = Needs()


@dataclass(frozen=True)
class Search:
    """Stages of a network that fit a part.

    Parameters
    ----------
    options
        All foldings.
    """

    options: Options
    proofs: list[NDArray[np.float64]] = field(default_factory=list, init=False, repr=False)

    @cached_property
    def tree(self) -> Relaxation:
        """The engines with what stands between them."""
        return Relaxation(self.options)

    def fits(self, stages: Stages, most: Needs) -> bool:
        """Whether stages fit, with their adapters."""
        return excess(self.options.polish.total(stages), most) == NOTHING

    def share(self, stages: Stages) -> float:
        """Sum of the shares of the part that stages take, with their adapters."""
        taken = vector(self.options.polish.total(stages))
        return float(taken @ np.array(self.options.polish.prices))

    # Bounds -----------------------------------------------------------------------------------

    def proven(self, limit: int, most: Needs) -> bool:
        """Whether it is proven that nothing fits with an interval of at most ``limit``."""
        there = vector(most)
        prices = self.proofs[-1] if self.proofs else 1 / np.maximum(there, 1)
        for _ in range(PROOFS):
            found = self.tree.solve(limit, prices.tolist(), proof=True)
            if found is None or found.cost > prices @ there * (1 + 1e-9):
                self.proofs.append(prices)  # They are likely to prove the next one too.
                return True
            prices = self._dearer(prices, found.stages, most)
        return False

    def shortest(self, most: Needs) -> int | None:
        """Smallest interval that is not proven to be too short for the part; ``None``: none is.

        Without adapters exactly, by the knapsack; then with those between each engine and the
        first that it reads.
        """
        reserve = Needs(*(vector(self.options.most) - vector(most)).tolist())
        least, intervals = self.options.smallest(reserve), self.options.intervals
        if least is None or not self.proven(least, most):
            return least
        low, high, longer = intervals.index(least), len(intervals) - 1, FIRST
        while low < high:  # Longer ones, until one is not proven.
            wanted = int(np.searchsorted(intervals, intervals[low] * longer, side="right")) - 1
            at = min(high, max(low + 1, wanted))
            if not self.proven(intervals[at], most):
                high = at
                break
            low, longer = at, longer**2
        if low == high:
            return None
        while high - low > 1:  # `low` is proven, `high` is not.
            middle = (low + high) // 2
            low, high = (middle, high) if self.proven(intervals[middle], most) else (low, middle)
        return intervals[high]

    def cheapest(self, limit: int, most: Needs) -> float:
        """Smallest sum of shares that stages with an interval of at most ``limit`` take: a bound.

        With adapters as in :meth:`shortest`; the best dual of the limits of all resources.
        """
        costs = (cost for cost, _, _ in self._surcharged(limit, most, proof=True))
        return max(costs, default=np.inf)

    def _surcharged(
        self, limit: int, most: Needs, *, proof: bool = False
    ) -> Iterator[tuple[float, Stages, NDArray[np.float64]]]:
        """Yield what is cheapest where each resource costs its share, and more where it is short.

        With a bound of the sum of the shares alone, and the prices.
        """
        there = vector(most)
        share = np.array(self.options.polish.prices)
        more = np.zeros(len(share))
        for number in range(STEPS):
            found = self.tree.solve(limit, (share + more).tolist(), proof=proof)
            if found is None:
                return
            yield found.cost - float(more @ there), found.stages, share + more
            over = vector(self.options.polish.total(found.stages)) - there
            step = share / np.maximum(there * share, 0.01) / (1 + number)  # A subgradient's.
            more = np.maximum(0.0, more + step * over * share)

    # Search -----------------------------------------------------------------------------------

    def fastest(self, most: Needs) -> Stages | None:
        """Return stages with about the smallest interval that fits, if any do."""
        least, intervals = self.shortest(most), self.options.intervals
        if least is None:
            return None
        low, high = intervals.index(least), len(intervals)
        found, wanted, longer = None, float(least), FIRST
        while True:  # Longer ones, until some fit.
            at = max(low, int(np.searchsorted(intervals, wanted, side="right")) - 1)
            found = self.within(intervals[at], most)
            if found is not None:
                high = at
                break
            if at == len(intervals) - 1:
                return None
            low, wanted, longer = at + 1, max(wanted * longer, intervals[at + 1]), longer**2
        while low < high and intervals[high] > CLOSE * intervals[low]:
            middle = (low + high) // 2
            other = self.within(intervals[middle], most)
            low, high = (middle + 1, high) if other is None else (low, middle)
            found = other or found
        return self.improved(found, intervals[high], most)

    def improved(self, stages: Stages, limit: int, most: Needs) -> Stages:
        """Return the cheapest of all that is found for an interval, at least these stages."""
        other = self._without_adapters(limit, most)
        found = [stages, *self._tries(limit, most), *([] if other is None else [other])]
        for _, cheap, prices in self._surcharged(limit, most):
            cheap = self.agreeing(cheap, limit, prices)
            if cheap is not None and self._close(cheap, most):
                better = self.options.polish.run(cheap, limit, most)
                found += [better] * self.fits(better, most)
        return min(found, key=self.share)

    def smallest(self, limit: int, most: Needs) -> Stages | None:
        """Return the cheapest stages with an interval of at most ``limit``, if any are found."""
        found = self.within(limit, most)
        return None if found is None else self.improved(found, limit, most)

    def within(self, limit: int, most: Needs) -> Stages | None:
        """Return stages that fit with an interval of at most ``limit``, if any are found."""
        if vector(most).min() < 0:
            return None
        return next(self._tries(limit, most), None) or self._without_adapters(limit, most)

    def _tries(self, limit: int, most: Needs) -> Iterator[Stages]:
        """Yield stages that fit, at prices that change; nothing more where nothing can fit."""
        there = vector(most)
        prices = 1 / np.maximum(there, 1)
        known = set()
        for _ in range(STEPS):
            found = self.tree.solve(limit, prices.tolist())
            if found is None or found.cost > prices @ there * (1 + 1e-9):
                return
            stages = self.agreeing(found.stages, limit, prices)
            if stages is not None and stages not in known and self._close(stages, most):
                known.add(stages)
                stages = self.options.polish.run(stages, limit, most)
                if self.fits(stages, most):
                    yield stages
            prices = self._dearer(prices, found.stages, most)

    def _close(self, stages: Stages, most: Needs) -> bool:
        """Whether stages fit, or nearly: then exchanging some may help."""
        taken = vector(self.options.polish.total(stages))
        return bool((taken <= NEARLY * np.maximum(vector(most), 1)).all())

    def agreeing(
        self,
        stages: Stages,
        limit: int,
        prices: NDArray[np.float64],
        hurry: Sequence[float] | None = None,
    ) -> Stages | None:
        """Return stages whose families agree in their pixels, as most of each have them."""
        pixels, split = {}, False
        for family in self.options.families:
            counts = [stages[n].pixels for n in family.members]
            pixels |= dict.fromkeys(family.members, max(set(counts), key=counts.count))
            split |= len(set(counts)) > 1
        if not split:
            return stages
        found = self.tree.solve(limit, prices.tolist(), hurry, pixels)
        return None if found is None else found.stages

    def _without_adapters(self, limit: int, most: Needs) -> Stages | None:
        """Return what fits of the choices of the knapsack, which leave room for adapters."""
        reserve = Needs(*(vector(self.options.most) - vector(most)).tolist())
        for times in RESERVES:
            chosen = self.options.best(limit, reserve)
            if chosen is None:
                return None
            stages = self.options.polish.run(chosen, limit, most)
            over = excess(self.options.polish.total(stages), most)
            if over == NOTHING:
                return stages
            reserve += over * times
        return None

    def nearest(self, limit: int, most: Needs) -> Needs:
        """Return about the least that is needed where nothing fits, by its largest share."""
        there = np.maximum(vector(most), 1)
        prices, best = 1 / there, None
        for _ in range(STEPS):
            found = self.tree.solve(limit, prices.tolist())
            if found is None:
                break
            need = vector(self.options.polish.total(found.stages))
            if best is None or (need / there).max() < (best / there).max():
                best = need
            prices = self._dearer(prices, found.stages, most)
        assert best is not None
        return Needs(*best.tolist())

    def _dearer(
        self, prices: NDArray[np.float64], stages: Sequence[Stage], most: Needs
    ) -> NDArray[np.float64]:
        """Return prices that are higher for what is short, with all there is as dear as before."""
        there = np.maximum(vector(most), 1)
        over = vector(self.options.polish.total(stages)) / there - 1
        changed = prices * np.exp(RATE * over.clip(-0.5, 0.5))
        return changed * len(there) / (changed @ there)
