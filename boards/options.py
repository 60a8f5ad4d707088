"""The ways to fold each engine of a network on a part, and the best of them without adapters."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Self

import numpy as np

from brambling.boards.choices import Choices, pixel_counts, shape_of
from brambling.boards.knapsack import Items, Knapsack
from brambling.boards.memories import Needs
from brambling.boards.parts import Board
from brambling.boards.polish import Polish
from brambling.boards.wiring import Link, families, links
from brambling.errors import ConfigError
from brambling.network import Network
from brambling.plan import Stage, Step, steps

__all__ = ["LUT_SHARE", "Family", "Options", "available", "excess"]

#: Share of the LUTs that a plan may take: above, routing gets slow and uncertain.
LUT_SHARE = 0.70


@dataclass(frozen=True, slots=True)
class Family:
    """Engines that take the same number of pixels at a time.

    Parameters
    ----------
    members
        Their numbers.
    variants
        The ways to fold each member, for each number of pixels.
    """

    members: list[int]
    variants: list[list[Choices]]

    def within(self, limit: int, latency: bool = False) -> Self:
        """Return what is left with an interval of at most ``limit``."""
        return type(self)(
            self.members,
            [[choices.within(limit, latency) for choices in v] for v in self.variants],
        )

    @property
    def items(self) -> list[list[Items]]:
        return [[choices.rows[:, 1:] for choices in variant] for variant in self.variants]


@dataclass(frozen=True, slots=True)
class Options:
    """The ways to fold each engine of a network, on a board.

    Parameters
    ----------
    fill
        Share of the LUTs that a plan may take.
    pruned
        Whether ways that need far more than there is are left out.
    """

    board: Board
    fill: float
    pruned: bool
    chain: tuple[Step, ...]
    joined: tuple[Link, ...]
    families: tuple[Family, ...]
    polish: Polish

    @classmethod
    def of(
        cls, network: Network, board: Board, fill: float = LUT_SHARE, *, pruned: bool = True
    ) -> Self:
        """Find all ways."""
        if not 0 < fill <= 1:
            raise ConfigError(
                f"fill must be more than 0 and at most 1, a share of the LUTs, not {fill:g}"
            )
        chain = steps(network)
        joined = links(network, chain)
        flat = {link.source for link in joined if link.flat}
        readers = [link.reader for link in joined if link.source < 0]
        # A line buffer at the input takes a pixel at a time, and so do those that read with it.
        single = {n for n in readers if any(chain[k].window for k in readers)}
        first = next(link for link in joined if link.source < 0)
        images = {first.reader: first.tensor} if first.flat else {}
        most = available(board, Needs(), fill) if pruned else None
        known: dict[object, Choices] = {}

        def every(n: int, pixels: int) -> Choices:
            key = shape_of(chain[n], board.part), pixels, n in flat, n in images
            if key not in known:
                args = chain[n], board.part, pixels, n in flat, images.get(n)
                known[key] = Choices.of(*args, most)
            return known[key]

        found = []
        for members in families(chain, joined):
            counts = pixel_counts(chain[members[0]].positions[1])
            if any(n in single and chain[n].window is None for n in members):
                counts = [1]
            found.append(Family(members, [[every(n, k) for n in members] for k in counts]))
        polish = Polish(chain, joined, board.part, every, prices(board))
        return cls(board, fill, pruned, chain, joined, tuple(found), polish)

    @property
    def most(self) -> Needs:
        """What a plan may take."""
        return available(self.board, Needs(), self.fill)

    @property
    def fastest(self) -> int:
        """Smallest interval that any choice has, however large."""
        return max(
            min(max(choices.fastest for choices in variant) for variant in family.variants)
            for family in self.families
        )

    @property
    def intervals(self) -> list[int]:
        """Intervals of all foldings, ascending."""
        every = {
            id(choices): choices.rows[:, 0]
            for family in self.families
            for variant in family.variants
            for choices in variant
        }
        return np.unique(np.concatenate([*every.values()])).tolist()

    def within(self, limit: int, latency: bool = False) -> tuple[Family, ...]:
        """Ways with an interval of at most ``limit``."""
        return tuple(family.within(limit, latency) for family in self.families)

    def best(self, limit: int, reserve: Needs) -> tuple[Stage, ...] | None:
        """Return the stages that fit with the smallest share of the part, if any do."""
        left = self.within(limit)
        knapsack = Knapsack(available(self.board, reserve, self.fill))
        chosen = knapsack.best([family.items for family in left], self.polish.prices)
        return None if chosen is None else self.stages(left, chosen)

    def stages(
        self, left: Sequence[Family], chosen: Sequence[tuple[int, list[int]]]
    ) -> tuple[Stage, ...]:
        """Return the stages that a knapsack has chosen."""
        found = {}
        for family, (variant, ways) in zip(left, chosen, strict=True):
            for n, choices, way in zip(family.members, family.variants[variant], ways, strict=True):
                found[n] = choices.stage(way, self.chain[n])
        return tuple(found[n] for n in range(len(self.chain)))

    def smallest(self, reserve: Needs) -> int | None:
        """Smallest interval that is feasible without adapters, if any is."""
        knapsack = Knapsack(available(self.board, reserve, self.fill))

        def fits(limit: int) -> bool:
            return knapsack.fits([family.items for family in self.within(limit)])

        intervals = self.intervals
        low, high = -1, len(intervals) - 1
        if not fits(intervals[high]):
            return None
        while high - low > 1:  # `high` is feasible, `low` is not.
            middle = (low + high) // 2
            if fits(intervals[middle]):
                high = middle
            else:
                low = middle
        return intervals[high]


def prices(board: Board) -> tuple[float, float, float, float]:
    """Return the share of the part that a piece of each resource is."""
    part = board.part
    return 1 / max(part.blocks, 1), 1 / part.luts, 1 / max(part.dsps, 1), 1 / max(part.sprams, 1)


def available(board: Board, reserve: Needs, fill: float = LUT_SHARE) -> Needs:
    """Return what a plan may take of the part, besides ``reserve``; ``fill`` is of the LUTs."""
    part = board.part
    return Needs(
        part.blocks - reserve.blocks,
        int(fill * part.luts) - reserve.luts,
        part.dsps - reserve.dsps,
        part.sprams - reserve.sprams,
    )


def excess(need: Needs, most: Needs) -> Needs:
    """Return by how much ``need`` is more than ``most``."""
    pairs = zip(astuple(need), astuple(most), strict=True)
    return Needs(*(max(0, wanted - there) for wanted, there in pairs))
