"""The verbs as functions; each returns a value that can be inspected."""

import os
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

from brambling import zoo
from brambling.boards import wiring
from brambling.boards.memories import Needs
from brambling.boards.parts import Board, find_board
from brambling.boards.solver import available, excess, fold, refusal
from brambling.errors import ConfigError
from brambling.network import Network
from brambling.plan import Plan
from brambling.sim.sizing import size

__all__ = ["load", "plan", "total"]

#: Where the FIFOs of a plan do not fit it is folded again, with so many times as much left free.
ROUNDS = (1, 1, 2, 4, 8)


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
) -> Plan:
    """Fold ``network`` for ``board`` and size its FIFOs.

    Parameters
    ----------
    goal
        ``"max-fps"``, ``"min-area"`` or ``"fps=N"``.
    clock_hz
        Clock; the board's where ``None``.
    progress
        Called with the share of the work that is done.
    """
    if isinstance(board, str):
        board = find_board(board)
    most, reserve, taken = available(board, Needs()), Needs(), Needs()
    for times in ROUNDS:
        folded = fold(network, board, goal, clock_hz, reserve)
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
    )
