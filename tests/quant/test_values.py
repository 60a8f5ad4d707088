"""The oracle for levels is ``Norm.fires``, which has its own (see test_export)."""

from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from brambling.network import Tensor
from brambling.quant.formats import Bipolar, Fixed
from brambling.quant.norms import Affine, Norm, Reach, clip, leak, linear, ramp, root, row_of
from brambling.quant.values import Value


def reaching(*places):
    return [[Reach(place) for place in places]]


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
        row = row_of(norm, span, [Reach(place) for place in PLACES])
        for place, level in zip(PLACES, row, strict=True):
            expected, _ = replace(norm, bias=norm.bias - place).level(span)
            assert level == expected, (norm, place)


@pytest.mark.parametrize("gain", [1, -1])
def test_roots_between_integers(gain):
    norm = Norm(*map(Fraction, (gain, 0, 0, 2)))  # x / sqrt(2)
    row = row_of(norm, range(-9, 10), [Reach(Fraction(k)) for k in (-3, -1, 0, 1, 2, 3)])
    assert [gain * x for x in row] == [-4, -1, 0, 2, 3, 5]


def test_each_channel_has_its_row():
    pair = [Norm(*map(Fraction, row)) for row in ((2, 0, 0, 1), (-1, 1, 0, 4))]
    x = Value.codes("x", Tensor((2,), Fixed(4)), pair)
    levels, falling = x.levels(reaching(Fraction(1), Fraction(3)))
    # 2 x >= 1, 3; -x / 2 + 1 >= 1, 3
    assert levels.tolist() == [[1, 2], [0, -4]]
    assert falling.tolist() == [False, True]


def test_levels_stay_within_what_can_occur():
    x = Value.codes("x", Tensor((1,), Fixed(4)), [linear(Fraction(1))])
    levels, _ = x.levels(reaching(Fraction(-100), Fraction(7), Fraction(100)))
    assert levels.tolist() == [[-8, 7, 8]]


def test_bipolar_values_are_two_apart():
    x = Value.codes("x", Tensor((1,), Bipolar()), [linear(Fraction(1))])
    assert x.spans() == [range(-1, 2, 2)]
    assert x.levels(reaching(Fraction(0)))[0].tolist() == [[1]]


BENDS = {
    "ramp": (ramp, lambda x: max(x, 0)),
    "clip": (clip(Fraction(-1), Fraction(2)), lambda x: min(max(x, -1), 2)),
    "leak": (leak(Fraction(1, 4)), lambda x: x if x >= 0 else x / 4),
    "rising": (Affine((Fraction(3, 2),), (Fraction(1),)), lambda x: x * 3 / 2 + 1),
    "falling": (Affine((Fraction(-1, 2),), (Fraction(1),)), lambda x: 1 - x / 2),
    "constant": (Affine((Fraction(0),), (Fraction(1),)), lambda x: Fraction(1)),
}


@pytest.mark.parametrize("name", BENDS)
def test_bends_turn_questions_about_results_into_questions_about_arguments(name):
    bend, function = BENDS[name]
    grid = [Fraction(k, 16) for k in range(-200, 201)]
    for k, strict, above in product(range(-12, 13), (False, True), (False, True)):
        asked = Reach(Fraction(k, 4), strict, above)
        turned = bend(asked, 0)
        assert [turned.holds(x) for x in grid] == [asked.holds(function(x)) for x in grid]
        for certain in (asked.always, asked.never):
            answers = {bend(certain, 0).holds(x) for x in grid}
            assert answers == {certain == asked.always}


@pytest.mark.parametrize(("strict", "above"), list(product((False, True), (False, True))))
def test_levels_of_every_kind_of_question(strict, above):
    """Channels whose roots are fractions pass through the value itself at some integers."""
    places = [Reach(place, strict, above) for place in PLACES]
    for norm in norms(2, 300):
        span = range(-13, 14)
        row = row_of(norm, span, places)
        rising = (norm.gain >= 0) == above
        for reach, level in zip(places, row, strict=True):
            for x in span:
                at_least = replace(norm, bias=norm.bias - reach.value).fires(x)
                negative = replace(norm, gain=-norm.gain, bias=reach.value - norm.bias)
                at_most = negative.fires(x)
                yes = {
                    (False, True): at_least,
                    (True, True): not at_most,
                    (False, False): at_most,
                    (True, False): not at_least,
                }[strict, above]
                assert yes == (x >= level if rising else x <= level), (norm, reach, x)


def test_roots_are_exact_or_far_closer_than_float32_can_tell():
    assert root(Fraction(9, 16)) == Fraction(3, 4)
    near = root(Fraction(2, 3))
    assert 0 < Fraction(2, 3) - near * near < Fraction(1, 1 << 1000)


def test_bends_apply_in_order():
    half = replace(
        Value.codes("x", Tensor((1,), Fixed(8)), [linear(Fraction(1))]),
        bends=(leak(Fraction(1, 2)), clip(Fraction(-3), Fraction(3))),
    )
    levels, _ = half.levels(reaching(Fraction(-4), Fraction(-2), Fraction(3), Fraction(4)))
    assert levels.tolist() == [[-128, -4, 3, 128]]


def test_negated_means_the_same():
    for norm in norms(3, 50):
        x = Value.codes("x", Tensor((1,), Fixed(4)), [norm])
        turned = x.negated(np.array([True]))
        (row,), (span,) = turned.norms, turned.spans()
        assert span == range(-7, 9)
        for n in range(-7, 8):
            assert row.fires(-n) == norm.fires(n)
