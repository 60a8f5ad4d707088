"""Large single-port RAM: which plans can have weights there."""

from brambling.boards.parts import PARTS, Board
from brambling.errors import ConfigError
from brambling.plan import Plan

__all__ = ["check"]


def check(plan: Plan, board: Board) -> None:
    """Raise :class:`ConfigError` where ``plan`` has weights in SPRAM and ``board``'s part has none.

    How many blocks they take is part of what a plan needs, see
    :func:`brambling.boards.memories.rom`.
    """
    if board.part.spram_bits:
        return
    for stage in plan.stages:
        if stage.weights == "spram":
            able = ", ".join(part.name for part in PARTS.values() if part.spram_bits)
            raise ConfigError(
                f"{stage.layer}: weights can be in SPRAM on {able}, not on {board.part.name} of "
                f"{board.name}: use 'block' or 'lut'"
            )
