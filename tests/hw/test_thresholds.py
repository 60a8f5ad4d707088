"""ThresholdUnit against its reference and the golden model, on every code where there are few."""

from dataclasses import replace

import numpy as np
import pytest

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.thresholds import ThresholdsSpec
from brambling.layers import Tensor, Thresholds
from brambling.quant.formats import Bipolar, Fixed, Ternary
from brambling.sim.golden import evaluate

SOURCE = Fixed(5)


def make(levels, falling, target, i, **options):
    """Spec after a look at the layer, which checks more."""
    levels, falling = np.array(levels), np.array(falling)
    Thresholds(name="q", inputs=("input",), levels=levels, falling=falling, fmt=target)
    return ThresholdsSpec(i=i, target=target, levels=levels, falling=falling, **options)


def golden(spec, x):
    layer = Thresholds(
        name="q",
        inputs=("input",),
        levels=spec.levels,
        falling=spec.falling,
        fmt=spec.target,
    )
    tensor = Tensor((spec.i.rows, spec.i.columns, spec.i.elements), spec.i.fmt)
    return evaluate(layer, (tensor,), x.reshape(len(x), *tensor.shape)).reshape(len(x), -1)


def check(run_component, spec, x, **stalls):
    trace = run_component(spec, x, **stalls)
    expected = spec.reference(x)
    assert np.array_equal(spec.o.unpack(trace["output"].payloads), expected)
    assert np.array_equal(golden(spec, x), expected)


def every_code(fmt, elements):
    """Frames in which each element has every code."""
    codes = np.array([-1, 1]) if fmt == Bipolar() else np.arange(fmt.min, fmt.max + 1)
    return np.stack([np.roll(codes, 3 * n) for n in range(elements)], axis=1)


def random_levels(fmt, channels, n, seed):
    """Levels in and a little beyond the range of ``fmt``, some of them equal."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.integers(fmt.min - 1, fmt.max + 3, (channels, n)), axis=1)


@pytest.mark.parametrize("lanes", [1, 2, 3])
@pytest.mark.parametrize(
    ("levels", "falling", "target"),
    [
        ([[3]], [False], Bipolar()),
        ([[3]], [True], Bipolar()),
        ([[-16], [0], [15]], [False, True, False], Bipolar()),
        ([[-99], [99], [16]], [False, False, True], Bipolar()),
        ([[-5, 7]], [True], Ternary()),
        ([[-5, 0, 7]], [False], Fixed(2, signed=False)),
        ([[-5, 0, 7], [1, 1, 1], [-16, 3, 15]], [False, True, True], Fixed(2)),
        ([[-5, 7]], [False], Fixed(6)),
    ],
    ids=str,
)
def test_few_levels(run_component, stalls, levels, falling, target, lanes):
    spec = make(levels, falling, target, Beats(SOURCE, 3, lanes))
    assert spec.latency == 2
    check(run_component, spec, every_code(SOURCE, 3), **stalls)


@pytest.mark.parametrize("falling", [(False,), (True,), (False, True, False, True, True)], ids=str)
@pytest.mark.parametrize("n", [4, 7, 8, 14, 15])
@pytest.mark.parametrize("target", [Fixed(4), Fixed(6, signed=False)], ids=str)
def test_a_search_finds_every_count(run_component, n, falling, target):
    levels = random_levels(SOURCE, len(falling), n, seed=n)
    spec = make(levels, falling, target, Beats(SOURCE, 5, 2))
    assert spec.latency == 2 * n.bit_length()
    check(run_component, spec, every_code(SOURCE, 5))


@pytest.mark.parametrize(
    "beats",
    [Beats(SOURCE, 5, 2, 2, 3, 2), Beats(SOURCE, 3, 3, 2, 2), Beats(SOURCE, 1, 1, 1, 4, 3)],
    ids=str,
)
@pytest.mark.parametrize("n", [2, 6])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "by channel"])
def test_images(run_component, stalls, beats, n, shared):
    channels = 1 if shared else beats.elements
    falling = np.arange(channels) % 2 == 1
    levels = random_levels(SOURCE, channels, n, seed=7)
    x = np.random.default_rng(2).integers(-16, 16, (3, beats.size))
    check(run_component, make(levels, falling, Fixed(3), beats), x, **stalls)


@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("store", ["lut", "block"])
def test_255_levels(run_component, store, falling):
    source = Fixed(9, signed=False)
    levels = np.sort(np.random.default_rng(3).choice(510, (2, 255), replace=False) + 1)
    i = Beats(source, 2, 1)
    spec = make(levels, [falling, False], Fixed(8, signed=False), i, store=store)
    x = every_code(source, 2)
    assert set(spec.reference(x)[:, 0]) == set(range(256))
    check(run_component, spec, x)


@pytest.mark.parametrize(
    "source",
    [Bipolar(), Ternary(), Fixed(2), Fixed(1, signed=False), Fixed(40), Fixed(40, signed=False)],
    ids=str,
)
@pytest.mark.parametrize("n", [1, 3, 6])
def test_levels_at_and_beyond_the_ends_of_the_range(run_component, source, n):
    ends = [-(1 << 62), source.min - 1, source.min, source.min + 1, 0, 1]
    ends += [source.max, source.max + 1, source.max + 2, (1 << 62) + 1]
    rows = [sorted(ends[k] for k in range(start, start + n)) for start in range(11 - n)]
    channels = 2 * len(rows)
    falling = np.arange(channels) >= len(rows)
    target = Bipolar() if n == 1 else Fixed(3)
    spec = make(2 * rows, falling, target, Beats(source, channels, 5))
    codes = {source.min, source.max}
    codes |= set() if source == Bipolar() else {0, source.min + 1, source.max - 1}
    x = np.repeat(np.array(sorted(codes))[:, None], channels, axis=1)
    check(run_component, spec, x)


def test_takes_a_beat_a_cycle(run_component):
    spec = make([[3, 4, 5, 6]], [False], Fixed(3), Beats(SOURCE, 12, 3))
    cycles = run_component(spec, np.zeros((5, 12), int))["output"].cycles
    assert set(np.diff(cycles)) == {1}


def test_bounds_are_in_the_order_of_the_search():
    spec = make([[1, 2, 3, 4]], [True], Fixed(3), Beats(SOURCE, 1, 1))
    assert spec.bounds().tolist() == [[5, 4, 3, 2, -16, -16, -16]]
    rising = replace(spec, falling=np.array([False]))
    assert rising.bounds().tolist() == [[1, 2, 3, 4, 16, 16, 16]]


def test_rejects_levels_for_another_number_of_channels():
    message = r"^levels must be for 1 or all 5 channels, not for 3$"
    with pytest.raises(ConfigError, match=message):
        make([[1], [2], [3]], [False] * 3, Bipolar(), Beats(SOURCE, 5, 1))


def test_rejects_more_levels_than_codes():
    message = r"^levels must be fewer than the 4 codes of u2\.0, not 4$"
    with pytest.raises(ConfigError, match=message):
        ThresholdsSpec(
            i=Beats(SOURCE, 5, 1),
            target=Fixed(2, signed=False),
            levels=np.array([[1, 2, 3, 4]]),
            falling=np.array([False]),
        )
