"""RequantiseUnit against fractions, its reference and the golden model."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from math import floor

import numpy as np
import pytest

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.requantise import RequantiseSpec, signed_digits
from brambling.layers import Tensor
from brambling.quant.formats import Bipolar, Fixed, Ternary
from brambling.sim.golden import evaluate

SOURCE = Fixed(6)
ROUNDINGS = ["half_up", "half_even", "half_away", "floor"]

#: Parameters by what they need.
CASES = {
    "nothing": {},
    "shift": {"shift": 3},
    "shift beyond the codes": {"shift": 9},
    "relu": {"shift": 2, "low": 0},
    "bias": {"bias": [-7], "shift": 2},
    "biases": {"bias": [-7, 0, 31], "shift": 2},
    "power of two": {"multiplier": [8], "bias": [5], "shift": 4},
    "minus one": {"multiplier": [-1], "shift": 1},
    "one multiplier": {"multiplier": [-23], "shift": 5},
    "one multiplier, biases": {"multiplier": [7], "bias": [1, -2, 3], "shift": 3},
    "multipliers": {"multiplier": [5, -3, 0], "shift": 2},
    "positive multipliers": {"multiplier": [5, 3, 9], "bias": [-4], "shift": 2},
    "gates": {"multiplier": [1, 0, 1], "bias": [3, 2, -1], "shift": 1},
    "both": {"multiplier": [100, -77, 1], "bias": [-999, 0, 5], "shift": 7},
    "zero": {"multiplier": [0], "bias": [0], "shift": 4},
    "leaky": {"slope": (8, 1), "shift": 6},
    "leaky, product": {"multiplier": [9, 5, 3], "bias": [2], "slope": (16, 3), "shift": 6},
    "slope of zero": {"slope": (1, 0), "shift": 2},
    "slopes of many digits": {"slope": (51, -37), "bias": [5, -5, 0], "shift": 8},
    "one slope": {"multiplier": [3], "bias": [1], "slope": (5, 5), "shift": 4},
    "no slope": {"slope": (0, 0), "bias": [3], "shift": 1},
    "common factors": {"multiplier": [12, 4, 8], "bias": [16, 0, -4], "shift": 3},
    "limits": {"shift": 1, "low": -5, "high": 9},
    "positive limits": {"shift": 1, "low": 3, "high": 4},
    "negative limits": {"shift": 1, "low": -8, "high": -2},
    "one result": {"low": 2, "high": 2},
}


def make(i, target, multiplier=(1,), bias=(0,), **options):
    return RequantiseSpec(
        i=i, target=target, multiplier=np.array(multiplier), bias=np.array(bias), **options
    )


def rounded(value, rounding):
    """Round a fraction by what the names say."""
    if rounding == "floor":
        return floor(value)
    if rounding == "half_even":
        return round(value)
    away = rounding == "half_away" and value < 0
    return -floor(-value + Fraction(1, 2)) if away else floor(value + Fraction(1, 2))


def exact(spec, x):
    """Frames ``(n, channels)`` by fractions, one number at a time."""
    low, high = spec.layer.limits
    result = np.zeros(x.shape, np.int64)
    for n, channel in np.ndindex(x.shape):
        multiplier = int(np.broadcast_to(spec.multiplier, spec.i.elements)[channel])
        bias = int(np.broadcast_to(spec.bias, spec.i.elements)[channel])
        value = int(x[n, channel]) * multiplier + bias
        value *= spec.slope[value < 0]
        quotient = rounded(Fraction(value, 1 << spec.shift), spec.rounding)
        result[n, channel] = min(max(quotient, low), high)
    return result


def every_code(fmt, elements=3):
    codes = np.array([-1, 1]) if fmt == Bipolar() else np.arange(fmt.min, fmt.max + 1)
    return np.stack([np.roll(codes, 3 * n) for n in range(elements)], axis=1)


def check(run_component, spec, x, **stalls):
    trace = run_component(spec, x, **stalls)
    seen = spec.o.unpack(trace["output"].payloads)
    assert np.array_equal(seen, spec.reference(x))
    return seen


STYLED = [(case, style) for case in CASES for style in ("dsp", "lut")]
STYLED = [row for row in STYLED if row[1] == "dsp" or "multiplier" in CASES[row[0]]]


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize(("case", "style"), STYLED)
def test_every_code(run_component, case, rounding, style):
    spec = make(Beats(SOURCE, 3, 2), Fixed(5), rounding=rounding, style=style, **CASES[case])
    x = every_code(SOURCE)
    seen = check(run_component, spec, x)
    assert np.array_equal(seen, exact(spec, x))
    assert np.array_equal(seen, evaluate(spec.layer, (Tensor((3,), SOURCE),), x))


@pytest.mark.parametrize(
    "target", [Fixed(3), Fixed(4, signed=False), Fixed(12), Ternary()], ids=str
)
@pytest.mark.parametrize("source", [Bipolar(), Ternary(), Fixed(5, signed=False)], ids=str)
@pytest.mark.parametrize("case", ["nothing", "biases", "multipliers", "leaky", "both"])
def test_formats(run_component, case, source, target):
    spec = make(Beats(source, 3, 2), target, rounding="half_away", **CASES[case])
    x = every_code(source)
    assert np.array_equal(check(run_component, spec, x), exact(spec, x))


@pytest.mark.parametrize("style", ["dsp", "lut"])
@pytest.mark.parametrize("case", ["shift", "biases", "both", "leaky, product"])
def test_images(run_component, stalls, case, style):
    beats = Beats(SOURCE, 3, 2, 2, 3, 2)
    spec = make(beats, Fixed(4), rounding="half_even", style=style, **CASES[case])
    x = np.random.default_rng(6).integers(-32, 32, (3, beats.size))
    check(run_component, spec, x, **stalls)


@pytest.mark.parametrize("style", ["dsp", "lut"])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_reaches_the_ends_of_its_range(run_component, rounding, style):
    extremes = {
        "multiplier": [-(1 << 15), (1 << 15) - 1, 1],
        "bias": [(1 << 43) - 1, -(1 << 43), -1],
        "shift": 24,
        "slope": (7, 3),
    }
    source = Fixed(24)
    spec = make(Beats(source, 3, 3), Fixed(32), rounding=rounding, style=style, **extremes)
    ends = [source.min, source.min + 1, -1, 0, 1, source.max - 1, source.max]
    x = np.repeat(np.array(ends)[:, None], 3, axis=1)
    assert np.array_equal(check(run_component, spec, x), exact(spec, x))


@pytest.mark.parametrize("seed", range(30))
def test_random_parameters(run_component, seed):
    rng = np.random.default_rng(seed)
    source = Fixed(int(rng.integers(2, 9)), signed=bool(rng.integers(2)))
    sizes = rng.choice([1, 5], 2)
    spec = make(
        Beats(source, 5, int(rng.integers(1, 6))),
        Fixed(int(rng.integers(2, 9)), signed=bool(rng.integers(2))),
        multiplier=rng.integers(-300, 300, sizes[0]),
        bias=rng.integers(-5000, 5000, sizes[1]),
        shift=int(rng.integers(0, 12)),
        slope=tuple(rng.integers(-9, 20, 2).tolist()) if seed % 2 else (1, 1),
        rounding=ROUNDINGS[seed % 4],
        style=["dsp", "lut"][seed // 4 % 2],
    )
    x = rng.integers(source.min, source.max + 1, (20, 5))
    assert np.array_equal(check(run_component, spec, x), exact(spec, x))


@pytest.mark.parametrize(
    ("case", "style", "latency"),
    [
        ("nothing", "dsp", 2),
        ("shift", "dsp", 3),
        ("biases", "dsp", 3),
        ("power of two", "lut", 3),
        ("one multiplier", "dsp", 4),
        ("both", "dsp", 4),
        ("both", "lut", 6),
        ("leaky", "dsp", 3),
        ("leaky, product", "dsp", 6),
    ],
)
def test_takes_no_more_edges_than_it_needs(run_component, case, style, latency):
    spec = make(Beats(SOURCE, 3, 2), Fixed(5), style=style, **CASES[case])
    assert spec.latency == latency
    cycles = run_component(spec, every_code(SOURCE))["output"].cycles
    assert set(np.diff(cycles)) == {1}


def test_what_all_constants_share_is_taken_out():
    spec = make(Beats(SOURCE, 3, 2), Fixed(5), **CASES["common factors"])
    rest = spec.arithmetic
    assert (rest.multiplier.tolist(), rest.shift) == ([3, 1, 2], 1)
    assert rest.bias.tolist() == [5, 1, 0]  # With the half that rounds.
    assert not rest.rounds


@pytest.mark.parametrize("value", [0, 1, -1, 7, -23, 51, 170, -(1 << 20) + 1])
def test_signed_digits(value):
    digits = signed_digits(value)
    assert sum(sign << shift for shift, sign in digits) == value
    shifts = [shift for shift, _ in digits]
    assert all(b - a > 1 for a, b in pairwise(shifts))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bias": [1, 2]}, r"bias must be for 1 or all 3 channels, not for 2"),
        ({"multiplier": [1, 2]}, r"multiplier must be for 1 or all 3 channels, not for 2"),
        ({"style": "fast"}, r"style must be one of dsp, lut, not 'fast'"),
        ({"shift": 63}, r"requantise: shift must be 0 to 62, not 63"),
        (
            {"low": 3, "high": 2},
            r"requantise: low and high must lie in -16 to 15 in that order, not 3 and 2",
        ),
    ],
)
def test_rejects_what_the_layer_rejects(options, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        make(Beats(SOURCE, 3, 2), Fixed(5), **options)


def test_one_spec_with_another_queue(run_component, stalls):
    spec = replace(make(Beats(SOURCE, 3, 1), Fixed(5), **CASES["both"]), queue=2)
    check(run_component, spec, every_code(SOURCE)[:20], **stalls)
