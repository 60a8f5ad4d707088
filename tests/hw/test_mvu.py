"""Matrix-vector units against their references and their cycle counts."""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.feed import StreamFeedSpec
from brambling.hw.mvu import MvuSpec, XnorMvuSpec
from brambling.quant.formats import Bipolar, Fixed, Ternary, parse_format
from brambling.sim.job import Design, Job
from brambling.sim.pysim import Pysim

SHAPES = {  # rows, columns, pixels, elements, simd, chunks, outputs of a chunk, pe
    "vector": (1, 1, 1, 11, 4, 1, 5, 2),
    "one of everything": (1, 1, 1, 1, 1, 1, 1, 1),
    "one slot": (1, 1, 1, 5, 5, 1, 3, 3),
    "pixels one by one": (2, 3, 1, 5, 2, 1, 3, 2),
    "two pixels, and one idle": (2, 3, 2, 5, 2, 1, 3, 2),
    "three pixels": (1, 6, 3, 4, 4, 1, 4, 2),
    "groups": (1, 2, 1, 12, 2, 3, 4, 2),
    "groups, two pixels": (2, 2, 2, 4, 2, 2, 1, 1),
}
FORMATS = [  # inputs, weights, style
    ("s4.1", "s3.2", "dsp"),
    ("u4.0", "bipolar", "lut"),
    ("u2.0", "s2.0", "planes"),
    ("bipolar", "bipolar", "xnor"),
]

FOLDINGS = [  # outputs, inputs, pe, simd
    (1, 1, 1, 1),
    (4, 6, 4, 6),
    (6, 5, 3, 5),
    (6, 9, 6, 4),
    (7, 12, 2, 5),
    (5, 33, 5, 3),
    (9, 7, 4, 1),
]


def make(outputs, inputs, pe, simd, *, kind="levels", seed=1, **options):
    rng = np.random.default_rng(seed)
    weights = rng.choice([-1, 1], (outputs, inputs)).astype(np.int8)
    levels = falling = None
    if kind != "products":
        levels = rng.integers(-inputs - 2, inputs + 3, outputs)
    if kind == "falling":
        falling = rng.random(outputs) < 0.5
    return XnorMvuSpec(weights=weights, pe=pe, simd=simd, levels=levels, falling=falling, **options)


def vectors(spec, frames=5, seed=2):
    return np.random.default_rng(seed).choice([-1, 1], (frames, spec.inputs))


@pytest.mark.parametrize("folding", FOLDINGS, ids=str)
@pytest.mark.parametrize("kind", ["levels", "falling", "products"])
def test_equals_reference(run_component, stalls, folding, kind):
    spec = make(*folding, kind=kind)
    x = vectors(spec)
    trace = run_component(spec, x, **stalls)
    assert np.array_equal(spec.o.unpack(trace["output"].payloads), spec.reference(x))


def drawn(fmt, shape, seed):
    """Random codes."""
    rng = np.random.default_rng(seed)
    return (
        rng.choice([-1, 1], shape)
        if fmt == Bipolar()
        else rng.integers(fmt.min, fmt.max + 1, shape)
    )


def unit(shape, formats, *, levels=False, **options):
    """A unit on a stream of pixels, with random weights."""
    rows, columns, pixels, elements, simd, chunks, outputs, pe = shape
    x, w, style = formats
    x, w = parse_format(x), parse_format(w)
    feed = StreamFeedSpec(
        i=Beats(x, elements, simd, rows, columns, pixels), folds=-(-outputs // pe), chunks=chunks
    )
    if levels:
        rng = np.random.default_rng(7)
        options["levels"] = rng.integers(-6, 7, chunks * outputs)
        options["falling"] = rng.random(chunks * outputs) < 0.5
    weights = drawn(w, (chunks, outputs, elements // chunks), 5).astype(w.dtype)
    return MvuSpec(feed=feed, weights=weights, fmt=w, style=style, pe=pe, **options)


def convolved(spec, x):
    """What a convolution of one pixel makes of ``x``; in groups, where the feed has chunks."""
    i, chunks = spec.i, spec.feed.chunks
    x = x.reshape(-1, i.rows * i.columns, chunks, i.elements // chunks)
    sums = np.einsum("npce,coe->npco", x, spec.weights.astype(np.int64))
    return sums.reshape(len(x), -1)


@pytest.mark.parametrize(
    ("shape", "formats", "levels"),
    [
        (shape, formats, (n + k) % 2 == 1)
        for n, shape in enumerate(SHAPES)
        for k, formats in enumerate(FORMATS)
        if n % 3 != k % 3
    ],
    ids=str,
)
def test_equals_a_convolution_of_one_pixel(run_component, stalls, shape, formats, levels):
    spec = unit(SHAPES[shape], formats, levels=levels)
    x = drawn(spec.i.fmt, (4, spec.i.size), 6)
    expected = convolved(spec, x)
    if levels:
        rows = expected.reshape(-1, spec.o.elements)
        assert spec.falling is not None
        signs = np.where(spec.falling, rows <= spec.levels, rows >= spec.levels)
        expected = np.where(signs, 1, -1).reshape(expected.shape)
    np.testing.assert_array_equal(spec.reference(x), expected)
    trace = run_component(spec, x, **stalls)
    np.testing.assert_array_equal(spec.o.unpack(trace["output"].payloads), expected)


def test_format_of_the_sums_spans_what_the_weights_can_make():
    spec = unit(SHAPES["vector"], ("u4.1", "s3.2", "dsp"))
    w = spec.weights[0].astype(int)
    low, high = 15 * np.minimum(w, 0).sum(axis=1), 15 * np.maximum(w, 0).sum(axis=1)
    assert spec.o.fmt == Fixed.spanning(int(low.min()), int(high.max()), 3)


@pytest.mark.parametrize("end", ["min", "max"])
@pytest.mark.parametrize(
    ("x", "w", "style"),
    [
        ("s8.0", "s8.0", "dsp"),
        ("s4.0", "s4.0", "dsp"),
        ("u8.0", "ternary", "lut"),
        ("u3.0", "u3.0", "planes"),
        ("s3.0", "s2.0", "planes"),
        ("bipolar", "s5.0", "lut"),
    ],
)
def test_sums_reach_both_ends_of_their_format(run_component, x, w, style, end):
    x, w = parse_format(x), parse_format(w)
    feed = StreamFeedSpec(i=Beats(x, 7, 2), folds=1)
    weights = np.array([[[w.min] * 7, [w.max] * 7]], np.int16)
    spec = MvuSpec(feed=feed, weights=weights, fmt=w, style=style, pe=2)
    codes = np.full((2, 7), getattr(x, end))
    trace = run_component(spec, codes)
    expected = 7 * getattr(x, end) * np.array([w.min, w.max])
    assert spec.o.unpack(trace["output"].payloads).tolist() == [expected.tolist()] * 2
    assert {*spec.bounds[0], *spec.bounds[1]} >= set(expected.tolist())


@pytest.mark.parametrize("formats", [*FORMATS, ("s3.0", "ternary", "planes")], ids=str)
def test_every_level_around_the_sums(run_component, formats):
    x, w = parse_format(formats[0]), parse_format(formats[1])
    feed = StreamFeedSpec(i=Beats(x, 3, 2), folds=4)
    row = drawn(w, 3, 8).astype(np.int8)
    high = int(np.abs(row).sum() * max(x.max, -x.min))
    levels = np.unique(np.linspace(-high - 2, high + 2, 12).astype(int))
    levels = np.concatenate([levels, [-(1 << 40), 1 << 40], np.zeros(16 - 2 - len(levels), int)])
    weights = np.broadcast_to(row, (1, 16, 3))
    spec = MvuSpec(
        feed=feed, weights=weights, fmt=w, style=formats[2], pe=4, levels=levels,
        falling=np.arange(16) % 3 == 0,
    )  # fmt: skip
    codes = drawn(x, (8, 3), 9)
    trace = run_component(spec, codes)
    np.testing.assert_array_equal(spec.o.unpack(trace["output"].payloads), spec.reference(codes))


@pytest.mark.parametrize("levels", [False, True])
@pytest.mark.parametrize("formats", FORMATS, ids=str)
def test_accumulators_stand_for_sums(formats, levels):
    spec = unit(SHAPES["two pixels, and one idle"], formats, levels=levels)
    sums = convolved(spec, drawn(spec.i.fmt, (3, spec.i.size), 6))
    accumulators = spec.accumulators_of(sums)
    assert spec.accumulators.fmt.holds(accumulators)
    np.testing.assert_array_equal(spec.products_of(accumulators), sums)


class Observed(wiring.Component):
    """A unit whose accumulators are an edge of the simulation."""

    i: stream.Interface
    o: stream.Interface
    tap_products: wiring.PureInterface

    def __init__(self, spec):
        self.spec = spec
        super().__init__({
            "i": In(spec.i.signature),
            "o": Out(spec.o.signature),
            "tap_products": Out(spec.accumulators.tap),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.part = part = self.spec.build()
        connect(m, flipped(self.i), part.i)
        connect(m, part.o, flipped(self.o))
        connect(m, part.products, flipped(self.tap_products))
        return m


def test_accumulators_can_be_observed():
    spec = unit(SHAPES["pixels one by one"], FORMATS[3], levels=True)
    x = drawn(spec.i.fmt, (2, spec.i.size), 6)
    design = Design.of("part", lambda: Observed(spec))
    job = Job(beats=spec.i.pack(x), outputs=2 * spec.o.count, limit=300)
    seen = spec.accumulators.unpack(Pysim().run(design, job)["products"].payloads)
    np.testing.assert_array_equal(spec.products_of(seen), convolved(spec, x))


@pytest.mark.parametrize("store", ["block", "lut"])
def test_memories_of_either_kind_hold_the_same(run_component, store):
    spec = make(7, 12, 2, 5, weight_store=store, level_store=store)
    x = vectors(spec)
    trace = run_component(spec, x)
    assert np.array_equal(spec.o.unpack(trace["output"].payloads), spec.reference(x))


@pytest.mark.parametrize("folding", [f for f in FOLDINGS if f[0] > 1], ids=str)
def test_interval_is_the_number_of_slots(run_component, folding):
    outputs, inputs, pe, simd = folding
    spec = make(*folding)
    trace = run_component(spec, vectors(spec, frames=8))
    ends = trace["output"].cycles.reshape(8, -1)[:, -1]
    slots = -(-inputs // simd) * -(-outputs // pe)
    assert set(np.diff(ends)) == {slots}


@pytest.mark.parametrize("sign", [1, -1])
def test_reaches_both_ends_of_its_range(run_component, sign):
    weights = np.ones((2, 64), np.int8)
    spec = XnorMvuSpec(weights=weights, pe=1, simd=16)
    trace = run_component(spec, sign * np.ones((1, 64), int))
    assert spec.o.unpack(trace["output"].payloads).tolist() == [[64 * sign, 64 * sign]]


@pytest.mark.parametrize("level", range(-5, 7))
@pytest.mark.parametrize("falling", [False, True])
def test_every_level_at_every_product(run_component, level, falling):
    spec = XnorMvuSpec(
        weights=np.ones((1, 4), np.int8),
        pe=1,
        simd=4,
        levels=np.array([level]),
        falling=np.array([falling]) if falling else None,
    )
    x = np.array([[1] * n + [-1] * (4 - n) for n in range(5)])
    trace = run_component(spec, x)
    products = 2 * np.arange(5) - 4
    expected = products <= level if falling else products >= level
    assert (spec.o.unpack(trace["output"].payloads)[:, 0] > 0).tolist() == expected.tolist()


def test_idle_lanes_of_the_input_carry_no_meaning():
    spec = make(6, 9, 6, 4)
    x = vectors(spec)
    beats = spec.i.pack(x)
    dirty = beats.reshape(len(x), spec.i.count, -1).copy()
    dirty[:, -1, 0] |= 0b1110  # Lanes 1 to 3 of the last beat.
    runs = [
        Pysim().run(Design.of("part", spec.build), Job(beats=b, outputs=5, limit=200))
        for b in (beats, dirty.reshape(beats.shape))
    ]
    runs[0].edges["output"]
    assert runs[0]["output"].difference(runs[1]["output"]) is None


def test_an_incomplete_frame_is_given_up_at_the_next_first():
    spec = make(6, 9, 3, 4)
    x = vectors(spec, frames=3)
    beats = spec.i.pack(x)
    cut = np.delete(beats, [2], axis=0)  # The first frame lacks its last beat.
    outputs = 2 * spec.o.count
    trace = Pysim().run(Design.of("part", spec.build), Job(beats=cut, outputs=outputs, limit=200))
    assert np.array_equal(spec.o.unpack(trace["output"].payloads), spec.reference(x[1:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pe": 0}, "pe must be 1 to 6, not 0"),
        ({"pe": 7}, "pe must be 1 to 6, not 7"),
        ({"simd": 0}, "simd must be 1 to 9, not 0"),
        ({"simd": 10}, "simd must be 1 to 9, not 10"),
    ],
    ids=str,
)
def test_rejects_foldings_beyond_the_matrix(change, message):
    options = {"pe": 1, "simd": 1, "weights": np.ones((6, 9), np.int8), **change}
    with pytest.raises(ConfigError, match=rf"^{message}$"):
        XnorMvuSpec(**options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pe": 5}, "pe must be 1 to 4, not 5"),
        ({"pe": 3}, "pe must divide the 4 outputs of a chunk, not be 3"),
        ({"style": "sum"}, "style must be one of dsp, lut, planes, xnor, not 'sum'"),
        (
            {"style": "xnor"},
            "style 'xnor' needs .*, not s4.0 and ternary: use dsp, lut, planes",
        ),
        (
            {"weights": np.zeros((3, 4, 5), np.int8)},
            r"weights must be \(3, 4, 4\) for the feed, not \(3, 4, 5\)",
        ),
        (
            {"feed": StreamFeedSpec(i=Beats(Fixed(4), 12, 2), folds=1, chunks=3)},
            "folds of the feed must be 2, for 4 outputs 2 a cycle, not 1",
        ),
        (
            {"feed": StreamFeedSpec(i=Beats(Fixed(4), 12, 5), folds=2, chunks=3)},
            "simd must divide the channels of a chunk, 12 / 3, not be 5",
        ),
    ],
    ids=str,
)
def test_rejects_what_does_not_fit_the_feed(change, message):
    feed = StreamFeedSpec(i=Beats(Fixed(4), 12, 2), folds=2, chunks=3)
    weights = np.zeros((3, 4, 4), np.int8)
    options = {"feed": feed, "weights": weights, "fmt": Ternary(), "style": "dsp", "pe": 2}
    with pytest.raises(ConfigError, match=rf"^{message}$"):
        MvuSpec(**options | change)
