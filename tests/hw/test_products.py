"""ProductBank against its reference: every style, every kind of format, both ends of the ranges."""

from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from brambling.errors import ConfigError
from brambling.hw.products import STYLES, ProductBankSpec
from brambling.quant.formats import parse_format

INPUTS = ["bipolar", "u1.0", "u2.0", "s2.0", "s3.0", "u4.0", "s8.0", "u8.0", "s16.0", "u16.0"]
WEIGHTS = ["bipolar", "ternary", "s2.0", "u2.0", "s4.0", "u5.0", "s8.0", "s16.0", "u16.0"]
SIZES = [(1, 1), (3, 2), (5, 3), (8, 4)]  # simd, pe


def codes(fmt, shape, seed):
    """Random codes; about a third of them at either end of the range."""
    rng = np.random.default_rng(seed)
    if fmt == "bipolar":
        return rng.choice([-1, 1], shape)
    fmt = parse_format(fmt)
    drawn = rng.integers(fmt.min, fmt.max + 1, shape)
    return np.where(rng.random(shape) < 0.3, rng.choice([fmt.min, fmt.max], shape), drawn)


def ends(fmt, shape):
    """Cases of all smallest and all largest codes, half the cases each."""
    fmt = parse_format(fmt)
    flags = (np.arange(shape[0]) % 2 == 0).reshape(-1, *[1] * (len(shape) - 1))
    return np.broadcast_to(np.where(flags, fmt.min, fmt.max), shape)


def integers(rows):
    packed = np.packbits(rows, axis=-1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def simulate(spec, x, w):
    """Results in the cycles from ``latency`` on, for new operands in every cycle."""
    m = Module()
    m.submodules.dut = dut = spec.build()
    bits = spec.x.to_bits(x)[..., None] >> np.arange(spec.x.width, dtype=np.uint64) & np.uint64(1)
    xs = integers(bits.astype(bool).reshape(len(x), -1))
    ws = integers(spec.encode(w))
    results = []

    async def bench(ctx):
        for one, row in [*zip(xs, ws, strict=True), *[(0, 0)] * spec.latency]:
            ctx.set(dut.x, one)
            ctx.set(dut.w, row)
            results.append([ctx.get(o) for o in dut.o])
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return np.array(results[spec.latency :])


def sums(spec, x, w):
    """Sums of products that the results stand for."""
    twice = spec.gain * simulate(spec, x, w) - spec.excess(w)
    assert not (twice % 2).any()
    return twice // 2


def bank(x, w, simd, pe, style, **options):
    return ProductBankSpec(parse_format(x), parse_format(w), simd, pe, style, **options)


@pytest.mark.parametrize(
    ("x", "w", "style"),
    [
        (x, w, style)
        for x in INPUTS
        for w in WEIGHTS
        for style in STYLES
        if style != "planes" or parse_format(x).width * parse_format(w).width <= 40
    ],
)
def test_equals_reference(x, w, style):
    simd, pe = SIZES[(INPUTS.index(x) + WEIGHTS.index(w)) % len(SIZES)]
    spec = bank(x, w, simd, pe, style)
    drawn = codes(x, (24, simd), 1), codes(w, (24, pe, simd), 2)
    extreme = ends(x, (4, simd)), ends(w, (4, pe, simd))[[0, 1, 1, 0]]
    xs, ws = (np.concatenate(pair) for pair in zip(drawn, extreme, strict=True))
    np.testing.assert_array_equal(sums(spec, xs, ws), spec.reference(xs, ws))


@pytest.mark.parametrize("every", [2, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("formats", [("s4.0", "s4.0"), ("u4.0", "ternary")], ids=str)
def test_equals_reference_at_every_size(formats, style, size, every):
    simd, pe = size
    spec = bank(formats[0], formats[1], simd, pe, style, every=every)
    x, w = codes(formats[0], (20, simd), 3), codes(formats[1], (20, pe, simd), 4)
    np.testing.assert_array_equal(sums(spec, x, w), spec.reference(x, w))


@pytest.mark.parametrize("style", STYLES)
def test_every_product_of_narrow_codes(style):
    spec = bank("s2.0", "s3.0", 2, 2, style)
    a, b, c = np.indices((4, 8, 8)).reshape(3, -1) - np.array([[2], [4], [4]])
    x, w = np.stack([a, -1 - a], axis=1), np.stack([b, c, c, b], axis=1).reshape(-1, 2, 2)
    np.testing.assert_array_equal(sums(spec, x, w), spec.reference(x, w))


@pytest.mark.parametrize(
    ("x", "w", "pe", "multipliers"),
    [
        ("s8.0", "s8.0", 4, 4),  # 16 + 8 bits are too many.
        ("s4.0", "s4.0", 4, 2),  # 8 + 5
        ("s4.0", "s4.0", 5, 3),
        ("s2.0", "s2.0", 4, 1),  # 3 * 4 + 3
        ("u8.0", "ternary", 4, 2),  # 9 + 2
        ("u4.0", "bipolar", 4, 1),  # 3 * 5 + 2
    ],
)
def test_rows_that_fit_share_a_multiplier(x, w, pe, multipliers):
    assert bank(x, w, 3, pe, "dsp").multipliers == 3 * multipliers
    assert bank(x, w, 3, pe, "lut").multipliers == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"style": "csd"}, "style must be one of dsp, lut, planes, not 'csd'"),
        ({"simd": 0}, "simd must be at least 1, not 0"),
        ({"pe": 0}, "pe must be at least 1, not 0"),
        ({"every": 0}, "every must be at least 1, not 0"),
        ({"x": "s17.0"}, "x must have at most 16 bits, not s17.0: requantise before"),
        ({"w": "s17.0"}, "w must have at most 16 bits, not s17.0: requantise before"),
    ],
    ids=str,
)
def test_rejects(change, message):
    options: dict[str, Any] = {
        "x": "s4.0",
        "w": "s4.0",
        "simd": 2,
        "pe": 2,
        "style": "dsp",
        **change,
    }
    with pytest.raises(ConfigError, match=rf"^{message}$"):
        bank(**options)
