"""Roundings by their steps, beside NumPy's and Python's own."""

from fractions import Fraction
from math import ceil, floor, trunc

import numpy as np
import pytest

from brambling import origin
from brambling.quant.rounding import QONNX, ROUNDINGS, reach_of, rounded

QUARTERS = [Fraction(n, 4) for n in range(-21, 22)]
KNOWN = {
    "half_even": round,
    "half_up": lambda x: floor(x + Fraction(1, 2)),
    "floor": floor,
    "ceil": ceil,
    "zero": trunc,
    "away": lambda x: ceil(x) if x > 0 else floor(x),
    "half_away": lambda x: floor(x + Fraction(1, 2)) if x > 0 else ceil(x - Fraction(1, 2)),
    "half_zero": lambda x: ceil(x - Fraction(1, 2)) if x > 0 else floor(x + Fraction(1, 2)),
}


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_numbers_and_arrays(rounding):
    expected = [KNOWN[rounding](x) for x in QUARTERS]
    assert [rounded(x, rounding) for x in QUARTERS] == expected
    floats = np.array([float(x) for x in QUARTERS], np.float32)
    assert origin.rounded(floats, rounding).astype(int).tolist() == expected


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_step_is_where_the_result_changes(rounding):
    for code in range(-4, 5):
        reach = reach_of(code, rounding)
        assert [reach.holds(x) for x in QUARTERS] == [KNOWN[rounding](x) >= code for x in QUARTERS]


def test_every_rounding_of_qonnx_is_there():
    assert set(QONNX.values()) <= set(KNOWN) == set(ROUNDINGS)
    with pytest.raises(ValueError, match="nearest"):
        reach_of(1, "nearest")
