"""Feeds, seen by an engine that does nothing but show the operands of each run."""

import shutil
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.feed import FeedSpec, StreamFeedSpec
from brambling.hw.queue import Queue
from brambling.hw.window import WindowFeedSpec
from brambling.layers.image import Window
from brambling.quant.formats import Bipolar, Fixed, Format
from brambling.sim import cache
from brambling.sim.compiled import Verilator
from brambling.sim.cycles import EngineProcess, Sink, Source, Wire, next_allowed
from brambling.sim.job import Design, Job, pattern
from brambling.sim.pysim import Pysim
from brambling.sim.window import WindowProcess
from brambling.timing import Timing

U3 = Fixed(3, signed=False)
STREAMS = {
    "vector": StreamFeedSpec(i=Beats(Fixed(5), 12, 4), folds=1),
    "vector replayed, with a tail": StreamFeedSpec(i=Beats(Fixed(5), 11, 4), folds=3),
    "one beat": StreamFeedSpec(i=Beats(Bipolar(), 5, 5), folds=2),
    "one lane": StreamFeedSpec(i=Beats(Bipolar(), 3, 1), folds=2),
    "one of everything": StreamFeedSpec(i=Beats(Bipolar(), 1, 1), folds=1),
    "image": StreamFeedSpec(i=Beats(Fixed(2), 5, 2, 2, 3), folds=2),
    "two pixels": StreamFeedSpec(i=Beats(Fixed(3), 5, 2, 2, 5, 2), folds=2),
    "bipolar pixels": StreamFeedSpec(i=Beats(Bipolar(), 5, 2, 2, 4, 3), folds=1),
    "chunks": StreamFeedSpec(i=Beats(Fixed(2), 12, 2, 1, 3), folds=2, chunks=3),
    "chunks of a beat, with a tail": StreamFeedSpec(
        i=Beats(Fixed(2), 5, 2, 2, 2), folds=2, chunks=3
    ),
    "chunks once": StreamFeedSpec(i=Beats(Fixed(2), 5, 2, 2, 2, 2), folds=1, chunks=3),
}


def windows(size, channels, simd, *, fmt: Format = U3, source_pixels=1, **options: Any):
    keys = ("kernel", "stride", "padding", "dilation")
    shape: Any = {"kernel": (3, 3), **{k: options.pop(k) for k in keys if k in options}}
    source = Beats(fmt, channels, simd, *size, pixels=source_pixels)
    return WindowFeedSpec(source=source, window=Window(**shape), **options)


SAME: Any = {"padding": (1, 1, 1, 1)}
POINT: Any = {"kernel": (1, 1)}
TWO: Any = {"kernel": (2, 2), "stride": (2, 2)}
WINDOWS = {
    "3x3": windows((4, 5), 2, 2),
    "3x3, same size": windows((4, 5), 2, 2, **SAME),
    "3x3, padded with a code": windows((4, 5), 3, 2, pad_value=5, **SAME),
    "bipolar, padded with +1": windows((4, 5), 3, 2, fmt=Bipolar(), pad_value=1, **SAME),
    "bipolar, padded with -1": windows((4, 4), 3, 3, fmt=Bipolar(), pad_value=-1, **SAME),
    "signed, folded": windows((3, 4), 5, 2, fmt=Fixed(3), pad_value=-2, folds=3, **SAME),
    "grouped": windows((3, 4), 8, 2, chunks=2, folds=2, **SAME),
    "depthwise": windows((4, 4), 5, 2, chunks=3, pad_value=1, **SAME),
    "pooling": windows((5, 6), 5, 2, chunks=3, **TWO),
    "pooling, two by two": windows((6, 8), 3, 3, source_pixels=2, pixels=2, **TWO),
    "stride": windows((7, 6), 2, 1, stride=(2, 2), **SAME),
    "stride, two pixels": windows((7, 9), 2, 2, stride=(2, 2), pixels=2, **SAME),
    "stride, three of four": windows(
        (5, 9), 1, 1, stride=(1, 2), source_pixels=4, pixels=3, **SAME
    ),
    "two pixels": windows((4, 7), 3, 2, source_pixels=2, pixels=2, **SAME),
    "four pixels of two": windows((4, 9), 2, 2, source_pixels=2, pixels=4, **SAME),
    "two pixels of three": windows((4, 8), 3, 2, source_pixels=3, pixels=2, **SAME),
    "one pixel of four": windows((3, 6), 3, 2, source_pixels=4, folds=2, **SAME),
    "asymmetric": windows((4, 4), 2, 2, kernel=(2, 3), padding=(1, 0, 0, 2)),
    "dilated": windows((6, 7), 2, 2, dilation=(2, 3), padding=(2, 2, 3, 3)),
    "dilated beyond": windows((3, 3), 1, 1, kernel=(2, 2), dilation=(4, 4), padding=(4, 2, 3, 4)),
    "larger than the image": windows((2, 3), 2, 2, kernel=(5, 5), padding=(2, 2, 2, 2), pixels=2),
    "11x11": windows((6, 5), 1, 1, kernel=(11, 11), stride=(4, 4), padding=(5, 5, 5, 5)),
    "whole image": windows((3, 4), 3, 2, kernel=(3, 4), stride=(3, 4), chunks=2),
    "whole image of one row": windows((1, 4), 2, 1, kernel=(1, 4), source_pixels=2),
    "one pixel": windows((1, 1), 2, 1, padding=(1, 1, 1, 1)),
    "point": windows((3, 4), 3, 2, folds=2, **POINT),
    "point, skipping": windows((5, 5), 3, 1, stride=(2, 2), **POINT),
    "point, skipping more": windows((7, 8), 1, 1, stride=(3, 3), pixels=2, **POINT),
    "pixels apart": windows((3, 7), 3, 2, source_pixels=3, **POINT),
    "pixels together": windows((3, 7), 3, 2, pixels=4, **POINT),
    "upsampling": windows((2, 3), 3, 2, factor=(2, 2), chunks=2, **POINT),
    "upsampling, more pixels": windows(
        (3, 5), 2, 2, source_pixels=2, pixels=4, factor=(2, 2), **POINT
    ),
    "upsampling by three": windows((2, 5), 1, 1, pixels=4, factor=(1, 3), **POINT),
    "split": windows((3, 4), 12, 1, factor=(2, 2), split=True, chunks=3, **POINT),
    "split, in one row": windows((2, 5), 6, 2, factor=(1, 3), split=True, **POINT),
    "split, in one column": windows((4, 3), 12, 2, factor=(3, 1), split=True, folds=2, **POINT),
    "split, more pixels": windows((3, 3), 8, 1, pixels=4, factor=(2, 2), split=True, **POINT),
    "split, pixels of three": windows(
        (2, 4), 16, 2, source_pixels=3, pixels=5, factor=(2, 2), split=True, chunks=2, **POINT
    ),
    "split, pixels to one": windows(
        (3, 5), 12, 1, source_pixels=2, factor=(2, 3), split=True, **POINT
    ),
    "split, one line": windows((4, 2), 8, 2, factor=(2, 2), split=True, ring=1, **POINT),
    # The slot that frees the line also reads what is overwritten first.
    "one line": windows((4, 1), 1, 1, ring=1, **POINT),
    "few lines": windows((5, 4), 2, 2, ring=3, **SAME),
    "many lines": windows((3, 4), 2, 2, ring=8, store="lut", **SAME),
}


@dataclass(frozen=True)
class ProbeSpec:
    """All operands of each run, and the words of its first and last slot."""

    feed: FeedSpec

    @property
    def size(self) -> int:
        """Bits of a slot."""
        return self.feed.simd * self.feed.pixels * self.feed.i.fmt.width

    @property
    def layout(self):
        bits = self.feed.beats * self.size
        return data.StructLayout({"x": bits, "start": 16, "last": 16, "first": 1})

    @property
    def groups(self) -> int:
        return self.feed.rows * -(-self.feed.columns // self.feed.pixels)

    @property
    def outputs(self) -> int:
        """Runs of a frame."""
        return self.groups * self.feed.chunks * self.feed.folds

    @property
    def timing(self) -> Timing:
        return Timing(self.feed.beats, self.feed.folds, self.feed.lag + 1)

    def build(self) -> "Probe":
        return Probe(self)


class Probe(wiring.Component):
    i: stream.Interface
    o: stream.Interface

    def __init__(self, spec: ProbeSpec) -> None:
        self.spec = spec
        super().__init__({
            "i": In(spec.feed.i.signature),
            "o": Out(stream.Signature(spec.layout)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.feed = feed = spec.feed.build()
        m.submodules.queue = queue = Queue(spec.layout, spec.timing.queue)
        connect(m, flipped(self.i), feed.i)
        connect(m, queue.o, flipped(self.o))
        m.d.comb += [feed.room.eq(queue.room), queue.reserve.eq(feed.go & feed.last)]
        facts = Cat(feed.go, feed.go & feed.last, feed.start, feed.frame, feed.word)
        for n in range(spec.feed.lag):
            facts, last = Signal.like(facts, name=f"facts_{n}"), facts
            m.d.sync += facts.eq(last)
        go, last, start, frame, word = facts[0], facts[1], facts[2], facts[3], facts[4:]
        held = queue.result
        seen = Signal(spec.layout)
        with m.If(go):
            m.d.sync += seen.x.eq(Cat(seen.x, feed.x)[spec.size :])
            m.d.sync += seen.last.eq(word)
            with m.If(start):
                m.d.sync += [seen.start.eq(word), seen.first.eq(frame)]
            with m.Elif(seen.first != frame):  # Not the same for the whole run: show it.
                m.d.sync += seen.last.eq(-1)
        m.d.comb += held.eq(seen)
        m.d.sync += queue.write.eq(last)
        return m


def expected(spec: ProbeSpec, x, mask):
    """Payloads of the runs, with ``x`` of the places that carry a meaning; by frame and run."""
    feed = spec.feed
    operands = feed.operands(x)
    assert operands.shape == (len(x), spec.groups, feed.chunks, feed.beats, feed.simd, feed.pixels)
    words = feed.i.fmt.to_bits(operands)
    for frame in range(len(x)):
        for group in range(spec.groups):
            for chunk in range(feed.chunks):
                slots = words[frame, group, chunk].reshape(-1)
                value = sum(int(w) << n * feed.i.fmt.width for n, w in enumerate(slots))
                for fold in range(feed.folds):
                    start = (chunk * feed.folds + fold) * feed.beats
                    first = group == chunk == fold == 0
                    yield value & mask(group), start, start + feed.beats - 1, int(first)


def meaningful(spec: ProbeSpec):
    """Return the function from a group of positions to the mask of the bits that are checked."""
    feed, width = spec.feed, spec.feed.i.fmt.width
    steps = -(-feed.columns // feed.pixels)

    def mask(group: int) -> int:
        places = feed.columns - group % steps * feed.pixels
        code = sum(((1 << width) - 1) << n * width for n in range(min(places, feed.pixels)))
        lanes = feed.simd * feed.beats
        return sum(code << n * feed.pixels * width for n in range(lanes))

    return mask


def frames_for(i: Beats, n: int, seed: int = 1):
    rng = np.random.default_rng(seed)
    return i.fmt.from_bits(rng.integers(0, 1 << i.fmt.width, (n, i.size)))


def dirty(i: Beats, x):
    """Beats of ``x`` with random codes in idle lanes and places."""
    wide = Beats(i.fmt, i.groups * i.lanes, i.lanes, i.rows, i.steps * i.pixels, i.pixels)
    codes = frames_for(wide, len(x), seed=7).reshape(-1, wide.rows, wide.columns, wide.elements)
    image = x.reshape(-1, i.rows, i.columns, i.elements)
    codes[:, :, : i.columns, : i.elements] = image
    return wide.pack(codes.reshape(len(x), -1))


def model_of(spec: ProbeSpec, frames: int, offer, accept):
    """Cycles of the input beats, and of the runs."""
    i, o = Wire(), Wire()
    source = Source(i, frames * spec.feed.i.count, next_allowed(offer))
    if isinstance(spec.feed, WindowFeedSpec):
        engine = WindowProcess(i, o, spec.feed, spec.timing.latency, spec.timing.queue)
    else:
        engine = EngineProcess(i, o, spec.timing, spec.timing.queue)
    sink = Sink(o, next_allowed(accept))
    while any([source.step(), engine.step(), sink.step()]):
        pass
    return i.times, o.times


def check(feed: FeedSpec, offer, accept, *, frames=3, runner=None) -> None:
    spec = ProbeSpec(feed)
    x = frames_for(feed.i, frames)
    outputs = frames * spec.outputs
    taken, given = model_of(spec, frames, offer, accept)
    assert len(given) == outputs
    job = Job(
        beats=dirty(feed.i, x),
        outputs=outputs,
        limit=2 * given[-1] + 100,
        offer=offer,
        accept=accept,
    )
    trace = (runner or Pysim()).run(Design.of("probe", spec.build), job)
    mask, bits = meaningful(spec), feed.beats * spec.size
    for n, (found, wanted) in enumerate(
        zip(trace["output"].payloads, expected(spec, x, mask), strict=True)
    ):
        value = int.from_bytes(found.tobytes(), "little")
        group = n % spec.outputs // (feed.chunks * feed.folds)
        x_bits, rest = value & ((1 << bits) - 1) & mask(group), value >> bits
        seen = (x_bits, rest & 0xFFFF, rest >> 16 & 0xFFFF, rest >> 32)
        assert seen == wanted, f"run {n} of {outputs}"
    assert trace["output"].cycles.tolist() == given
    cycles = trace["input"].cycles.tolist()
    assert cycles == taken[: len(cycles)]


@pytest.mark.parametrize("feed", STREAMS.values(), ids=STREAMS)
def test_stream_gives_its_operands(feed, stalls):
    check(feed, **stalls)


@pytest.mark.parametrize("feed", WINDOWS.values(), ids=WINDOWS)
def test_window_gives_its_operands(feed, stalls):
    check(feed, **stalls)


def test_verilog_does_the_same(tmp_path, monkeypatch):
    if shutil.which("c++") is None or shutil.which("make") is None:
        pytest.skip("needs a C++ compiler and make")
    monkeypatch.setattr(cache, "folder", lambda: tmp_path)
    feed = windows((5, 7), 3, 2, source_pixels=2, pixels=2, pad_value=5, **SAME)
    check(feed, pattern("burst", seed=3), pattern("random", seed=5), runner=Verilator())


def test_an_incomplete_frame_is_given_up_at_the_next_first():
    feed = StreamFeedSpec(i=Beats(Fixed(4), 9, 4), folds=2)
    spec = ProbeSpec(feed)
    x = frames_for(feed.i, 3)
    cut = np.delete(feed.i.pack(x), [2], axis=0)  # The first frame lacks its last beat.
    job = Job(beats=cut, outputs=2 * spec.outputs, limit=200)
    trace = Pysim().run(Design.of("probe", spec.build), job)
    whole = Job(beats=feed.i.pack(x[1:]), outputs=2 * spec.outputs, limit=200)
    clean = Pysim().run(Design.of("probe", spec.build), whole)
    assert np.array_equal(trace["output"].payloads, clean["output"].payloads)


@pytest.mark.parametrize(
    ("lanes", "chunks", "folds", "message"),
    [
        (3, 3, 1, "chunks of 12 channels .* 3 lanes"),
        (5, 2, 1, "chunks of 12 channels .* 5 lanes"),
        (4, 0, 1, "chunks of 12 channels"),
        (2, 5, 1, "chunks of 12 channels"),
        (2, 1, 0, "folds must be at least 1, not 0"),
    ],
)
def test_rejects_chunks_and_folds_that_cannot_be(lanes, chunks, folds, message):
    with pytest.raises(ConfigError, match=message):
        StreamFeedSpec(i=Beats(Fixed(4), 12, lanes), folds=folds, chunks=chunks)
