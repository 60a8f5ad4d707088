"""The folding solver: how parallel each engine of a chain is.

For a chain of engines the initiation interval is the largest of theirs. An interval is feasible if
every engine has a folding at least as fast, and their needs together fit the part. A larger
interval leaves each engine a larger choice, so feasibility is monotone, and bisection finds the
smallest one. Within an interval the choice is a multiple-choice knapsack of two resources, solved
exactly by merging the engines' Pareto fronts; of the feasible choices the one that takes the
smallest sum of shares of both resources is kept, so that no engine is faster than it must be.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from brambling.boards.parts import Board
from brambling.boards.resources import Needs, interval, needs
from brambling.errors import ConfigError, DoesNotFit
from brambling.network import Network
from brambling.plan import Plan, Stage, Step, steps

__all__ = ["GOALS", "fold"]

GOALS = ("max-fps", "min-area", "fps=N")

#: Share of the LUTs that a plan may take: above, routing gets slow and uncertain.
LUT_SHARE = 0.70
#: Words up to which a memory of levels is cheaper in LUTs.
SHALLOW = 64

NOTHING = Needs()


@dataclass(frozen=True, slots=True)
class Choice:
    """Stages for the first few engines, and what they need together."""

    needs: Needs
    stages: tuple[Stage, ...] = ()


def foldings(step: Step) -> Iterator[Stage]:
    """Yield every way to fold ``step``: for each number of beats and folds the narrowest stage.

    Not only the narrowest that is fast enough: a wider one can need fewer block RAMs, where it
    divides the sizes better or its words suit a block's geometry.
    """
    for simd in narrowest(step.inputs):
        if step.engine != "xnor":
            pe = 1 if step.engine == "argmax" else simd
            yield Stage(layer=step.name, engine=step.engine, pe=pe, simd=simd)
            continue
        for pe in narrowest(step.outputs):
            levels = "lut" if -(-step.outputs // pe) <= SHALLOW else "block"
            yield Stage(layer=step.name, engine=step.engine, pe=pe, simd=simd, levels=levels)


def narrowest(elements: int) -> list[int]:
    """For each number of beats that ``elements`` can be made of, the fewest lanes; ascending."""
    return sorted({-(-elements // beats) for beats in range(1, elements + 1)})


@dataclass(frozen=True, slots=True)
class Options:
    """The ways to fold each engine of a chain, each with its interval, on a board."""

    board: Board
    engines: tuple[tuple[tuple[int, Choice], ...], ...]

    @classmethod
    def of(cls, chain: tuple[Step, ...], board: Board) -> Self:
        return cls(
            board,
            tuple(
                tuple(
                    (interval(step, stage), Choice(needs(step, stage, board.part), (stage,)))
                    for stage in foldings(step)
                )
                for step in chain
            ),
        )

    @property
    def slowest(self) -> int:
        """Interval of the slowest folding of all."""
        return max(interval for engine in self.engines for interval, _ in engine)

    def choices(self, limit: int) -> list[Choice]:
        """Pareto front of the ways to fold the chain with an interval of at most ``limit``."""
        merged = [Choice(Needs())]
        for engine in self.engines:
            options = front([choice for interval, choice in engine if interval <= limit])
            merged = front([
                Choice(a.needs + b.needs, a.stages + b.stages) for a in merged for b in options
            ])
        return merged

    def best(self, limit: int, reserve: Needs) -> Choice | None:
        """Return the choice that fits with the smallest share of the part, if any fits."""
        part = self.board.part
        most = available(self.board, reserve)
        fitting = [
            choice
            for choice in self.choices(limit)
            if choice.needs.blocks <= most.blocks and choice.needs.luts <= most.luts
        ]
        return min(
            fitting,
            key=lambda c: c.needs.blocks / max(part.blocks, 1) + c.needs.luts / part.luts,
            default=None,
        )

    def smallest(self, reserve: Needs) -> int | None:
        """Smallest feasible interval, if any is."""
        if self.best(self.slowest, reserve) is None:
            return None
        low, high = 0, self.slowest  # `high` is feasible, `low` is not (0 never is).
        while high - low > 1:
            middle = (low + high) // 2
            if self.best(middle, reserve) is None:
                low = middle
            else:
                high = middle
        return high


def front(choices: list[Choice]) -> list[Choice]:
    """Keep the choices that no other one beats in both resources."""
    kept: list[Choice] = []
    for choice in sorted(choices, key=lambda c: (c.needs.blocks, c.needs.luts)):
        if not kept or choice.needs.luts < kept[-1].needs.luts:
            kept.append(choice)
    return kept


def available(board: Board, reserve: Needs) -> Needs:
    """Return what a plan may take of the part, besides ``reserve``."""
    part = board.part
    return Needs(part.blocks - reserve.blocks, int(LUT_SHARE * part.luts) - reserve.luts)


def wanted_interval(goal: str, clock_hz: int, slowest: int) -> int | None:
    """Interval that ``goal`` asks for; ``None`` for as small as fits."""
    if goal == "max-fps":
        return None
    if goal == "min-area":
        return slowest
    match = re.fullmatch(r"fps=(\d+(?:\.\d+)?(?:e\d+)?)", goal)
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"goal must be one of {', '.join(GOALS)}, not {goal!r}")
    if float(match[1]) > clock_hz:
        raise ConfigError(
            f"goal {goal}: at {clock_hz / 1e6:g} MHz at most {clock_hz} frames a second "
            f"are possible, not {match[1]}"
        )
    return min(slowest, int(clock_hz / float(match[1])))


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
    options = Options.of(steps(network), board)
    wanted = wanted_interval(goal, clock_hz, options.slowest)
    smallest = options.smallest(reserve)
    if smallest is None:
        raise _refusal(network, options, options.slowest, reserve)
    if wanted is None:
        wanted = smallest
    chosen = options.best(wanted, reserve)
    if chosen is None:
        raise _refusal(
            network,
            options,
            wanted,
            reserve,
            f"with goal {goal} ",
            f"the fastest folding that fits has an interval of {smallest} cycles: "
            f"fps={clock_hz // smallest}",
        )
    return Plan(
        network=network.name,
        board=board.name,
        goal=goal,
        clock_hz=clock_hz,
        stages=chosen.stages,
    )


def _refusal(
    network: Network,
    options: Options,
    limit: int,
    reserve: Needs,
    goal: str = "",
    remedy: str = "no folding fits: choose a larger part or a smaller network",
) -> DoesNotFit:
    board = options.board
    most = available(board, reserve)

    def shares(choice: Choice) -> tuple[float, float]:
        return choice.needs.blocks / max(most.blocks, 1), choice.needs.luts / max(most.luts, 1)

    nearest = min(options.choices(limit), key=lambda choice: max(shares(choice)))
    what = f"{network.name} {goal}".strip()
    if shares(nearest)[0] >= shares(nearest)[1]:
        return DoesNotFit(what, board.name, "block RAMs", nearest.needs.blocks, most.blocks, remedy)
    resource = f"LUTs ({LUT_SHARE:.0%} of {board.part.luts:,})"
    return DoesNotFit(what, board.name, resource, nearest.needs.luts, most.luts, remedy)
