"""Every form is compared with the definition of levels, at every integer that can occur."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from brambling.network import Network, Requantise, Table, Tensor, Thresholds
from brambling.quant import forms as typed_forms
from brambling.quant import values
from brambling.quant.formats import Bipolar, Fixed
from brambling.quant.norms import Norm, Reach
from brambling.sim import golden

forms: Any = typed_forms  # Its functions may return None, which fails a test anyway.
U4, S5 = Fixed(4, 0, signed=False), Fixed(5)


def steps(norms, width, fmt, least=None, span=None):
    """Activation that rounds the channels' values to codes of ``fmt``."""
    x = Tensor((len(norms),), Fixed(width))
    value = values.Value.codes("input", x, norms)
    low, high = span or (x.fmt.min, x.fmt.max)
    value.low[:], value.high[:] = low, high
    least = fmt.min if least is None else least
    places = [Fraction(2 * code - 1, 2) for code in range(least + 1, fmt.max + 1)]
    places = [Fraction(0)] if fmt == Bipolar() else places
    levels, falling = value.levels([[Reach(place) for place in places]])
    bounds = (np.full(len(norms), edge) for edge in (low, high))
    slopes = np.array([float(n.gain) / float(n.variance) ** 0.5 for n in norms])
    return forms.Steps(x, *bounds, levels, falling, slopes, least, fmt)


def expected(found, x):
    """Codes by counting the levels that are reached, ``(integers, channels)``."""
    x = x[:, np.newaxis, np.newaxis]
    reached = np.where(found.falling[:, np.newaxis], x <= found.levels, x >= found.levels)
    counts = reached.sum(axis=2)
    return 2 * counts - 1 if found.fmt == Bipolar() else found.least + counts


def is_exact(layer, found):
    """Whether ``layer`` gives the codes of ``found`` wherever an integer can occur."""
    x = np.arange(found.low[0], found.high[0] + 1)
    network = Network("one", found.x, (layer,))
    frames = np.repeat(x[:, np.newaxis], found.x.size, axis=1)
    assert np.array_equal(golden.run(network, frames)["act"], expected(found, x))


def line(gain: Fraction | int, bias: Fraction | int = 0):
    return Norm(Fraction(gain), Fraction(bias), Fraction(0), Fraction(1))


def random_norms(seed, channels, slope):
    source = np.random.default_rng(seed)
    return [
        Norm(*(Fraction(float(part)) for part in (g, b, m, v)))
        for g, b, m, v in zip(
            source.normal(0, slope, channels),
            source.normal(0, 3, channels),
            source.normal(0, 20, channels),
            source.uniform(0.5, 2, channels),
            strict=True,
        )
    ]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("fmt", [Bipolar(), Fixed(1, 0, signed=False), U4, S5, Fixed(8)], ids=str)
def test_every_form_is_exact(fmt, seed):
    found = steps(random_norms(seed, 5, 0.2), 10, fmt)
    every = list(forms.exact_forms("act", "input", found))
    assert {type(layer) for layer in every} >= {Thresholds}
    assert len(every) == (1 if fmt == Bipolar() else 2)
    for layer in every:
        is_exact(layer, found)


@pytest.mark.parametrize("fmt", [U4, S5], ids=str)
def test_codes_below_the_least_do_not_occur(fmt):
    found = steps(random_norms(5, 4, 0.2), 9, fmt, least=max(0, fmt.min) + 2)
    for layer in forms.exact_forms("act", "input", found):
        is_exact(layer, found)


def test_few_codes_that_occur_allow_few_bits():
    narrow = steps([line(Fraction(1, 3), Fraction(1, 7))], 12, S5, span=(-9, 9))
    wide = steps([line(Fraction(1, 3), Fraction(1, 7))], 12, S5)
    layers = [forms.requantise("act", "input", found) for found in (narrow, wide)]
    is_exact(layers[0], narrow)
    is_exact(layers[1], wide)
    assert layers[0].shift < layers[1].shift


@pytest.mark.parametrize("shift", [0, 1, 5])
@pytest.mark.parametrize("bias", [0, 7])
def test_powers_of_two_need_only_a_shift(shift, bias):
    scale = Fraction(1, 1 << shift)
    found = steps([line(scale, bias * scale)] * 3, 12, U4)
    layer = forms.smallest("act", "input", found)
    assert isinstance(layer, Requantise)
    assert (layer.multiplier.tolist(), layer.bias.tolist(), layer.shift) == ([1], [bias], shift)
    is_exact(layer, found)


def test_channels_without_gain_are_constant():
    found = steps([line(0, 3), line(0, -3), line(0, 99)], 6, U4)
    layer = forms.requantise("act", "input", found)
    assert layer.multiplier.tolist() == [0]
    is_exact(layer, found)


def test_levels_of_no_line_are_thresholds():
    found = steps([line(Fraction(1, 4))] * 2, 8, U4)
    found.levels[1, 3] -= 2
    layer = forms.smallest("act", "input", found)
    assert forms.requantise("act", "input", found) is None
    assert isinstance(layer, Thresholds)
    is_exact(layer, found)


def test_many_levels_of_no_line_are_a_table():
    found = steps([line(Fraction(1, 4))] * 3, 8, Fixed(6))
    found.levels[:, 30] -= 2
    assert isinstance(forms.smallest("act", "input", found), Table)
    for layer in forms.exact_forms("act", "input", found):
        is_exact(layer, found)


def test_one_level_is_thresholds():
    found = steps(random_norms(1, 4, 0.1), 10, Fixed(1, 0, signed=False))
    assert isinstance(forms.smallest("act", "input", found), Thresholds)


def test_many_codes_are_no_thresholds():
    found = steps(random_norms(2, 6, 0.5), 12, Fixed(8))
    assert isinstance(forms.smallest("act", "input", found), Requantise)


def test_alike_channels_share_a_row():
    found = steps([line(Fraction(1, 3), 1)] * 4, 8, U4)
    layer = forms.thresholds("act", "input", found)
    assert len(layer.levels) == len(layer.falling) == 1
    layer = forms.requantise("act", "input", found)
    assert len(layer.multiplier) == len(layer.bias) == 1


def test_every_second_integer_allows_fewer_bits():
    norm = line(Fraction(3, 17), Fraction(1, 9))
    x = Tensor((1,), Fixed(9))
    value = values.Value("input", x, (norm,), np.array([-200]), np.array([200]), 2)
    levels, falling = value.levels([[Reach(Fraction(2 * k - 1, 2)) for k in range(1, 16)]])
    found = forms.Steps(x, value.low, value.high, levels, falling, np.array([3 / 17]), 0, U4, 2)
    layer = forms.requantise("act", "input", found)
    codes = np.arange(-200, 201, 2)
    got = golden.run(Network("one", x, (layer,)), codes[:, np.newaxis])["act"]
    assert np.array_equal(got, expected(found, codes))
    every = forms.Steps(
        *(getattr(found, key) for key in found.__dataclass_fields__ if key != "stride")
    )
    assert forms.requantise("act", "input", every) is None  # no line has these for odd sums too


def test_a_wrong_bias_has_other_levels():
    found = steps(random_norms(3, 3, 0.3), 10, U4)
    layer = forms.requantise("act", "input", found)
    assert np.array_equal(forms.requantise_levels(layer, found), found.levels)
    object.__setattr__(layer, "bias", layer.bias + (1 << layer.shift))
    assert not np.array_equal(forms.requantise_levels(layer, found), found.levels)


# Against the search as it is written down ---------------------------------------------------------


def plain_search(up):
    """First shift with a multiplier for every channel: the definition, all channels together."""
    codes = np.arange(up.least + 1, up.most + 1)
    always, never = (
        up.levels <= up.low[:, np.newaxis],
        up.levels > up.high[:, np.newaxis],
    )
    huge = np.int64(1) << 61
    for shift in forms.SHIFTS:
        if forms.overflows(up, shift):
            break
        base = np.floor(up.slopes * 2.0**shift).astype(np.int64)
        lower, upper = np.ones_like(base), np.zeros_like(base)
        multiplier = np.zeros_like(base)
        for near in forms.NEAR:
            m = np.maximum(base + near, 0)
            reach = np.where(never, -huge, (codes << shift) - up.levels * m[:, np.newaxis])
            avoid = np.where(never, up.high[:, np.newaxis], up.levels - up.stride)
            below = np.where(always, huge, (codes << shift) - 1 - avoid * m[:, np.newaxis])
            found, bound = reach.max(axis=1), below.min(axis=1)
            better = (found <= bound) & (lower > upper)
            lower[better], upper[better] = found[better], bound[better]
            multiplier[better] = m[better]
        if (lower <= upper).all():
            return shift, lower, upper, multiplier
    return None


def searched(up):
    """Return what :func:`requantise` finds before it chooses the constant."""
    likely = np.arange(0)
    for shift in forms.SHIFTS:
        if forms.overflows(up, shift):
            break
        likely, found = forms.solution(up, shift, likely)
        if found is not None:
            return shift, *found
    return None


@pytest.mark.parametrize("seed", range(60))
def test_the_search_finds_what_all_channels_together_do(seed):
    """Of random lines, of which some are bent a little, in one channel or in many."""
    source = np.random.default_rng(seed)
    channels, width = int(source.choice([1, 3, 9, 40])), int(source.integers(5, 12))
    fmt = [U4, S5, Fixed(8), Fixed(2)][seed % 4]
    found = steps(random_norms(seed, channels, 0.3), width, fmt)
    if seed % 3:
        bent = source.choice(channels, 1 if seed % 3 == 1 else -(-channels // 2), replace=False)
        code = int(source.integers(found.levels.shape[1]))
        found.levels[bent, code:] += np.where(found.falling[bent], -1, 1)[:, np.newaxis]
        found.levels[:] = np.clip(
            found.levels, found.low[:, np.newaxis] - 1, found.high[:, np.newaxis] + 1
        )
    wanted, got = plain_search(found.rising()), searched(found.rising())
    assert (wanted is None) == (got is None)
    for a, b in zip(wanted or (), got or (), strict=True):
        assert np.array_equal(a, b)
    layer = forms.requantise("act", "input", found)
    assert layer is None or wanted is not None
    if layer and wanted:
        assert layer.shift == wanted[0]
        is_exact(layer, found)


def test_the_search_of_both_outcomes():
    kinds = []
    for seed in range(12):
        found = steps(random_norms(seed, 9, 0.3), 9, U4)
        found.levels[-1, 7] += seed % 2 * 40
        kinds.append(searched(found.rising()) is None)
    assert {True, False} == set(kinds)


def two_sided(channels):
    """Lines whose levels below zero are one further on, as where both sides round differently."""
    x, fmt = Tensor((channels,), Fixed(16)), Fixed(8)
    levels = []
    for channel in range(channels):
        step = Fraction(17_117 + 31 * channel, 997)
        codes = range(fmt.min + 1, fmt.max + 1)
        halves = [step * Fraction(2 * code - 1, 2) for code in codes]
        levels.append([-(-h // 1) if h > 0 else h // 1 + 1 for h in halves])
    low, high = np.full(channels, x.fmt.min), np.full(channels, x.fmt.max)
    slopes = np.array([997 / (17_117 + 31 * channel) for channel in range(channels)])
    levels = np.array(levels, np.int64)
    levels[:, :128] += 1
    falling = np.zeros(channels, bool)
    return forms.Steps(x, low, high, levels, falling, slopes, fmt.min, fmt)


@pytest.mark.parametrize("bent", [range(512), [511]], ids=["all", "the last"])
def test_where_there_is_no_solution_few_channels_are_looked_at(bent, monkeypatch):
    seen, constants = [], forms.constants

    def counted(up, multiplier, shift):
        seen.append(len(multiplier))
        return constants(up, multiplier, shift)

    found = two_sided(512)
    others = sorted({*range(512)} - {*bent})
    found.levels[others, :128] -= 1
    assert plain_search(found.only(np.arange(496, 512)).rising()) is None
    assert not others or plain_search(found.only(np.array(others[-16:])).rising())
    monkeypatch.setattr(typed_forms, "constants", counted)
    assert forms.requantise("act", "input", found) is None
    once = len(forms.NEAR) * len(found.low)  # All of them, for a single shift.
    assert sum(seen) <= 2 * forms.FEW * len(forms.NEAR) * len(forms.SHIFTS) + once
