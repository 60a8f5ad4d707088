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


@dataclass(frozen=True, slots=True)
class Choice:
    """Stages for the first few engines, and what they need together."""

    needs: Needs
    stages: tuple[Stage, ...] = ()


def foldings(step: Step, limit: int) -> Iterator[Stage]:
    """Yield, for each number of output folds, the narrowest stage of interval ``limit`` or less."""
    if step.engine != "xnor":
        lanes = -(-step.inputs // limit)
        pe = 1 if step.engine == "argmax" else lanes
        yield Stage(layer=step.name, engine=step.engine, pe=pe, simd=lanes)
        return
    seen = set()
    for outs in range(1, min(step.outputs, limit) + 1):
        pe = -(-step.outputs // outs)
        if pe in seen:
            continue
        seen.add(pe)
        outs = -(-step.outputs // pe)
        simd = -(-step.inputs // min(step.inputs, limit // outs))
        levels = "lut" if outs <= SHALLOW else "block"
        yield Stage(layer=step.name, engine=step.engine, pe=pe, simd=simd, levels=levels)


def front(choices: list[Choice]) -> list[Choice]:
    """Keep the choices that no other one beats in both resources."""
    kept: list[Choice] = []
    for choice in sorted(choices, key=lambda c: (c.needs.blocks, c.needs.luts)):
        if not kept or choice.needs.luts < kept[-1].needs.luts:
            kept.append(choice)
    return kept


def choices(chain: tuple[Step, ...], board: Board, limit: int) -> list[Choice]:
    """Pareto front of the ways to fold ``chain`` with an interval of at most ``limit``."""
    merged = [Choice(Needs())]
    for step in chain:
        options = front([
            Choice(needs(step, stage, board.part), (stage,)) for stage in foldings(step, limit)
        ])
        merged = front([
            Choice(a.needs + b.needs, a.stages + b.stages) for a in merged for b in options
        ])
    return merged


def best(chain: tuple[Step, ...], board: Board, limit: int, reserve: Needs) -> Choice | None:
    """Return the choice that fits with the smallest share of the part, if any fits."""
    part = board.part
    most = available(board, reserve)
    fitting = [
        choice
        for choice in choices(chain, board, limit)
        if choice.needs.blocks <= most.blocks and choice.needs.luts <= most.luts
    ]
    return min(
        fitting,
        key=lambda c: c.needs.blocks / part.blocks + c.needs.luts / part.luts,
        default=None,
    )


def available(board: Board, reserve: Needs) -> Needs:
    """What a plan may take of the part, besides ``reserve``."""
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
    reserve: Needs = Needs(),
) -> Plan:
    """Choose the folding of every engine; FIFOs and queues are left at their defaults.

    ``reserve`` is kept free for what is not yet planned. Raises :class:`DoesNotFit` with the numbers, and with what would fit.
    """
    clock_hz = board.clock_hz if clock_hz is None else clock_hz
    if clock_hz < 1:
        raise ConfigError(f"clock must be at least 1 Hz, not {clock_hz}")
    chain = steps(network)
    slowest = max(
        interval(step, Stage(layer=step.name, engine=step.engine, pe=1, simd=1)) for step in chain
    )
    wanted = wanted_interval(goal, clock_hz, slowest)
    smallest = _smallest(chain, board, slowest, reserve)
    if smallest is None:
        raise _refusal(network, board, choices(chain, board, slowest), reserve)
    if wanted is None:
        wanted = smallest
    chosen = best(chain, board, wanted, reserve)
    if chosen is None:
        raise _refusal(
            network,
            board,
            choices(chain, board, wanted),
            reserve,
            f"with goal {goal} ",
            f"the fastest folding that fits has an interval of {smallest} cycles: "
            f"fps={clock_hz / smallest:.0f}",
        )
    return Plan(
        network=network.name,
        board=board.name,
        goal=goal,
        clock_hz=clock_hz,
        stages=chosen.stages,
    )


def _smallest(
    chain: tuple[Step, ...], board: Board, slowest: int, reserve: Needs
) -> int | None:
    """Smallest feasible interval."""
    if best(chain, board, slowest, reserve) is None:
        return None
    low, high = 0, slowest  # `high` is feasible, `low` is not (0 never is).
    while high - low > 1:
        middle = (low + high) // 2
        if best(chain, board, middle, reserve) is None:
            low = middle
        else:
            high = middle
    return high


def _refusal(
    network: Network,
    board: Board,
    options: list[Choice],
    reserve: Needs,
    goal: str = "",
    remedy: str = "no folding fits: choose a larger part or a smaller network",
) -> DoesNotFit:
    most = available(board, reserve)

    def shares(choice: Choice) -> tuple[float, float]:
        return choice.needs.blocks / most.blocks, choice.needs.luts / most.luts

    nearest = min(options, key=lambda choice: max(shares(choice)))
    what = f"{network.name} {goal}".strip()
    if shares(nearest)[0] >= shares(nearest)[1]:
        return DoesNotFit(
            what, board.name, "block RAMs", nearest.needs.blocks, most.blocks, remedy
        )
    resource = f"LUTs ({LUT_SHARE:.0%} of {board.part.luts:,})"
    return DoesNotFit(what, board.name, resource, nearest.needs.luts, most.luts, remedy)
