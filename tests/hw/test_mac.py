"""Convolutions behind line buffers: matrix-vector and depthwise units on windows of an image."""

from itertools import cycle

import numpy as np
import pytest

from brambling.hw.beat import Beats
from brambling.hw.depthwise import DepthwiseSpec
from brambling.hw.mvu import MvuSpec
from brambling.hw.window import WindowFeedSpec
from brambling.layers.image import Window
from brambling.quant.formats import Bipolar, parse_format
from brambling.sim.job import Design, Job
from brambling.sim.processes import Sink, Source, Wire, next_allowed
from brambling.sim.pysim import Pysim
from brambling.sim.window import WindowProcess

ASKEW = Window(kernel=(1, 2), dilation=(1, 2), padding=(0, 0, 0, 2))
# Rows, columns, channels, simd, source pixels, window, pixels, groups, outputs, pe.
CONVOLUTIONS = {
    "3x3": (3, 4, 3, 2, 1, Window(kernel=(3, 3), padding=(1, 1, 1, 1)), 1, 1, 3, 2),
    "3x3, two pixels": (4, 5, 2, 2, 1, Window(kernel=(3, 3), padding=(1, 1, 1, 1)), 2, 1, 2, 2),
    "stride": (5, 6, 2, 1, 2, Window(kernel=(2, 2), stride=(2, 2)), 1, 1, 3, 3),
    "askew": (3, 4, 2, 2, 1, ASKEW, 3, 1, 1, 1),
    "groups": (3, 3, 4, 1, 1, Window(kernel=(2, 2)), 1, 2, 4, 1),
}  # fmt: skip
DEPTHWISE = {
    "3x3": (4, 4, 4, 2, 1, Window(kernel=(3, 3), padding=(1, 1, 1, 1)), 1),
    "idle lanes": (3, 5, 5, 2, 1, Window(kernel=(2, 3), padding=(1, 0, 1, 1)), 2),
    "stride": (4, 5, 3, 3, 1, Window(kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1)), 1),
}
FORMATS = [  # inputs, weights, style, padding
    ("s4.0", "s4.0", "dsp", 0),
    ("u3.0", "ternary", "lut", 0),
    ("s2.0", "u2.0", "planes", -1),
    ("bipolar", "bipolar", "xnor", -1),
    ("bipolar", "bipolar", "xnor", 1),
]


def paired(shapes):
    """Pair each of the formats with a shape, going round."""
    return list(zip(cycle(shapes), FORMATS, strict=False))


def drawn(fmt, shape, seed):
    rng = np.random.default_rng(seed)
    return (
        rng.choice([-1, 1], shape)
        if fmt == Bipolar()
        else rng.integers(fmt.min, fmt.max + 1, shape)
    )


def correlated(x, weights, window, groups, pad_value):
    """Convolve images ``(n, rows, columns, channels)``; weights ``(outputs, ky, kx, channels)``."""
    top, bottom, left, right = window.padding
    x = np.pad(
        x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=pad_value
    ).astype(np.int64)  # fmt: skip
    down, across = window.span
    seen = np.lib.stride_tricks.sliding_window_view(x, (down, across), axis=(1, 2))
    seen = seen[
        :, :: window.stride[0], :: window.stride[1], :, :: window.dilation[0], :: window.dilation[1]
    ]
    seen = seen.reshape(*seen.shape[:3], groups, -1, *seen.shape[4:])
    weights = weights.astype(np.int64).reshape(groups, -1, *weights.shape[1:])
    return np.einsum("nrcgkij,goijk->nrcgo", seen, weights).reshape(len(x), -1)


def run(spec, x, stalls):
    """Run frames through a unit, comparing cycles with the model."""
    i, o = Wire(), Wire()
    processes = [
        Source(i, len(x) * spec.i.count, next_allowed(stalls["offer"])),
        WindowProcess(i, o, spec.feed, spec.timing.latency, spec.depth),
        Sink(o, next_allowed(stalls["accept"])),
    ]
    outputs = len(x) * spec.o.count
    while len(o.times) < outputs:
        assert sum(process.step() for process in processes)
    limit = 2 * o.times[outputs - 1] + 100
    job = Job(beats=spec.i.pack(x), outputs=outputs, limit=limit, **stalls)
    trace = Pysim().run(Design.of("part", spec.build), job)
    assert trace["output"].cycles.tolist() == o.times[:outputs]
    taken = trace["input"].cycles
    assert taken.tolist() == i.times[: len(taken)]
    return spec.o.unpack(trace["output"].payloads)


@pytest.mark.parametrize(("shape", "formats"), paired(CONVOLUTIONS), ids=str)
def test_convolution(stalls, shape, formats):
    rows, columns, channels, simd, source, window, pixels, groups, outputs, pe = CONVOLUTIONS[shape]
    x_fmt, w_fmt, pad_value = parse_format(formats[0]), parse_format(formats[1]), formats[3]
    feed = WindowFeedSpec(
        source=Beats(x_fmt, channels, simd, rows, columns, source),
        window=window,
        pixels=pixels,
        chunks=groups,
        folds=-(-(outputs // groups) // pe),
        pad_value=pad_value,
    )
    weights = drawn(w_fmt, (outputs, *window.kernel, channels // groups), 2)
    spec = MvuSpec(
        feed=feed,
        weights=weights.reshape(groups, outputs // groups, -1).astype(np.int8),
        fmt=w_fmt,
        style=formats[2],
        pe=pe,
    )
    x = drawn(x_fmt, (2, rows, columns, channels), 3)
    expected = correlated(x, weights, window, groups, pad_value)
    x = x.reshape(2, -1)
    np.testing.assert_array_equal(spec.reference(x), expected)
    np.testing.assert_array_equal(run(spec, x, stalls), expected)


@pytest.mark.parametrize(("shape", "formats"), paired(DEPTHWISE), ids=str)
@pytest.mark.parametrize("levels", [False, True])
def test_depthwise_convolution(stalls, shape, formats, levels):
    rows, columns, channels, simd, source, window, pixels = DEPTHWISE[shape]
    x_fmt, w_fmt, pad_value = parse_format(formats[0]), parse_format(formats[1]), formats[3]
    beats = Beats(x_fmt, channels, simd, rows, columns, source)
    feed = WindowFeedSpec(
        source=beats, window=window, pixels=pixels, chunks=beats.groups, pad_value=pad_value
    )
    weights = drawn(w_fmt, (channels, *window.kernel, 1), 2)
    falling = np.arange(channels) % 2 == 0
    spec = DepthwiseSpec(
        feed=feed,
        weights=weights.reshape(channels, -1).astype(np.int8),
        fmt=w_fmt,
        style=formats[2],
        levels=drawn(parse_format("s4.0"), channels, 4) if levels else None,
        falling=falling if levels else None,
    )
    x = drawn(x_fmt, (2, rows, columns, channels), 3)
    expected = correlated(x, weights, window, channels, pad_value)
    if levels:
        sums = expected.reshape(-1, channels)
        reached = np.where(falling, sums <= spec.levels, sums >= spec.levels)
        expected = np.where(reached, 1, -1).reshape(expected.shape)
    x = x.reshape(2, -1)
    np.testing.assert_array_equal(spec.reference(x), expected)
    np.testing.assert_array_equal(run(spec, x, stalls), expected)
