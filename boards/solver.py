"""The folding solver: how parallel each engine of a network is.

The initiation interval of an accelerator is the largest of its engines'. An interval is feasible if
every engine has a folding at least as fast, and their needs together fit the part. A larger
interval leaves each engine a larger choice, so feasibility is monotone, and bisection finds the
smallest one. Within an interval the choice is a multiple-choice knapsack of three resources, solved
exactly; of the feasible choices the one that takes the smallest sum of shares of the resources is
kept, so that no engine is faster than it must be.

Engines take as many pixels at a time as the engine before makes, unless they have a line buffer or
read an image as a vector; so all that hang together without one choose their pixels together. What
regroups lanes between two engines is not part of the choice.
"""

import re
from dataclasses import astuple, dataclass
from typing import Self

import numpy as np

from brambling.boards.choices import Choices, pixel_counts, shape_of
from brambling.boards.knapsack import Items, Knapsack
from brambling.boards.parts import Board
from brambling.boards.polish import Polish
from brambling.boards.resources import Needs
from brambling.boards.wiring import families, links
from brambling.errors import ConfigError, DoesNotFit
from brambling.network import Network
from brambling.plan import Plan, Stage, Step, steps

__all__ = ["GOALS", "LUT_SHARE", "available", "excess", "fold", "refusal"]

GOALS = ("max-fps", "min-area", "fps=N")

#: Share of the LUTs that a plan may take: above, routing gets slow and uncertain.
LUT_SHARE = 0.70

NEAREST = 7  #: Bisections for the numbers of a refusal.

#: Where adapters do not fit, a network is folded again, with so many times as much left free.
ROUNDS = (1, 1, 2, 4, 8, 16, 32, 64)
#: In the solver itself: up to all there is, since a little less free can lead to the same stages.
MORE_ROUNDS = tuple(1 << n for n in range(7, 20))

NOTHING = Needs()


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

    def within(self, limit: int) -> Self:
        """Return what is left with an interval of at most ``limit``."""
        return type(self)(
            self.members,
            [[choices.within(limit) for choices in variant] for variant in self.variants],
        )

    @property
    def items(self) -> list[list[Items]]:
        return [[choices.rows[:, 1:] for choices in variant] for variant in self.variants]


@dataclass(frozen=True, slots=True)
class Options:
    """The ways to fold each engine of a network, on a board."""

    board: Board
    chain: tuple[Step, ...]
    families: tuple[Family, ...]
    polish: Polish

    @classmethod
    def of(cls, network: Network, board: Board) -> Self:
        chain = steps(network)
        joined = links(network, chain)
        flat = {link.source for link in joined if link.flat}
        readers = [link.reader for link in joined if link.source < 0]
        # A line buffer at the input takes a pixel at a time, and so do those that read with it.
        single = {n for n in readers if any(chain[k].window for k in readers)}
        first = next(link for link in joined if link.source < 0)
        images = {first.reader: first.tensor} if first.flat else {}
        known: dict[object, tuple[Choices, Choices]] = {}

        def choices(n: int, pixels: int) -> tuple[Choices, Choices]:
            key = shape_of(chain[n]), pixels, n in flat, n in images
            if key not in known:
                every = Choices.of(chain[n], board.part, pixels, n in flat, images.get(n))
                known[key] = every, every.best()
            return known[key]

        found = []
        for members in families(chain, joined):
            counts = pixel_counts(chain[members[0]].positions[1])
            if any(n in single and chain[n].window is None for n in members):
                counts = [1]
            found.append(Family(members, [[choices(n, k)[1] for n in members] for k in counts]))
        part = board.part
        prices = 1 / max(part.blocks, 1), 1 / part.luts, 1 / max(part.dsps, 1)
        polish = Polish(chain, joined, part, lambda n, pixels: choices(n, pixels)[0], prices)
        return cls(board, chain, tuple(found), polish)

    @property
    def fastest(self) -> int:
        """Smallest interval that any choice has, however large."""
        return max(
            min(max(int(c.rows[:, 0].min()) for c in variant) for variant in family.variants)
            for family in self.families
        )

    @property
    def intervals(self) -> list[int]:
        """Intervals of all foldings, ascending."""
        every = [
            choices.rows[:, 0]
            for family in self.families
            for variant in family.variants
            for choices in variant
        ]
        return np.unique(np.concatenate(every)).tolist()

    def within(self, limit: int) -> tuple[Family, ...]:
        """Ways with an interval of at most ``limit``."""
        return tuple(family.within(limit) for family in self.families)

    def best(self, limit: int, reserve: Needs) -> tuple[Stage, ...] | None:
        """Return the stages that fit with the smallest share of the part, if any do."""
        left, knapsack = self.within(limit), Knapsack(available(self.board, reserve))
        chosen = knapsack.best([family.items for family in left], self.polish.prices)
        if chosen is None:
            return None
        return self._stages(left, chosen)

    def _stages(
        self, left: tuple[Family, ...], chosen: list[tuple[int, list[int]]]
    ) -> tuple[Stage, ...]:
        found = {}
        for family, (variant, ways) in zip(left, chosen, strict=True):
            for n, choices, way in zip(family.members, family.variants[variant], ways, strict=True):
                found[n] = choices.stage(way, self.chain[n])
        return tuple(found[n] for n in range(len(self.chain)))

    def smallest(self, reserve: Needs) -> int | None:
        """Smallest feasible interval, if any is."""
        knapsack = Knapsack(available(self.board, reserve))

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

    def fit(self, wanted: int | None, reserve: Needs) -> tuple[Stage, ...] | Needs:
        """Return stages that fit with their adapters; where none do, about what is needed.

        ``wanted`` is the largest interval, ``None`` as small as fits.
        """
        most = available(self.board, reserve)
        for times in (*ROUNDS, *MORE_ROUNDS):
            limit = self.smallest(reserve) if wanted is None else wanted
            chosen = None if limit is None else self.best(limit, reserve)
            if limit is None or chosen is None:
                break
            stages = self.polish.run(chosen, limit, most)
            taken = self.polish.total(stages)
            over = excess(taken, most)
            if over == NOTHING:
                return stages
            # What adapters take is known only now: fold again, leaving room for it.
            reserve += over * times
        return self.nearest(self.intervals[-1] if wanted is None else wanted, most)

    def nearest(self, limit: int, most: Needs) -> Needs:
        """Return about the least that is needed where nothing fits, by its largest share.

        Found on parts some times as large; multipliers and block RAMs are counted in pieces as many
        times as large, rounded.
        """
        left = self.within(limit)
        most = Needs(max(most.blocks, 1), max(most.luts, 1), max(most.dsps, 0))

        def choice(times: float) -> list[tuple[int, list[int]]] | None:
            pieces = np.array([times, 1, times])
            families = [
                [[np.round(rows / pieces).astype(np.int64) for rows in v] for v in family.items]
                for family in left
            ]
            knapsack = Knapsack(Needs(most.blocks, int(most.luts * times), most.dsps))
            return knapsack.best(families, (1 / most.blocks, 1 / most.luts / times, 1.0))

        low, high = 1.0, 2.0
        while (chosen := choice(high)) is None:
            low, high = high, 2 * high
        for _ in range(NEAREST):
            middle = (low + high) / 2
            found = choice(middle)
            low, high = (middle, high) if found is None else (low, middle)
            chosen = found or chosen
        return self.polish.total(self._stages(left, chosen))


def available(board: Board, reserve: Needs) -> Needs:
    """Return what a plan may take of the part, besides ``reserve``."""
    part = board.part
    luts = int(LUT_SHARE * part.luts)
    return Needs(part.blocks - reserve.blocks, luts - reserve.luts, part.dsps - reserve.dsps)


def excess(need: Needs, most: Needs) -> Needs:
    """Return by how much ``need`` is more than ``most``."""
    pairs = zip(astuple(need), astuple(most), strict=True)
    return Needs(*(max(0, wanted - there) for wanted, there in pairs))


def wanted_interval(goal: str, clock_hz: int, options: Options) -> int | None:
    """Interval that ``goal`` asks for; ``None`` for as small as fits."""
    if goal == "max-fps":
        return None
    slowest = options.intervals[-1]
    if goal == "min-area":
        return slowest
    match = re.fullmatch(r"fps=(\d+(?:\.\d+)?(?:e\d+)?)", goal)
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"goal must be one of {', '.join(GOALS)}, not {goal!r}")
    if float(match[1]) * options.fastest > clock_hz:
        raise _too_fast(goal, clock_hz, options.fastest)
    return min(slowest, int(clock_hz / float(match[1])))


def _too_fast(goal: str, clock_hz: int, cycles: int) -> ConfigError:
    return ConfigError(
        f"goal {goal}: at {clock_hz / 1e6:g} MHz at most {clock_hz // cycles} frames "
        f"a second are possible, not {goal.removeprefix('fps=')}"
    )


def fold(
    network: Network,
    board: Board,
    goal: str,
    clock_hz: int | None = None,
    reserve: Needs = NOTHING,
) -> Plan:
    """Choose the folding of every engine; FIFOs and queues are left at their defaults.

    ``reserve`` is kept free for what is not yet planned. Raises :class:`DoesNotFit` with the
    numbers, and with what would fit.
    """
    clock_hz = board.clock_hz if clock_hz is None else clock_hz
    if clock_hz < 1:
        raise ConfigError(f"clock must be at least 1 Hz, not {clock_hz}")
    options = Options.of(network, board)
    wanted = wanted_interval(goal, clock_hz, options)
    found = options.fit(wanted, reserve)
    if goal.startswith("fps") and wanted is not None:
        found = _hastened(options, found, wanted, reserve)
        cycles = 0 if isinstance(found, Needs) else options.polish.slowest(found)
        if cycles > wanted:
            raise _too_fast(goal, clock_hz, cycles)
    if isinstance(found, Needs):
        raise _no_fit(network, options, goal, clock_hz, reserve, found)
    return Plan(network=network.name, board=board.name, goal=goal, clock_hz=clock_hz, stages=found)


def _hastened(
    options: Options, found: tuple[Stage, ...] | Needs, wanted: int, reserve: Needs
) -> tuple[Stage, ...] | Needs:
    """Fold with shorter intervals until adapters too, known only afterwards, keep the one wanted.

    Lanes that do not divide each other can cost an adapter a cycle more than the engines.
    """
    limit = wanted
    while limit > options.fastest and not isinstance(found, Needs):
        cycles = options.polish.slowest(found)
        if cycles <= wanted:
            break
        limit = max(options.fastest, min(limit - 1, limit * wanted // cycles))
        found = options.fit(limit, reserve)
    return found


def _no_fit(
    network: Network, options: Options, goal: str, clock_hz: int, reserve: Needs, need: Needs
) -> DoesNotFit:
    """Say what is exceeded, and name the fastest that fits where there is one."""
    board, most = options.board, available(options.board, reserve)
    what, remedy = network.name, "no folding fits: choose a larger part or a smaller network"
    if goal.startswith("fps"):
        fastest = options.fit(None, reserve)
        if isinstance(fastest, Needs):
            need = fastest
        else:
            cycles = options.polish.slowest(fastest)
            what += f" with goal {goal}"
            remedy = (
                f"the fastest folding that fits has an interval of {cycles} cycles: "
                f"fps={clock_hz // cycles}"
            )
    return refusal(what, board, need, most, remedy)


def refusal(what: str, board: Board, need: Needs, most: Needs, remedy: str) -> DoesNotFit:
    """Say of which resource by far too much is needed."""
    names = ("block RAMs", f"LUTs ({LUT_SHARE:.0%} of {board.part.luts:,})", "multipliers")
    rows = [*zip(names, astuple(need), astuple(most), strict=True)]
    return DoesNotFit(what, board.name, *max(rows, key=lambda row: row[1] / max(row[2], 1)), remedy)
