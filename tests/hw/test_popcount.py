"""MatchCount and MatchBank against their references, their latencies, and their limits."""

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from brambling.errors import ConfigError
from brambling.hw.popcount import MatchBankSpec, MatchCountSpec, encode_value

LANES = [5, 6, 7, 8, 9, 13, 16, 31, 64, 130]


def bits(seed, *shape):
    return np.random.default_rng(seed).integers(0, 2, shape, dtype=bool)


def ints(words):
    """Words of bits ``(n, lanes)`` as integers, element 0 in bit 0."""
    return [
        int.from_bytes(np.packbits(word, bitorder="little").tobytes(), "little") for word in words
    ]


def simulate(spec, x, w):
    """Outputs in the cycles from ``latency`` on, for new operands in every cycle."""
    m = Module()
    m.submodules.dut = dut = spec.build()
    results = []

    async def bench(ctx):
        operands = list(zip(ints(x), ints(w), strict=True))
        for xs, ws in operands + [(0, 0)] * spec.latency:
            ctx.set(dut.x, xs)
            ctx.set(dut.w, ws)
            outputs = [dut.o] if isinstance(dut.o, Signal) else dut.o
            results.append([ctx.get(o) for o in outputs])
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return np.array(results[spec.latency :])


def counts(spec, x, w):
    return simulate(spec, spec.encode(x), spec.encode(w))[:, 0]


def every_pair(lanes):
    words = np.arange(1 << lanes)[:, None] >> np.arange(lanes) & 1 == 1
    return np.repeat(words, len(words), axis=0), np.tile(words, (len(words), 1))


# One exact counter -----------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("lanes", [1, 2, 3, 4])
def test_count_of_every_pair_of_words(lanes, every):
    spec = MatchCountSpec(lanes, every)
    x, w = every_pair(lanes)
    np.testing.assert_array_equal(counts(spec, x, w), spec.reference(x, w))


@pytest.mark.parametrize("every", [1, 2, 100])
@pytest.mark.parametrize("lanes", LANES)
def test_count_of_new_words_every_cycle(lanes, every):
    spec = MatchCountSpec(lanes, every)
    x, w = bits(lanes, 2, 30, lanes)
    np.testing.assert_array_equal(counts(spec, x, w), spec.reference(x, w))


@pytest.mark.parametrize("lanes", [1, 2, 3, 17, 64])
def test_count_reaches_both_ends_of_its_range(lanes):
    x = bits(1, 1, lanes)
    both = counts(MatchCountSpec(lanes), np.vstack([x, x]), np.vstack([~x, x]))
    assert both.tolist() == [0, lanes]


@pytest.mark.parametrize("lanes", [1, 2, 3, 8, 17, 100])
def test_codes_values_as_it_codes_arrays(lanes):
    words = bits(2, 20, lanes)
    coded = []
    m = Module()
    word = Signal(lanes)
    output = encode_value(m, word)

    async def bench(ctx):
        for value in ints(words):
            ctx.set(word, value)
            coded.append(ctx.get(output))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    assert coded == ints(MatchCountSpec(lanes).encode(words))


# Counters that share an operand ----------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("lanes", [1, 2, 3, 4])
def test_bank_with_every_pair_of_words(lanes, every):
    spec = MatchBankSpec(lanes, 2, every)
    x, w = every_pair(lanes)
    w = np.stack([w, ~w], axis=1)
    np.testing.assert_array_equal(simulate(spec, x, spec.encode(w)), spec.reference(x, w))


@pytest.mark.parametrize("every", [1, 2, 100])
@pytest.mark.parametrize("lanes", LANES)
def test_bank_with_new_words_every_cycle(lanes, every):
    spec = MatchBankSpec(lanes, 3, every)
    x, w = bits(lanes, 20, lanes), bits(2, 20, 3, lanes)
    np.testing.assert_array_equal(simulate(spec, x, spec.encode(w)), spec.reference(x, w))


@pytest.mark.parametrize("lanes", [1, 2, 3, 17, 64])
def test_bank_exceeds_matches_by_what_the_weights_alone_say(lanes):
    spec = MatchBankSpec(lanes, 2)
    x, w = bits(3, 20, lanes), np.repeat(bits(4, 1, 2, lanes), 20, axis=0)
    matches = np.count_nonzero(x[:, None] == w, axis=2)
    results = simulate(spec, x, spec.encode(w))
    np.testing.assert_array_equal(results - matches, spec.excess(w))
    assert len(np.unique(results - matches, axis=0)) == 1


@pytest.mark.parametrize("lanes", [1, 2, 3, 17, 64])
def test_bank_reaches_both_ends_of_its_range(lanes):
    spec = MatchBankSpec(lanes, 1)
    none, first = np.zeros((1, lanes), bool), np.arange(lanes)[None] < spec.pairs
    x, w = np.vstack([none, first]), np.vstack([~none, first])[:, None]
    low = lanes % 2 * 2  # The lane without another one does not match it either.
    assert simulate(spec, x, spec.encode(w))[:, 0].tolist() == [low, 3 * spec.pairs]


# Limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build", [MatchCountSpec, lambda lanes: MatchBankSpec(lanes, 1)], ids=["count", "bank"]
)
@pytest.mark.parametrize("lanes", [0, -3])
def test_rejects_no_lanes(build, lanes):
    with pytest.raises(ConfigError, match=rf"^lanes must be at least 1, not {lanes}$"):
        build(lanes)


def test_rejects_no_words():
    with pytest.raises(ConfigError, match=r"^pe must be at least 1, not 0$"):
        MatchBankSpec(8, 0)


@pytest.mark.parametrize(
    "build", [lambda every: MatchCountSpec(8, every), lambda every: MatchBankSpec(8, 1, every)]
)
def test_rejects_no_level_between_registers(build):
    with pytest.raises(ConfigError, match=r"^every must be at least 1, not 0$"):
        build(0)
