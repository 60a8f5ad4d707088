"""Sums of shifted terms against Python's integers."""

import numpy as np
import pytest
from amaranth.hdl import Module, Signal, signed, unsigned
from amaranth.sim import Simulator

from brambling.hw.popcount import Levels
from brambling.hw.terms import Term, add_terms, tree_levels


@pytest.mark.parametrize("terms", [2, 3, 5, 8])
@pytest.mark.parametrize("every", [1, 2])
def test_sum_of_shifted_terms_of_either_sign(terms, every):
    rng = np.random.default_rng(terms)
    widths, shifts = rng.integers(1, 6, terms), np.sort(rng.integers(0, 7, terms))
    signs = rng.random(terms) < 0.5
    inputs = [
        Signal(signed(int(w)) if s else unsigned(int(w)))
        for w, s in zip(widths, signs, strict=True)
    ]
    negative = (rng.random(terms) < 0.4) & (np.arange(terms) > 0)

    m = Module()
    levels = Levels(m, every, max(1, tree_levels(terms)))
    summands = [Term(*row) for row in zip(inputs, shifts.tolist(), negative.tolist(), strict=True)]
    (total,) = add_terms(levels, [summands])
    seen = Signal(signed(24))
    m.d.comb += seen.eq(total.value.shift_left(total.shift))
    assert not total.negative
    latency = levels.pipe.depth

    async def bench(ctx):
        for _ in range(40):
            codes = [
                int(rng.integers(-(1 << w - 1), 1 << w - 1) if s else rng.integers(1 << w))
                for w, s in zip(widths, signs, strict=True)
            ]
            for signal, code in zip(inputs, codes, strict=True):
                ctx.set(signal, code)
            await ctx.tick().repeat(latency + 1)
            expected = sum(
                (-1) ** int(n) * (code << int(shift))
                for code, shift, n in zip(codes, shifts, negative, strict=True)
            )
            assert ctx.get(seen) == expected

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
