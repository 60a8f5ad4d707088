"""MatchCount against its reference, its latency, and its limits."""

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from brambling.errors import ConfigError
from brambling.hw.popcount import MatchCountSpec, encode_value

LANES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 17, 31, 33, 63, 64, 100, 130]


def ints(words):
    """Words of bits ``(n, lanes)`` as integers, element 0 in bit 0."""
    return [int("".join("01"[bit] for bit in word[::-1]), 2) for word in words.astype(int)]


def simulate(spec, x, w):
    """Counts at the output at the edges from ``latency`` on, new operands at every edge."""
    m = Module()
    m.submodules.dut = dut = spec.build()
    counts = []

    async def bench(ctx):
        operands = list(zip(ints(spec.encode(x)), ints(spec.encode(w)), strict=True))
        for xs, ws in operands + [(0, 0)] * spec.latency:
            ctx.set(dut.x, xs)
            ctx.set(dut.w, ws)
            counts.append(ctx.get(dut.o))
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return counts[spec.latency :]


def every_pair(lanes):
    words = np.arange(1 << lanes)[:, None] >> np.arange(lanes) & 1 == 1
    return np.repeat(words, len(words), axis=0), np.tile(words, (len(words), 1))


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("lanes", [1, 2, 3, 4])
def test_every_pair_of_words(lanes, every):
    spec = MatchCountSpec(lanes, every)
    x, w = every_pair(lanes)
    assert simulate(spec, x, w) == list(spec.reference(x, w))


@pytest.mark.parametrize("every", [1, 2, 3, 100])
@pytest.mark.parametrize("lanes", LANES)
def test_new_words_every_cycle(lanes, every):
    spec = MatchCountSpec(lanes, every)
    x, w = np.random.default_rng(lanes).integers(0, 2, (2, 50, lanes), dtype=bool)
    assert simulate(spec, x, w) == list(spec.reference(x, w))


@pytest.mark.parametrize("lanes", LANES)
def test_reaches_both_ends_of_its_range(lanes):
    x = np.random.default_rng(1).integers(0, 2, (1, lanes), dtype=bool)
    both = simulate(MatchCountSpec(lanes), np.vstack([x, x]), np.vstack([~x, x]))
    assert both == [0, lanes]


@pytest.mark.parametrize("lanes", [1, 2, 3, 8, 17, 100])
def test_codes_values_as_it_codes_arrays(lanes):
    words = np.random.default_rng(2).integers(0, 2, (20, lanes), dtype=bool)
    coded = []
    m = Module()
    bits = Signal(lanes)
    output = encode_value(m, bits)

    async def bench(ctx):
        for word in ints(words):
            ctx.set(bits, word)
            coded.append(ctx.get(output))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    assert coded == ints(MatchCountSpec(lanes).encode(words))


@pytest.mark.parametrize("lanes", [0, -3])
def test_rejects_no_lanes(lanes):
    with pytest.raises(ConfigError, match=rf"^lanes must be at least 1, not {lanes}$"):
        MatchCountSpec(lanes)


def test_rejects_no_level_between_registers():
    with pytest.raises(ConfigError, match=r"^every must be at least 1, not 0$"):
        MatchCountSpec(8, every=0)
