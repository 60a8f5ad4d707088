"""Depthwise units on pixels as they come; see ``test_mac`` for windows."""

from dataclasses import replace

import numpy as np
import pytest

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.depthwise import DepthwiseSpec, LaneBankSpec
from brambling.hw.feed import StreamFeedSpec
from brambling.quant.formats import Bipolar, parse_format


def unit(x, w, style, *, elements=5, simd=2, columns=4, pixels=1):
    x, w = parse_format(x), parse_format(w)
    beats = Beats(x, elements, simd, 1, columns, pixels)
    rng = np.random.default_rng(1)
    weights = rng.choice(np.arange(w.min, w.max + 1, 1 + (w == Bipolar())), (elements, 1))
    feed = StreamFeedSpec(i=beats, folds=1, chunks=beats.groups)
    return DepthwiseSpec(feed=feed, weights=weights, fmt=w, style=style)


@pytest.mark.parametrize(
    "spec",
    [
        unit("s5.1", "s4.2", "dsp"),
        unit("u4.0", "bipolar", "lut", pixels=2),
        unit("s3.0", "ternary", "planes", elements=4, simd=4, pixels=3),
        unit("bipolar", "bipolar", "xnor", simd=3),
    ],
    ids=lambda spec: spec.style,
)
def test_one_weight_for_each_channel(run_component, stalls, spec):
    x = np.random.default_rng(2).choice([-1, 1], (3, spec.i.size))
    if spec.i.fmt != Bipolar():
        x = np.random.default_rng(2).integers(spec.i.fmt.min, spec.i.fmt.max + 1, x.shape)
    expected = (x.reshape(3, 4, -1) * spec.weights[:, 0].astype(int)).reshape(3, -1)
    np.testing.assert_array_equal(spec.reference(x), expected)
    trace = run_component(spec, x, **stalls)
    np.testing.assert_array_equal(spec.o.unpack(trace["output"].payloads), expected)


def test_a_multiplier_for_each_lane():
    bank = LaneBankSpec(parse_format("s4.0"), parse_format("s4.0"), 6, "dsp")
    assert bank.multipliers == 6
    assert replace(bank, style="lut").multipliers == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"feed": StreamFeedSpec(i=Beats(Bipolar(), 5, 2), folds=1)},
            "the feed of 3 groups of channels must have 1 fold and 3 chunks, not 1 and 1",
        ),
        (
            {"weights": np.ones((5, 9), np.int8)},
            r"weights must be \(5, 1\) for the feed, not \(5, 9\)",
        ),
    ],
    ids=str,
)
def test_rejects_what_does_not_fit_the_feed(change, message):
    with pytest.raises(ConfigError, match=rf"^{message}$"):
        replace(unit("bipolar", "bipolar", "xnor"), **change)
