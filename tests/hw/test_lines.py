"""Fewest lines of a window, against trying; the rates are in ``tests/sim/test_window.py``."""

import numpy as np
import pytest

from brambling.hw.beat import Beats
from brambling.hw.lines import Axis, Flow
from brambling.quant.formats import Fixed


def axis(size, kernel, stride=1, pad=0):
    positions = (size + 2 * pad - kernel) // stride + 1
    return Axis(np.arange(positions)[:, None] * stride + np.arange(kernel) - pad, size)


def test_axis_of_a_padded_window():
    rows = axis(4, 3, pad=1)
    assert rows.inside.tolist() == [
        [False, True, True],
        [True] * 3,
        [True] * 3,
        [True, True, False],
    ]
    assert rows.base.tolist() == [0, 0, 1, 2, 4]
    assert rows.need.tolist() == [1, 2, 3, 3]
    assert rows.finished.tolist() == [2, 3, 4, 4]
    assert rows.least == 3


def test_axis_that_skips_lines():
    rows = axis(5, 1, stride=3)
    assert rows.base.tolist() == [0, 3, 5]
    assert rows.finished.tolist() == [1, 1, 1, 2, 2]
    assert rows.least == 1


@pytest.mark.parametrize("slots", [1, 3, 9, 40])
@pytest.mark.parametrize("rows", [axis(6, 3, pad=1), axis(7, 3, stride=2), axis(6, 6), axis(6, 1)])
def test_lines_are_the_fewest_that_flow(rows, slots):
    source = Beats(Fixed(2), 1, 1, rows.size, 5)
    flow = Flow(source=source, down=rows, need_step=np.arange(5), slots=slots, release=4)
    lines = flow.lines()
    assert flow.possible(lines)
    assert flow.possible(lines + 1)
    assert lines == rows.least or not flow.possible(lines - 1)
