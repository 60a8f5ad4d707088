"""Counters inside counters."""

import pytest
from amaranth.hdl import Cat, Module, Signal
from amaranth.sim import Simulator

from brambling.hw.odometer import Odometer, table

COUNTS = [(1, 1, 1), (2, 3, 4), (3, 1, 2), (1, 4, 1)]


@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_counts_in_order(counts):
    m = Module()
    go = Signal()
    odometer = Odometer(m, go, **dict(zip("abc", counts, strict=True)))
    names = list("abc")
    address = odometer.walk(m, "address", counts[0] * counts[2], go, "a", "b", "c")
    coming = odometer.upcoming(m, "c", odometer.turns["b"])
    at = [odometer.at[name] for name in names]
    flags = Cat([odometer.turns[name] for name in names])
    seen = []

    async def bench(ctx):
        for n in range(120):
            ctx.set(go, n % 3 != 1)
            _, _, was, *values, turns, row, following = await ctx.tick().sample(
                go, *at, flags, address, coming
            )
            seen.append((was, values, turns, row, following, ctx.get(at[2])))

    sim = Simulator(m)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()

    number = 0
    for was, values, turns, row, following, after in seen:
        rest, a = divmod(number, counts[0])
        c, b = divmod(rest, counts[1])
        c %= counts[2]
        assert values == [a, b, c]
        assert row == c * counts[0] + a
        assert following == after
        wraps = [a == counts[0] - 1, b == counts[1] - 1, c == counts[2] - 1]
        assert turns == sum(was * all(wraps[: n + 1]) << n for n in range(3))
        number += was


def test_a_table_keeps_only_what_varies():
    m = Module()
    address = Signal(2)
    fields = table(m, "t", address, {"a": [3, 3, 3], "b": [0, 5, 1], "c": [1, 0, 1]})
    seen = []

    async def bench(ctx):
        for n in range(3):
            ctx.set(address, n)
            await ctx.tick()
            seen.append(tuple(ctx.get(fields[name]) for name in "abc"))

    sim = Simulator(m)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    assert seen == [(3, 0, 1), (3, 5, 0), (3, 1, 1)]
