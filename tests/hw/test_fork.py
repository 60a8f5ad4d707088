"""Fork: every reader gets every beat, none before the others."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.sim import Simulator

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.fork import ForkSpec
from brambling.hw.queue import FifoSpec
from brambling.quant.formats import Fixed
from brambling.sim.job import Design, Job
from brambling.sim.processes import FifoProcess, Process, Sink, Source, Wire, next_allowed
from brambling.sim.pysim import Pysim
from brambling.sim.structure import ForkProcess

BEATS = Beats(Fixed(5), 6, 2, rows=2, columns=2)


class Readers(wiring.Component):
    """A fork with a FIFO behind each output; all but the first are read here, as ``flags`` say."""

    i: Any
    o: Any

    def __init__(self, spec, depths, flags):
        self.spec, self.depths, self.flags = spec, depths, flags
        super().__init__({
            "i": In(spec.i.signature),
            **{f"tap_o{n + 1}": Out(spec.o.tap) for n in range(len(flags))},
            "o": Out(spec.o.signature),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.fork = fork = self.spec.build()
        connect(m, flipped(self.i), fork.i)
        for n, depth in enumerate(self.depths):
            m.submodules[f"fifo{n}"] = fifo = FifoSpec(self.spec.o, depth).build()
            connect(m, fork.outputs[n], fifo.i)
            if n == 0:
                connect(m, fifo.o, flipped(self.o))
                continue
            flags = self.flags[n - 1]
            turn = Signal(len(flags), init=int("".join(map(str, flags[::-1].astype(int))), 2))
            tap = getattr(self, f"tap_o{n}")
            m.d.sync += turn.eq(turn.rotate_right(1))
            m.d.comb += [
                fifo.o.ready.eq(turn[0]),
                tap.valid.eq(fifo.o.valid & fifo.o.ready),
                tap.payload.eq(fifo.o.payload),
            ]
        return m


def settle(processes, wires):
    """Step until nothing more is known: what is wanted counts too, not only what moves."""
    known, before = 0, -1
    while known > before:
        for process in processes:
            process.step()
        before, known = known, sum(len(wire.offers) + len(wire.readies) for wire in wires)


@pytest.mark.parametrize("depths", [(3, 3), (5, 3), (3, 8, 4)], ids=str)
def test_every_reader_gets_every_beat(stalls, depths):
    spec = ForkSpec(i=BEATS, count=len(depths))
    x = np.random.default_rng(1).integers(-16, 16, (5, BEATS.size))
    accepts = [np.roll(stalls["accept"], 11 * n) for n in range(len(depths))]
    source, forked, read = Wire(), *([Wire() for _ in depths] for _ in range(2))
    processes: list[Process] = [
        Source(source, 5 * BEATS.count, next_allowed(stalls["offer"])),
        ForkProcess(source, tuple(forked)),
    ]
    for i, o, depth, accept in zip(forked, read, depths, accepts, strict=True):
        processes += [FifoProcess(o, i, depth - 1), Sink(o, next_allowed(accept))]
    settle(processes, [source, *forked, *read])

    outputs = 5 * BEATS.count
    job = Job(
        beats=BEATS.pack(x),
        outputs=outputs,
        limit=read[0].times[-1] + 10,
        offer=stalls["offer"],
        accept=accepts[0],
    )
    trace = Pysim().run(Design.of("part", partial(Readers, spec, depths, accepts[1:])), job)
    assert trace["input"].cycles.tolist() == source.times
    assert all(wire.times == source.times for wire in forked)
    assert trace["output"].cycles.tolist() == read[0].times
    assert np.array_equal(trace["output"].payloads, BEATS.pack(spec.reference(x)[0]))
    for n, wire in enumerate(read[1:], 1):
        seen = trace[f"o{n}"]
        assert seen.cycles.tolist() == [t for t in wire.times if t <= read[0].times[-1]]
        assert np.array_equal(seen.payloads, BEATS.pack(spec.reference(x)[n])[: len(seen.cycles)])


def test_valid_does_not_wait_for_its_own_reader():
    fork = ForkSpec(i=BEATS, count=3).build()
    outs = fork.outputs

    async def bench(ctx):
        ctx.set(Value.cast(fork.i.payload), 5)
        for offered in (0, 1):
            ctx.set(fork.i.valid, offered)
            for readies in range(8):
                for n, o in enumerate(outs):
                    ctx.set(o.ready, readies >> n & 1)
                assert ctx.get(fork.i.ready) == (readies == 7)
                for n, o in enumerate(outs):
                    assert ctx.get(o.valid) == (offered and readies | 1 << n == 7)
                    assert ctx.get(Value.cast(o.payload)) == 5

    simulator = Simulator(fork)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("count", [0, 1])
def test_rejects_fewer_than_two_outputs(count):
    with pytest.raises(ConfigError, match=rf"^a fork needs 2 outputs or more, not {count}$"):
        ForkSpec(i=BEATS, count=count)
