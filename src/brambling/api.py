"""The verbs as functions; each returns a value that can be inspected."""

import os
from collections.abc import Callable
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

ROUNDS = 4  #: Times that a plan is folded again because its FIFOs did not fit.


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
    for _ in range(ROUNDS):
        made = size(network, fold(network, board, goal, clock_hz, reserve), progress)
        taken = total(network, made, board)
        over = excess(taken, most)
        if over == Needs():
            return made
        # What FIFOs and queues take is known only now: fold again, leaving room for it.
        reserve += over
    raise refusal(
        f"{network.name} with its FIFOs",
        board,
        taken,
        most,
        "ask for fewer frames a second, goal min-area or fps=N",
    )
