"""The verbs as functions; each returns a value that can be inspected."""

import os
from collections.abc import Callable
from dataclasses import astuple, replace
from math import ceil
from pathlib import Path

from brambling import zoo
from brambling.boards import wiring
from brambling.boards.memories import PER_WORD_OF_LUT, Needs
from brambling.boards.parts import Board, find_board
from brambling.boards.solver import LUT_SHARE, Solver, available, excess, refusal
from brambling.errors import ConfigError
from brambling.hw.accelerator import pipeline
from brambling.network import Network
from brambling.plan import Plan
from brambling.sim.cycles import schedule
from brambling.sim.sizing import size, throughput, unlimited

__all__ = ["LUT_SHARE", "link_needs", "load", "plan", "total"]

#: Where the FIFOs of a plan do not fit it is folded again, with so many times as much left free.
ROUNDS = (1, 1, 2, 4, 8, 16, 32, 64)

NOTHING = Needs()

#: LUTs of the link with a UART, two frames in flight and the self-test, by inputs of a LUT; its
#: frame times, counters and answers do not depend on the network.
LINK_LUTS = {4: 1_800, 6: 1_300}
LINK_BLOCKS = 2  #: Block RAMs of its tickets and results, where they are not in LUTs.
MOST_IN_LUTS = 700  #: LUTs of the self-test's frame; of larger ones beats are not so few.
MOST_LUTS = 0.95  #: Share of the LUTs that plan and link may take together.
IN_FLIGHT = 2  #: Frames that wait in the link at most.


def load(model: str | os.PathLike[str]) -> Network:
    """Return a network of the zoo by name, or read one from a ``.safetensors`` file."""
    text = os.fspath(model)
    if text in zoo.names():
        return zoo.load(text)
    if Path(text).suffix == ".safetensors" or Path(text).exists():
        return Network.load(text)
    raise ConfigError(
        f"a model is a .safetensors file or one of the zoo ({', '.join(zoo.names())}), not {text!r}"
    )


def total(network: Network, plan: Plan, board: Board) -> Needs:
    """Estimate what all engines of a plan take, with all that stands between them."""
    return wiring.total(network, plan, board.part)


def link_needs(network: Network, board: Board, fill: float = LUT_SHARE) -> Needs:
    """Estimate what the link of a board takes: its logic, a buffer of frames, and a self-test.

    Of its LUTs those that do not fit beside a plan that takes the share ``fill``.
    """
    if board.platform is None:
        return NOTHING
    part, tensor = board.part, network.input
    bits = tensor.size * tensor.fmt.width
    size = -(-bits // 8)
    # The frame of the self-test is in block RAM, or, where its beats are few and wide, in LUTs.
    blocks = part.blocks_for(IN_FLIGHT * size, 9) + part.blocks_for(size, 8) + LINK_BLOCKS
    in_luts = min(MOST_IN_LUTS, ceil(PER_WORD_OF_LUT * bits / 2**part.lut_inputs))
    free = max(0, int((MOST_LUTS - fill) * part.luts))
    return Needs(blocks, max(0, LINK_LUTS[part.lut_inputs] + in_luts - free))


def larger(reserve: Needs, unused: Needs, more: Needs) -> Needs:
    """Return what to keep free: ``more`` than was ``unused``, of the resources that lack."""
    rows = zip(*map(astuple, (reserve, unused, more)), strict=True)
    return Needs(*(max(kept, idle + lack) if lack else kept for kept, idle, lack in rows))


def plan(
    network: Network,
    board: str | Board,
    goal: str = "max-fps",
    clock_hz: int | None = None,
    progress: Callable[[float], None] = lambda done: None,
    fill: float = LUT_SHARE,
    beside: Needs = NOTHING,
) -> Plan:
    """Fold ``network`` for ``board`` and size its FIFOs.

    Parameters
    ----------
    goal
        ``"max-fps"``, ``"min-latency"``, ``"min-area"``, ``"fps=N"``, ``"power"`` or ``"power=N"``.
    clock_hz
        Clock; the board's where ``None``. For ``"power"`` the fastest that may be.
    progress
        Called with the share of the work that is done.
    fill
        Share of the part's LUTs that the plan may take, with what is ``beside``.
    beside
        What else is on the part: :func:`link_needs` of what a host speaks to.
    """
    if isinstance(board, str):
        board = find_board(board)
    solver = Solver(network, board, fill)
    made = _planned(solver, goal, clock_hz, progress, beside)
    if made.goal == "min-latency":
        # Where FIFOs and adapters make it no better after all, what is fastest is taken.
        other = _planned(solver, "max-fps", clock_hz, progress, beside)
        if _latency(network, other) < _latency(network, made):
            made = replace(other, goal=goal)
    if goal.startswith("power"):
        made = _paced(solver, made, goal, clock_hz)
    return made


def _planned(
    solver: Solver,
    goal: str,
    clock_hz: int | None,
    progress: Callable[[float], None],
    beside: Needs,
) -> Plan:
    network, board = solver.network, solver.board
    most, reserve, taken = available(board, beside, solver.fill), Needs(), Needs()
    for times in ROUNDS:
        folded = solver.fold(
            goal, clock_hz, beside + reserve, lambda plan: unlimited(network, plan)
        )
        made = size(network, folded, progress)
        taken = total(network, made, board)
        over = excess(taken, most)
        if over == Needs():
            return made
        # What FIFOs and queues take is known only now: fold again, with so much less.
        reserve = larger(reserve, excess(most, total(network, folded, board)), over * times)
    raise refusal(
        f"{network.name} with its FIFOs",
        board,
        taken,
        most,
        "ask for fewer frames a second, goal min-area or fps=N",
        solver.fill,
    )


def _latency(network: Network, plan: Plan) -> int:
    """Cycles from the first beat of a frame to its last result, by the cycle model."""
    return schedule(pipeline(network, plan), 1).latency


def _paced(solver: Solver, plan: Plan, goal: str, clock_hz: int | None) -> Plan:
    """Return a plan with the slowest clock that makes the frames a second, by the cycle model."""
    rate = solver.rate(goal, clock_hz)
    cycles = throughput(solver.network, plan)
    return replace(plan, clock_hz=max(plan.clock_hz, ceil(rate * cycles)))
