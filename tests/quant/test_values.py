"""The oracle for levels is ``Norm.fires``, which has its own (see test_export)."""

from dataclasses import replace
from fractions import Fraction
from math import inf

import numpy as np
import pytest

from brambling.network import Tensor
from brambling.quant.formats import Bipolar, Fixed

pytest.importorskip("torch")
values = pytest.importorskip("brambling.quant.values")
Norm = pytest.importorskip("brambling.quant.export").Norm
Value = values.Value


def norms(seed, count):
    """Random channels, dyadic as floats are; some pass through a code exactly."""
    source = np.random.default_rng(seed)
    for _ in range(count):
        gain, bias, mean = (
            Fraction(float(np.float32(part))) for part in source.normal(0, [1, 1, 5])
        )
        variance = Fraction(float(np.float32(10 ** source.uniform(-2, 2))))
        if not source.integers(3):  # a root that is rational
            variance = Fraction(int(source.integers(1, 9)), 4) ** 2
            gain, bias = Fraction(int(source.integers(-3, 4)), 2), Fraction(bias.numerator % 7)
            mean = Fraction(int(source.integers(-6, 7)))
        yield Norm(gain, bias, mean, variance)


PLACES = [Fraction(k, 2) for k in range(-3, 4)]


@pytest.mark.parametrize("step", [1, 2])
def test_levels_are_the_first_integers_that_reach(step):
    for norm in norms(1, 300):
        span = range(-13, 14, step)
        row = values.row_of(norm, span, PLACES)
        for place, level in zip(PLACES, row, strict=True):
            expected, _ = replace(norm, bias=norm.bias - place).level(span)
            assert level == expected, (norm, place)


@pytest.mark.parametrize("gain", [1, -1])
def test_roots_between_integers(gain):
    norm = Norm(*map(Fraction, (gain, 0, 0, 2)))  # x / sqrt(2)
    row = values.row_of(norm, range(-9, 10), [Fraction(k) for k in (-3, -1, 0, 1, 2, 3)])
    assert [gain * x for x in row] == [-4, -1, 0, 2, 3, 5]


def test_each_channel_has_its_row():
    pair = [Norm(*map(Fraction, row)) for row in ((2, 0, 0, 1), (-1, 1, 0, 4))]
    x = Value.codes("x", Tensor((2,), Fixed(4)), pair)
    levels, falling = x.levels([Fraction(1), Fraction(3)])
    # 2 x >= 1, 3; -x / 2 + 1 >= 1, 3
    assert levels.tolist() == [[1, 2], [0, -4]]
    assert falling.tolist() == [False, True]


def test_levels_stay_within_what_can_occur():
    x = Value.codes("x", Tensor((1,), Fixed(4)), [values.linear(Fraction(1))])
    levels, _ = x.levels([Fraction(-100), Fraction(7), Fraction(100)])
    assert levels.tolist() == [[-8, 7, 8]]


def test_bipolar_values_are_two_apart():
    x = Value.codes("x", Tensor((1,), Bipolar()), [values.linear(Fraction(1))])
    assert x.spans() == [range(-1, 2, 2)]
    assert x.levels([Fraction(0)])[0].tolist() == [[1]]


@pytest.mark.parametrize(
    ("bend", "function"),
    [
        (values.ramp, lambda x: max(x, 0)),
        (values.clip(Fraction(-1), Fraction(2)), lambda x: min(max(x, -1), 2)),
        (values.leak(Fraction(1, 4)), lambda x: x if x >= 0 else x / 4),
    ],
    ids=["ramp", "clip", "leak"],
)
def test_bends_are_the_first_arguments_that_reach(bend, function):
    grid = [Fraction(k, 16) for k in range(-200, 201)]
    for place in [Fraction(k, 4) for k in range(-12, 13)]:
        reaching = [x for x in grid if function(x) >= place]
        expected = inf if not reaching else -inf if reaching[0] == grid[0] else reaching[0]
        assert bend(place) == expected


def test_bends_apply_in_order():
    half = replace(
        Value.codes("x", Tensor((1,), Fixed(8)), [values.linear(Fraction(1))]),
        bends=(values.leak(Fraction(1, 2)), values.clip(Fraction(-3), Fraction(3))),
    )
    levels, _ = half.levels([Fraction(-4), Fraction(-2), Fraction(3), Fraction(4)])
    assert levels.tolist() == [[-128, -4, 3, 128]]


def test_negated_means_the_same():
    for norm in norms(3, 50):
        x = Value.codes("x", Tensor((1,), Fixed(4)), [norm])
        turned = x.negated(np.array([True]))
        (row,), (span,) = turned.norms, turned.spans()
        assert span == range(-7, 9)
        for n in range(-7, 8):
            assert row.fires(-n) == norm.fires(n)
