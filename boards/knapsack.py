"""The cheapest choice of one folding for each engine, exactly: a knapsack of four resources."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brambling.boards.memories import Needs

__all__ = ["Items", "Knapsack"]

NEVER = 1 << 30  #: LUTs of what cannot be.

#: Ways to do one thing: block RAMs, LUTs, multipliers and SPRAMs of each, int64 ``(n, 4)``.
Items = NDArray[np.int64]
Grid = NDArray[np.int32]
Cell = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Knapsack:
    """What may be taken: block RAMs, multipliers and SPRAMs, each by the piece, and LUTs.

    Dynamic programming over what is taken of the first three: a grid holds the fewest LUTs with
    which the things so far are done, at exactly so many pieces of each. Things come in *families*:
    all members of a family take the ways of one and the same *variant*.
    """

    most: Needs

    def fill(self, families: Sequence[Sequence[Sequence[Items]]]) -> list[list[list[Grid]]] | None:
        """Return the grids after each member, by family and variant; ``None`` where nothing fits.

        ``families[f][v][m]`` are the ways to do member ``m`` of family ``f`` in variant ``v``.
        """
        most = self.most
        if min(most.blocks, most.luts, most.dsps, most.sprams) < 0:
            return None
        grid = np.full((most.blocks + 1, most.dsps + 1, most.sprams + 1), NEVER, np.int32)
        grid[0, 0, 0] = 0
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
        least = np.zeros(4, np.int64)  # A bound, and quick: each resource by itself.
        for family in families:
            sums = [
                sum((items.min(axis=0) for items in variant), start=np.zeros(4, np.int64))
                for variant in family
                if all(len(items) for items in variant)
            ]
            if not sums:
                return False
            least += np.min(sums, axis=0)
        most = self.most
        if (least > (most.blocks, most.luts, most.dsps, most.sprams)).any():
            return False
        return self.fill(families) is not None

    def best(
        self, families: Sequence[Sequence[Sequence[Items]]], prices: Sequence[float]
    ) -> list[tuple[int, list[int]]] | None:
        """Return the cheapest choice: for each family the variant, and the way of each member.

        ``prices`` are those of a block RAM, a LUT, a multiplier and a SPRAM. ``None`` where nothing
        fits.
        """
        filled = self.fill(families)
        if filled is None:
            return None
        grid = np.minimum.reduce([steps[-1] for steps in filled[-1]])
        blocks, dsps, sprams = np.indices(grid.shape, sparse=True)
        cost = blocks * prices[0] + grid * prices[1] + dsps * prices[2] + sprams * prices[3]
        cost = np.where(grid == NEVER, np.inf, cost)
        blocks, dsps, sprams = np.unravel_index(int(cost.argmin()), grid.shape)
        return self._trace(families, filled, (int(blocks), int(dsps), int(sprams)))

    def _add(self, grid: Grid, items: Items) -> Grid:
        found = np.full_like(grid, NEVER)
        rows, columns, layers = grid.shape
        for blocks, luts, dsps, sprams in items.tolist():
            if blocks < rows and dsps < columns and sprams < layers and luts <= self.most.luts:
                there = found[blocks:, dsps:, sprams:]
                before = grid[: rows - blocks, : columns - dsps, : layers - sprams]
                np.minimum(there, before + luts, out=there)
        found[found > self.most.luts] = NEVER
        return found

    def _trace(
        self,
        families: Sequence[Sequence[Sequence[Items]]],
        filled: list[list[list[Grid]]],
        cell: Cell,
    ) -> list[tuple[int, list[int]]]:
        """Go back from a cell of the last grid to the choices that lead there."""
        chosen: list[tuple[int, list[int]]] = []
        for family, rows in zip(reversed(families), reversed(filled), strict=True):
            variant = int(np.argmin([steps[-1][cell] for steps in rows]))
            steps, taken = rows[variant], []
            for member in range(len(family[variant]), 0, -1):
                way = _way(steps[member - 1], family[variant][member - 1], cell, steps[member])
                taken.append(way)
                blocks, _, dsps, sprams = family[variant][member - 1][way].tolist()
                cell = cell[0] - blocks, cell[1] - dsps, cell[2] - sprams
            chosen.append((variant, taken[::-1]))
        return chosen[::-1]


def _way(before: Grid, items: Items, cell: Cell, after: Grid) -> int:
    """Return the item that leads from the grid before to a cell of the grid after."""
    return next(
        n
        for n, (blocks, luts, dsps, sprams) in enumerate(items.tolist())
        if blocks <= cell[0]
        and dsps <= cell[1]
        and sprams <= cell[2]
        and before[cell[0] - blocks, cell[1] - dsps, cell[2] - sprams] + luts == after[cell]
    )
