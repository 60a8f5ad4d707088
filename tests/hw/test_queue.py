"""Fifo and Queue: order, cycles, room."""

import numpy as np
import pytest
from amaranth.hdl import unsigned
from amaranth.sim import Simulator

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.queue import FifoSpec, Queue
from brambling.quant.formats import Fixed

BEATS = Beats(Fixed(8), 4, 1)


@pytest.mark.parametrize("depth", [3, 4, 5, 9])
def test_fifo_keeps_order(run_component, stalls, depth):
    x = np.random.default_rng(1).integers(-128, 128, (10, 4))
    trace = run_component(FifoSpec(BEATS, depth), x, **stalls)
    assert np.array_equal(BEATS.unpack(trace["output"].payloads), x)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_fifo_rejects_a_depth_below_three(depth):
    with pytest.raises(ConfigError, match=rf"^fifo must be 0 or at least 3 beats, not {depth}$"):
        FifoSpec(BEATS, depth)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_queue_has_room_for_its_depth_and_gets_it_back(depth):
    queue = Queue(unsigned(8), depth)
    seen = []

    async def bench(ctx):
        for n in range(depth):
            assert ctx.get(queue.room)
            ctx.set(queue.reserve, 1)
            ctx.set(queue.write, 1)
            ctx.set(queue.result, n)
            await ctx.tick()
        ctx.set(queue.reserve, 0)
        ctx.set(queue.write, 0)
        assert not ctx.get(queue.room)
        await ctx.tick().repeat(3)
        ctx.set(queue.o.ready, 1)
        for _ in range(depth):
            assert ctx.get(queue.o.valid)
            seen.append(ctx.get(queue.o.payload))
            await ctx.tick()
            assert ctx.get(queue.room)
        assert not ctx.get(queue.o.valid)

    simulator = Simulator(queue)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == list(range(depth))
