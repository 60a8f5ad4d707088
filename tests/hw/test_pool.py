"""Pool against NumPy, over a feed whose windows come slot by slot."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from amaranth.hdl import Module, Mux, Signal

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.counter import below
from brambling.hw.feed import Feed, StreamFeedSpec
from brambling.hw.pipe import Pipe
from brambling.hw.pool import PoolSpec
from brambling.hw.window import WindowFeedSpec
from brambling.layers.image import Window
from brambling.quant.formats import Bipolar, Fixed
from brambling.sim.job import Design, Job
from brambling.sim.processes import Sink, Source, Wire, next_allowed
from brambling.sim.pysim import Pysim
from brambling.sim.window import WindowProcess


@dataclass(frozen=True, kw_only=True)
class DownFeedSpec:
    """Windows of ``taps`` rows by one column, of an image of one step a row: slots are beats."""

    i: Beats
    taps: int
    lag: int = 1

    chunks = folds = 1

    @property
    def elements(self):
        return self.i.elements

    @property
    def pixels(self):
        return self.i.pixels

    @property
    def simd(self):
        return self.i.lanes

    @property
    def rows(self):
        return self.i.rows // self.taps

    @property
    def columns(self):
        return self.i.columns

    @property
    def beats(self):
        return self.taps

    def operands(self, x):
        i = self.i
        slots = np.asarray(x, np.int64).reshape(-1, self.rows, 1, self.taps, i.columns, i.elements)
        return slots.swapaxes(4, 5)

    def build(self):
        return DownFeed(self)


class DownFeed(Feed):
    spec: DownFeedSpec

    def __init__(self, spec: DownFeedSpec):
        self.spec = spec
        super().__init__(spec)

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        slot, row = Signal(below(spec.taps)), Signal(below(spec.rows))
        m.d.comb += [
            self.start.eq(slot == 0),
            self.last.eq(slot == spec.taps - 1),
            self.word.eq(slot),
            self.frame.eq(row == 0),
            self.i.ready.eq(self.room | ~self.last),
            self.go.eq(self.i.valid & self.i.ready),
        ]
        with m.If(self.go):
            m.d.sync += slot.eq(Mux(self.last, 0, slot + 1))
        with m.If(self.go & self.last):
            m.d.sync += row.eq(Mux(row == spec.rows - 1, 0, row + 1))
        pipe = Pipe(m)
        x = self.i.payload.data
        for _ in range(spec.lag):
            (x,) = pipe.stage(x=x)
        m.d.comb += self.x.eq(x)
        return m


def down(fmt, channels, taps, pixels=1, lag=1):
    i = Beats(fmt, channels, channels, rows=3 * taps, columns=pixels, pixels=pixels)
    return DownFeedSpec(i=i, taps=taps, lag=lag)


def codes_of(beats, frames, seed=1):
    rng = np.random.default_rng(seed)
    if beats.fmt == Bipolar():
        return rng.choice([-1, 1], (frames, beats.size))
    return rng.integers(beats.fmt.min, beats.fmt.max + 1, (frames, beats.size))


def check(spec, x, trace):
    """Values and marks of every beat."""
    got = trace["output"].payloads
    assert np.array_equal(spec.o.unpack(got), spec.reference(x))
    marks = np.unpackbits(got, axis=1, bitorder="little")[:, spec.o.width - 1]
    assert np.flatnonzero(marks).tolist() == [*range(0, len(got), spec.o.count)]


def target_of(kind, feed):
    source = feed.i.fmt
    if kind == "max":
        return source
    return Fixed.spanning(feed.beats * source.min, feed.beats * source.max)


@pytest.mark.parametrize("fmt", [Fixed(4), Fixed(3, signed=False), Bipolar()], ids=str)
@pytest.mark.parametrize("kind", ["max", "sum"])
@pytest.mark.parametrize("shape", [(1, 4, 1), (2, 1, 1), (2, 3, 3), (3, 2, 2)], ids=str)
def test_equals_numpy(run_component, stalls, fmt, kind, shape):
    channels, taps, pixels = shape
    feed = down(fmt, channels, taps, pixels, lag=taps)
    spec = PoolSpec(feed=feed, kind=kind, target=target_of(kind, feed))
    x = codes_of(spec.i, 4)
    trace = run_component(spec, x, **stalls)
    check(spec, x, trace)
    windows = x.reshape(4, 3, taps, pixels, channels)
    expected = windows.max(axis=2) if kind == "max" else windows.sum(axis=2)
    assert np.array_equal(spec.o.unpack(trace["output"].payloads), expected.reshape(4, -1))


@pytest.mark.parametrize("kind", ["max", "sum"])
@pytest.mark.parametrize("end", ["min", "max"])
def test_holds_the_ends_of_the_range(run_component, kind, end):
    feed = down(Fixed(5), 2, 9)
    spec = PoolSpec(feed=feed, kind=kind, target=target_of(kind, feed))
    x = np.full((2, spec.i.size), getattr(Fixed(5), end))
    check(spec, x, run_component(spec, x))


def test_an_average_only_moves_the_radix_point(run_component):
    feed = down(Fixed(6, 2), 2, 4)
    spec = PoolSpec(feed=feed, kind="sum", target=Fixed(8, 4))
    x = codes_of(spec.i, 2)
    means = Fixed(8, 4).decode(spec.o.unpack(run_component(spec, x)["output"].payloads))
    windows = Fixed(6, 2).decode(x).reshape(2, 3, 4, 2)
    assert np.array_equal(means, windows.mean(axis=2).reshape(2, -1))


@pytest.mark.parametrize(("kind", "lanes"), [("max", 2), ("sum", 3), ("sum", 5)])
def test_windows_of_one_pixel_change_nothing(run_component, stalls, kind, lanes):
    beats = Beats(Fixed(4), 5, lanes, rows=2, columns=5, pixels=2)
    feed = StreamFeedSpec(i=beats, folds=1, chunks=beats.groups)
    spec = PoolSpec(feed=feed, kind=kind, target=Fixed(4))
    x = codes_of(beats, 3)
    trace = run_component(spec, x, **stalls)
    check(spec, x, trace)
    assert np.array_equal(spec.o.unpack(trace["output"].payloads), x)


# Behind line buffers: columns, channels, lanes, pixels of the source, window, pixels of the result.
WINDOWS = {
    "halved": (4, 3, 2, 1, Window(kernel=(2, 2), stride=(2, 2)), 1),
    "halved by pairs": (6, 4, 2, 2, Window(kernel=(2, 2), stride=(2, 2)), 2),
    "padded": (5, 2, 2, 1, Window(kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1)), 2),
    "global": (3, 3, 1, 1, Window(kernel=(4, 3), stride=(4, 3)), 1),
    "askew": (4, 3, 2, 2, Window(kernel=(3, 2), stride=(1, 2), padding=(1, 0, 1, 1)), 2),
}


def run_windows(spec, x, stalls):
    """Run frames through a pool behind line buffers, comparing cycles with the model."""
    i, o = Wire(), Wire()
    processes = [
        Source(i, len(x) * spec.i.count, next_allowed(stalls["offer"])),
        WindowProcess(i, o, spec.feed, spec.timing.latency, spec.depth),
        Sink(o, next_allowed(stalls["accept"])),
    ]
    while any(process.step() for process in processes):
        pass
    assert len(o.times) == len(x) * spec.o.count
    job = Job(beats=spec.i.pack(x), outputs=len(o.times), limit=o.times[-1] + 10, **stalls)
    trace = Pysim().run(Design.of("part", spec.build), job)
    assert trace["output"].cycles.tolist() == o.times
    return trace


@pytest.mark.parametrize(
    ("fmt", "kind"), [(Fixed(4), "max"), (Fixed(4), "sum"), (Bipolar(), "max")], ids=str
)
@pytest.mark.parametrize("case", WINDOWS)
def test_pools_windows(stalls, fmt, kind, case):
    columns, channels, lanes, pixels, window, given = WINDOWS[case]
    i = Beats(fmt, channels, lanes, rows=4, columns=columns, pixels=pixels)
    pad = fmt.min if kind == "max" else 0
    feed = WindowFeedSpec(source=i, window=window, pixels=given, chunks=i.groups, pad_value=pad)
    spec = PoolSpec(feed=feed, kind=kind, target=target_of(kind, feed))
    x = codes_of(i, 2)
    trace = run_windows(spec, x, stalls)
    check(spec, x, trace)

    top, bottom, left, right = window.padding
    image = x.reshape(2, 4, columns, channels)
    image = np.pad(image, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=pad)
    taps = np.lib.stride_tricks.sliding_window_view(image, window.kernel, axis=(1, 2))
    taps = taps[:, :: window.stride[0], :: window.stride[1]]
    expected = taps.max(axis=(-2, -1)) if kind == "max" else taps.sum(axis=(-2, -1))
    assert np.array_equal(spec.o.unpack(trace["output"].payloads), expected.reshape(2, -1))


@pytest.mark.parametrize("taps", [1, 2, 7])
def test_loses_no_cycle(run_component, taps):
    feed = down(Fixed(4), 2, taps, lag=4)
    spec = PoolSpec(feed=feed, kind="max", target=Fixed(4))
    trace = run_component(spec, codes_of(spec.i, 3))
    assert set(np.diff(trace["output"].cycles)) == {taps}


FEED = down(Fixed(4), 2, 4)


def padded(fmt, pad_value):
    window = Window(kernel=(3, 3), padding=(1, 1, 1, 1))
    source = Beats(fmt, 2, 2, rows=3, columns=3)
    return WindowFeedSpec(source=source, window=window, pad_value=pad_value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "mean"}, "kind must be one of max, sum, not 'mean'"),
        ({"target": Fixed(5)}, "target of a max must be s4.0, as its source, not s5.0"),
        ({"kind": "sum", "target": Fixed(5)}, "target must hold -32 to 28, s5.0 does not"),
        (
            {"feed": StreamFeedSpec(i=Beats(Fixed(4), 4, 2), folds=3, chunks=2)},
            "the feed of a pool of 2 groups of lanes must have 1 fold and 2 chunks, not 3 and 2",
        ),
        ({"feed": padded(Fixed(4), 0)}, "pad value of a max of s4.0 must be -8, not 0"),
        (
            {"feed": padded(Fixed(4), 1), "kind": "sum", "target": Fixed(9)},
            "pad value of a sum of s4.0 must be 0, not 1",
        ),
        (
            {"feed": padded(Bipolar(), -1), "kind": "sum", "target": Fixed(9)},
            "a bipolar sum must not be padded, no bipolar code is 0",
        ),
    ],
)
def test_rejects(change, message):
    spec = PoolSpec(feed=FEED, kind="max", target=Fixed(4))
    with pytest.raises(ConfigError) as caught:
        replace(spec, **change)
    assert str(caught.value) == message
