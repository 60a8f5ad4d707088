"""Roundings to integers, by where they step.

==========  =============================  ==========
rounding    to                             QONNX
==========  =============================  ==========
half_up     nearest, halves to +infinity   none
half_even   nearest, halves to even        ROUND
half_away   nearest, halves away from 0    HALF_UP
half_zero   nearest, halves towards 0      HALF_DOWN
floor       the integer below              FLOOR
ceil        the integer above              CEIL
away        away from 0                    UP
zero        towards 0                      DOWN
==========  =============================  ==========

The column QONNX has its names for the attribute ``rounding_mode``.
"""

from fractions import Fraction
from math import ceil, floor

from brambling.quant.norms import Reach

__all__ = ["QONNX", "ROUNDINGS", "reach_of", "rounded"]

#: QONNX's names, in capitals.
QONNX = {
    "ROUND": "half_even",
    "HALF_EVEN": "half_even",
    "HALF_UP": "half_away",
    "HALF_DOWN": "half_zero",
    "FLOOR": "floor",
    "CEIL": "ceil",
    "UP": "away",
    "DOWN": "zero",
}
ROUNDINGS = ("half_up", *dict.fromkeys(QONNX.values()))
HALF = Fraction(1, 2)


def reach_of(code: int, rounding: str) -> Reach:
    """Return what a number must reach so that it is rounded to ``code`` or above."""
    half = code - HALF
    match rounding:
        case "half_up":
            return Reach(half)
        case "half_even":
            return Reach(half, code % 2 == 1)
        case "half_away":
            return Reach(half, code <= 0)
        case "half_zero":
            return Reach(half, code >= 1)
        case "floor":
            return Reach(Fraction(code))
        case "ceil":
            return Reach(Fraction(code - 1), True)
        case "away":
            return Reach(Fraction(code - 1), True) if code >= 1 else Reach(Fraction(code))
        case "zero":
            return Reach(Fraction(code)) if code >= 1 else Reach(Fraction(code - 1), True)
    raise ValueError(rounding)


def rounded(value: Fraction, rounding: str) -> int:
    """Round a number."""
    above = ceil(value)
    return above if reach_of(above, rounding).holds(value) else floor(value)
