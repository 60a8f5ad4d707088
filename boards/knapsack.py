"""The cheapest choice of one folding for each engine, exactly: a knapsack of three resources."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brambling.boards.memories import Needs

__all__ = ["Items", "Knapsack"]

NEVER = 1 << 30  #: LUTs of what cannot be.

#: Ways to do one thing: block RAMs, LUTs and multipliers of each, int64 ``(n, 3)``.
Items = NDArray[np.int64]
Grid = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Knapsack:
    """What may be taken: block RAMs and multipliers, each by the piece, and LUTs.

    Dynamic programming over what is taken of the first two: a grid holds the fewest LUTs with which
    the things so far are done, at exactly so many block RAMs and multipliers. Things come in
    *families*: all members of a family take the ways of one and the same *variant*.
    """

    most: Needs

    def fill(self, families: Sequence[Sequence[Sequence[Items]]]) -> list[list[list[Grid]]] | None:
        """Return the grids after each member, by family and variant; ``None`` where nothing fits.

        ``families[f][v][m]`` are the ways to do member ``m`` of family ``f`` in variant ``v``.
        """
        if min(self.most.blocks, self.most.luts, self.most.dsps) < 0:
            return None
        grid = np.full((self.most.blocks + 1, self.most.dsps + 1), NEVER, np.int32)
        grid[0, 0] = 0
        filled = []
        for family in families:
            rows = []
            for variant in family:
                steps = [grid]
                for items in variant:
                    steps.append(self._add(steps[-1], items))
                rows.append(steps)
            grid = np.minimum.reduce([steps[-1] for steps in rows])
            if grid.min() == NEVER:
                return None
            filled.append(rows)
        return filled

    def fits(self, families: Sequence[Sequence[Sequence[Items]]]) -> bool:
        """Whether there is a choice that fits."""
        least = np.zeros(3, np.int64)  # A bound, and quick: each resource by itself.
        for family in families:
            sums = [
                sum((items.min(axis=0) for items in variant), start=np.zeros(3, np.int64))
                for variant in family
                if all(len(items) for items in variant)
            ]
            if not sums:
                return False
            least += np.min(sums, axis=0)
        most = self.most
        if (least > (most.blocks, most.luts, most.dsps)).any():
            return False
        return self.fill(families) is not None

    def best(
        self, families: Sequence[Sequence[Sequence[Items]]], prices: tuple[float, float, float]
    ) -> list[tuple[int, list[int]]] | None:
        """Return the cheapest choice: for each family the variant, and the way of each member.

        ``prices`` are those of a block RAM, a LUT and a multiplier. ``None`` where nothing fits.
        """
        filled = self.fill(families)
        if filled is None:
            return None
        grid = np.minimum.reduce([steps[-1] for steps in filled[-1]])
        blocks, dsps = np.indices(grid.shape, sparse=True)
        cost = blocks * prices[0] + grid * prices[1] + dsps * prices[2]
        cost = np.where(grid == NEVER, np.inf, cost)
        cell = tuple(map(int, np.unravel_index(int(cost.argmin()), grid.shape)))
        return self._trace(families, filled, cell)

    def _add(self, grid: Grid, items: Items) -> Grid:
        found = np.full_like(grid, NEVER)
        rows, columns = grid.shape
        for blocks, luts, dsps in items.tolist():
            if blocks < rows and dsps < columns and luts <= self.most.luts:
                there = found[blocks:, dsps:]
                np.minimum(there, grid[: rows - blocks, : columns - dsps] + luts, out=there)
        found[found > self.most.luts] = NEVER
        return found

    def _trace(
        self,
        families: Sequence[Sequence[Sequence[Items]]],
        filled: list[list[list[Grid]]],
        cell: tuple[int, ...],
    ) -> list[tuple[int, list[int]]]:
        """Go back from a cell of the last grid to the choices that lead there."""
        chosen: list[tuple[int, list[int]]] = []
        for family, rows in zip(reversed(families), reversed(filled), strict=True):
            variant = int(np.argmin([steps[-1][cell] for steps in rows]))
            steps, taken = rows[variant], []
            for member in range(len(family[variant]), 0, -1):
                way = _way(steps[member - 1], family[variant][member - 1], cell, steps[member])
                taken.append(way)
                blocks, _, dsps = family[variant][member - 1][way].tolist()
                cell = cell[0] - blocks, cell[1] - dsps
            chosen.append((variant, taken[::-1]))
        return chosen[::-1]


def _way(before: Grid, items: Items, cell: tuple[int, ...], after: Grid) -> int:
    """Return the item that leads from the grid before to a cell of the grid after."""
    return next(
        n
        for n, (blocks, luts, dsps) in enumerate(items.tolist())
        if blocks <= cell[0]
        and dsps <= cell[1]
        and before[cell[0] - blocks, cell[1] - dsps] + luts == after[cell]
    )
