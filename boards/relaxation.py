"""Foldings and their adapters together, at prices of the resources: a Lagrangian relaxation.

Each resource has a price, and what is cheapest then is found exactly by dynamic programming along
the engines: what stands between two of them depends on the lanes of both. Where engines have
several sources only the first is looked at, which makes it cheaper, never dearer. So whatever the
prices: if the cheapest costs more than all there is, nothing fits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from brambling.boards.choices import Choices
from brambling.boards.options import Options
from brambling.boards.polish import vector
from brambling.boards.wiring import Link, between
from brambling.plan import Stage

__all__ = ["Relaxation", "Solution"]

Costs = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Solution:
    """The cheapest stages at some prices.

    Parameters
    ----------
    cost
        What they cost at least, with adapters.
    stages
        One for each step.
    """

    cost: float
    stages: tuple[Stage, ...]


class Table:
    """The ways of a step with a number of pixels, by lanes."""

    def __init__(self, choices: Choices, pes: list[int], simds: list[int]) -> None:
        self.choices = choices
        lanes = np.array([(stage.pe, stage.simd) for stage in choices.stages])
        self.shape = len(pes), len(simds)
        cells = np.searchsorted(pes, lanes[:, 0]) * len(simds) + np.searchsorted(simds, lanes[:, 1])
        self.order = np.argsort(cells, kind="stable")
        self.cells, self.starts = np.unique(cells[self.order], return_index=True)

    def costs(self, limit: int, prices: Costs, hurry: float) -> tuple[Costs, Costs]:
        """Return the least cost by ``pe`` and ``simd``; and that of each way."""
        rows = self.choices.rows
        each = rows[:, 1:] @ prices + hurry * self.choices.tails
        each[rows[:, 0] > limit] = np.inf
        found = np.full(self.shape[0] * self.shape[1], np.inf)
        found[self.cells] = np.minimum.reduceat(each[self.order], self.starts)
        return found.reshape(self.shape), each


class Node:
    """A step: its ways, what it reads first, and who reads it so."""

    def __init__(self, variants: dict[int, Choices]) -> None:
        lanes = {(s.pe, s.simd) for choices in variants.values() for s in choices.stages}
        self.pes = sorted({pe for pe, _ in lanes})
        self.simds = sorted({simd for _, simd in lanes})
        self.tables = {k: Table(choices, self.pes, self.simds) for k, choices in variants.items()}
        self.link: Link | None = None  # From another step.
        self.adapters: dict[int, NDArray[np.int64]] = {}
        self.cycles: dict[int, NDArray[np.int64]] = {}  #: Of those adapters, at the least.
        self.more: dict[tuple[int, int], NDArray[np.int64]] = {}  # By pixels, and those brought.
        self.readers: list[int] = []


class Relaxation:
    """The steps of a network as trees: each below the first that it reads."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.chain = options.chain
        self.nodes: list[Node] = [None] * len(options.chain)  # pyright: ignore
        for family in options.families:
            for place, n in enumerate(family.members):
                rows = (variant[place] for variant in family.variants)
                self.nodes[n] = Node({choices.stages[0].pixels: choices for choices in rows})
        for link in options.joined:
            if link.number == 0 and link.source >= 0:
                self.nodes[link.reader].link = link
                self.nodes[link.source].readers.append(link.reader)
                self.nodes[link.reader].adapters = self._adapters(link)
                self.nodes[link.reader].cycles = self._cycles(link)

    def _adapters(self, link: Link) -> dict[int, NDArray[np.int64]]:
        """Needs of what stands at a link, ``(lanes of the source, of the reader, 4)``, by pixels.

        Without what changes the number of pixels.
        """
        source, reader = self.nodes[link.source], self.nodes[link.reader]
        found = np.zeros((len(source.pes), len(reader.simds), 4), np.int64)
        for row, lanes in enumerate(source.pes):
            for column, target in enumerate(reader.simds):
                need = between(self.options.board.part, link, lanes, 1, target, 1)
                found[row, column] = vector(need)
        return {k: found * (1 if link.flat else k) for k in source.tables}

    def _cycles(self, link: Link) -> dict[int, NDArray[np.int64]]:
        """Cycles a frame of what stands at a link: at least one a beat at either end."""
        source, reader = self.nodes[link.source], self.nodes[link.reader]
        if link.flat:
            return {k: np.zeros((1, 1), np.int64) for k in source.tables}
        rows, columns, channels = (1, 1, 1, *link.tensor.shape)[-3:]
        beats = -(-channels // np.minimum.outer(source.pes, reader.simds))
        return {k: rows * -(-columns // k) * beats for k in source.tables}

    # Forth ------------------------------------------------------------------------------------

    def solve(
        self,
        limit: int,
        prices: Sequence[float],
        hurry: Sequence[float] | None = None,
        pixels: dict[int, int] | None = None,
        proof: bool = False,
    ) -> Solution | None:
        """Return the cheapest stages with an interval of at most ``limit``, if there are any.

        Parameters
        ----------
        prices
            Of a block RAM, a LUT, a multiplier and a SPRAM.
        hurry
            Price of a cycle of the tail, by step; ``None``: nothing.
        pixels
            Numbers that are given, by step.
        proof
            Whether :attr:`Solution.cost` must be a bound: then what a line buffer needs more where
            several pixels come at a time, known only about, is left out.
        """
        return Search(self, limit, np.array(prices), hurry, pixels or {}, proof).solution()

    def more(self, n: int, pixels: int, brought: int) -> NDArray[np.int64]:
        """Estimate what a line buffer needs more where so many pixels come at a time.

        By ``simd``, ``(simds, 4)``: of the widest engines with three numbers of lanes, and between.
        """
        node = self.nodes[n]
        if (pixels, brought) not in node.more:
            stages = {stage.simd: stage for stage in node.tables[pixels].choices.stages}
            lanes = sorted(stages)
            lanes = sorted({lanes[0], lanes[len(lanes) // 2], lanes[-1]})
            engine = self.options.polish.engines[n]
            rows = [
                vector(engine.needs(stages[k], brought)) - vector(engine.needs(stages[k], 1))
                for k in lanes
            ]
            columns = [np.interp(node.simds, lanes, column) for column in np.transpose(rows)]
            node.more[pixels, brought] = np.transpose(columns)
        return node.more[pixels, brought]


class Search:
    """One solution: costs from the last steps to the first, then choices from first to last."""

    def __init__(
        self,
        tree: Relaxation,
        limit: int,
        prices: Costs,
        hurry: Sequence[float] | None,
        pixels: dict[int, int],
        proof: bool,
    ) -> None:
        self.tree, self.limit, self.prices, self.pixels = tree, limit, prices, pixels
        self.proof = proof
        self.hurry = hurry or [0.0] * len(tree.nodes)
        self.totals: list[dict[int, Costs]] = [{} for _ in tree.nodes]  # By pixels; pe, simd.
        self.each: list[dict[int, Costs]] = [{} for _ in tree.nodes]
        self.messages: dict[int, dict[int, Costs]] = {}  # By reader; pixels, lanes of its source.
        known: dict[tuple[int, float], tuple[Costs, Costs]] = {}
        for n in range(len(tree.nodes) - 1, -1, -1):
            for k, table in self._tables(n):
                key = id(table.choices), self.hurry[n]
                if key not in known:
                    known[key] = table.costs(limit, prices, self.hurry[n])
                costs, self.each[n][k] = known[key]
                below = sum(self.messages[m][k] for m in tree.nodes[n].readers)
                self.totals[n][k] = costs + np.asarray(below).reshape(-1, 1)
            if tree.nodes[n].link is not None:
                self.messages[n] = self._message(n)

    def _tables(self, n: int) -> Iterator[tuple[int, Table]]:
        given = self.pixels.get(n)
        for k, table in self.tree.nodes[n].tables.items():
            if given is None or k == given:
                yield k, table

    def _message(self, n: int) -> dict[int, Costs]:
        """Cost of a step and all below, by pixels and lanes of its source."""
        node = self.tree.nodes[n]
        assert node.link is not None
        source = self.tree.nodes[node.link.source]
        least = {k: total.min(axis=0) for k, total in self.totals[n].items()}
        found = {}
        for brought in source.tables:
            rows = [costs + self._more(n, k, brought) for k, costs in least.items()]
            cost = np.minimum.reduce(rows)
            found[brought] = (cost + self._between(n, brought)).min(axis=1)
        return found

    def _more(self, n: int, k: int, brought: int) -> Costs | float:
        """Cost of taking ``k`` pixels at a time where others come; infinite where it cannot be."""
        node = self.tree.nodes[n]
        assert node.link is not None
        if node.link.flat:
            return 0.0
        if self.tree.chain[n].window is None:
            return 0.0 if k == brought else np.inf
        if brought == 1 or self.proof:
            return 0.0
        return self.tree.more(n, k, brought) @ self.prices

    def _between(self, n: int, brought: int) -> Costs:
        """Cost of the adapters in front of a step, by lanes of both ends."""
        node = self.tree.nodes[n]
        costs = node.adapters[brought] @ self.prices
        return np.where(node.cycles[brought] > self.limit, np.inf, costs)

    # Back -------------------------------------------------------------------------------------

    def solution(self) -> Solution | None:
        """Return the cheapest stages; ``None`` where there are none."""
        stages: list[Stage | None] = [None] * len(self.tree.nodes)
        cost = 0.0
        for n, node in enumerate(self.tree.nodes):
            if node.link is None:
                lanes = {k: total.min(axis=0) for k, total in self.totals[n].items()}
                cost += min((float(row.min()) for row in lanes.values()), default=np.inf)
            else:
                source = stages[node.link.source]
                assert source is not None
                lanes = self._lanes(n, source)
            k = min(lanes, key=lambda k: lanes[k].min(), default=None)
            if k is None or not np.isfinite(cost):
                return None
            stages[n] = self._stage(n, k, int(lanes[k].argmin()))
        return Solution(cost, tuple(stage for stage in stages if stage is not None))

    def _lanes(self, n: int, source: Stage) -> dict[int, Costs]:
        """Cost of a step and all below, by its pixels and ``simd``."""
        node = self.tree.nodes[n]
        assert node.link is not None
        row = self.tree.nodes[node.link.source].pes.index(source.pe)
        between = self._between(n, source.pixels)[row]
        return {
            k: total.min(axis=0) + self._more(n, k, source.pixels) + between
            for k, total in self.totals[n].items()
        }

    def _stage(self, n: int, k: int, simd: int) -> Stage:
        table = self.tree.nodes[n].tables[k]
        pe = int(self.totals[n][k][:, simd].argmin())
        cell = int(np.searchsorted(table.cells, pe * table.shape[1] + simd))
        ends = [*table.starts[1:], len(table.order)]
        ways = table.order[table.starts[cell] : ends[cell]]
        best = int(ways[self.each[n][k][ways].argmin()])
        return replace(table.choices.stages[best], layer=self.tree.chain[n].name)
