"""Forks and joins as a whole: every wire at every beat, also of what gets stuck."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from brambling.boards.parts import find_board
from brambling.boards.solver import fold
from brambling.hw.accelerator import pipeline
from brambling.hw.argmax import ArgMaxSpec
from brambling.hw.beat import Beats
from brambling.hw.fork import ForkSpec
from brambling.hw.join import AddSpec, ConcatSpec
from brambling.hw.node import Node, Port, stream_of
from brambling.hw.pool import PoolSpec
from brambling.hw.queue import FifoSpec
from brambling.hw.slice import SliceSpec
from brambling.hw.window import WindowFeedSpec
from brambling.layers.image import Window
from brambling.plan import LEAST_FIFO
from brambling.quant.formats import Fixed
from brambling.sim import golden
from brambling.sim.cycles import Deadlock, Model
from brambling.sim.job import Design, Job, pattern
from brambling.sim.processes import Wire
from brambling.sim.pysim import Pysim
from brambling.sim.sizing import size
from brambling.sim.structure import ForkProcess

BEATS = Beats(Fixed(4), 4, 2, rows=4, columns=3)
STALLS = [("none", "none"), ("random", "none"), ("none", "random"), ("burst", "random")]


def ports_of(node):
    if isinstance(node.spec, ForkSpec):
        return [Port(node.name, n) for n in range(node.spec.count)]
    return [Port(node.name)]


def tap_of(port):
    return port.node if port.index is None else f"{port.node}{port.index}"


class Graph(wiring.Component):
    """All components; ``o`` only counts cycles, since what is stuck gives nothing there.

    Every stream inside has a tap, the last one is read as ``flags`` say.
    """

    i: Any
    o: Any

    def __init__(self, nodes, flags):
        self.nodes, self.flags = nodes, flags
        taps = {f"tap_{tap_of(p)}": Out(n.spec.o.tap) for n in nodes for p in ports_of(n)}
        super().__init__({
            "i": In(nodes[0].spec.i.signature),
            **taps,
            "o": Out(Beats(Fixed(2), 1, 1).signature),
        })

    def elaborate(self, platform):
        m = Module()
        parts = {node.name: node.spec.build() for node in self.nodes}
        for node in self.nodes:
            part = parts[node.name]
            m.submodules[node.name] = part
            several = len(node.sources) > 1
            for n, port in enumerate(node.sources):
                source = stream_of(parts[port.node], "o", port.index)
                connect(m, source, stream_of(part, "i", n if several else None))
            for port in ports_of(node):
                o = stream_of(part, "o", port.index)
                tap = getattr(self, f"tap_{tap_of(port)}")
                m.d.comb += [tap.valid.eq(o.valid & o.ready), tap.payload.eq(o.payload)]
        connect(m, flipped(self.i), parts[self.nodes[0].name].i)
        turn = Signal(len(self.flags), init=int("".join("01"[int(f)] for f in self.flags[::-1]), 2))
        m.d.sync += turn.eq(turn.rotate_right(1))
        m.d.comb += [self.o.valid.eq(1), parts[self.nodes[-1].name].o.ready.eq(turn[0])]
        return m


@pytest.fixture(params=STALLS, ids="-".join)
def run(request):
    """Run nodes until nothing moves any more; return what the model says, and the trace.

    They are equal in every beat on every wire. The model's word is ``None``, or why it got stuck.
    """
    offer, accept = (pattern(kind, seed=n) for n, kind in enumerate(request.param))

    def run(nodes, x):
        model = Model(nodes, offer, accept)
        stuck = None
        try:
            model.run(len(x) * nodes[0].spec.i.count, len(x) * nodes[-1].spec.o.count)
        except Deadlock as deadlock:
            stuck = str(deadlock)
        wires = {tap_of(port): wire.times for port, wire in model.wires.items()}
        wires["input"] = model.source.times
        limit = max(times[-1] for times in wires.values() if times) + 100
        job = Job(beats=nodes[0].spec.i.pack(x), outputs=limit, limit=limit, offer=offer)
        trace = Pysim().run(Design.of("graph", partial(Graph, nodes, accept)), job)
        for name, times in wires.items():
            assert trace[name].cycles.tolist() == times, name
        return stuck, trace

    return run


def residual(depth):
    """A 3 by 3 window, and beside it a FIFO of ``depth`` beats, added."""
    window = Window(kernel=(3, 3), padding=(1, 1, 1, 1))
    feed = WindowFeedSpec(source=BEATS, window=window, chunks=2, pad_value=-8)
    total = AddSpec(sources=(BEATS, BEATS), target=Fixed(5))
    return (
        Node("fork", ForkSpec(BEATS, 2)),
        Node("pool", PoolSpec(feed=feed, kind="max", target=Fixed(4)), (Port("fork", 0),)),
        Node("short", FifoSpec(BEATS, depth), (Port("fork", 1),)),
        Node("add", total, (Port("pool"), Port("short"))),
    )


@pytest.mark.parametrize("depth", [3, 9, 10, 14])
def test_beside_a_window_as_much_must_be_held_as_it_waits_for(run, depth):
    nodes = residual(depth)
    pool, total = nodes[1].spec, nodes[-1].spec
    x = np.random.default_rng(1).integers(-8, 8, (3, BEATS.size))
    stuck, trace = run(nodes, x)
    # Every position before one may have left the FIFO, but nothing from that position on.
    needs = pool.feed.need.tolist()
    assert max(need + 1 - n * BEATS.groups for n, need in enumerate(needs)) == 10
    if depth < 10:
        taken = len(trace["input"].cycles)
        assert taken == depth
        assert stuck == (
            f"the accelerator stops after 0 of {3 * BEATS.count} output beats, "
            f"with {taken} input beats taken"
        )
    else:
        assert stuck is None
        assert np.array_equal(total.o.unpack(trace["add"].payloads), x + pool.reference(x))


@pytest.mark.parametrize("shrunk", [False, True])
def test_a_planned_residual_network_stops_only_with_a_smaller_fifo(run, cnns, shrunk):
    network = cnns["shortcut"](1)
    plan = size(network, fold(network, find_board("ulx3s-25f"), "max-fps"))
    *stages, join = plan.stages
    assert join.engine == "add"
    computed = max(join.fifo)
    assert computed > LEAST_FIFO
    if shrunk:
        join = replace(join, fifo=tuple(min(depth, LEAST_FIFO) for depth in join.fifo))
    nodes = pipeline(network, replace(plan, stages=(*stages, join)))
    x = np.random.default_rng(1).integers(0, 16, (3, network.input.size))
    stuck, trace = run(nodes, x)  # Model and RTL stop at the same clock, on every wire.
    if shrunk:
        assert stuck is not None
        assert stuck.startswith("the accelerator stops after 0 of ")
    else:
        assert stuck is None
        wanted = golden.run(network, x.reshape(3, *network.input.shape))[network.layers[-1].name]
        assert np.array_equal(nodes[-1].spec.o.unpack(trace[join.layer].payloads).ravel(),
                              wanted.ravel())  # fmt: skip


def test_slices_of_a_fork_side_by_side_again(run):
    i = Beats(Fixed(4), 6, 2, rows=2, columns=2)
    parts = [SliceSpec(i=i, start=4, stop=6), SliceSpec(i=i, start=0, stop=4)]
    concat = ConcatSpec(sources=(parts[0].o, parts[1].o), target=Fixed(4))
    nodes = (
        Node("fork", ForkSpec(i, 2)),
        Node("high", parts[0], (Port("fork", 0),)),
        Node("low", parts[1], (Port("fork", 1),)),
        Node("fifo0", FifoSpec(parts[0].o, 3), (Port("high"),)),
        Node("fifo1", FifoSpec(parts[1].o, 3), (Port("low"),)),
        Node("concat", concat, (Port("fifo0"), Port("fifo1"))),
    )
    x = np.random.default_rng(1).integers(-8, 8, (4, i.size))
    stuck, trace = run(nodes, x)
    assert stuck is None
    expected = np.roll(x.reshape(4, 2, 2, 6), 2, axis=3).reshape(4, -1)
    assert np.array_equal(trace["concat"].payloads, concat.o.pack(expected))


@pytest.mark.parametrize("queue", [1, None])
def test_engines_behind_a_fork_wait_for_each_other(run, queue):
    i = Beats(Fixed(4), 6, 2)
    engine = ArgMaxSpec(source=Fixed(4), elements=6, simd=2, queue=queue)
    total = AddSpec(sources=(engine.o,) * 3, target=Fixed(5, signed=False), queue=queue)
    nodes = (
        Node("fork", ForkSpec(i, 3)),
        *(Node(f"max{n}", engine, (Port("fork", n),)) for n in range(3)),
        Node("add", total, (Port("max0"), Port("max1"), Port("max2"))),
    )
    x = np.random.default_rng(1).integers(-8, 8, (6, 6))
    stuck, trace = run(nodes, x)
    assert stuck is None
    assert total.o.unpack(trace["add"].payloads)[:, 0].tolist() == (3 * x.argmax(axis=1)).tolist()


def test_the_fork_offers_nothing_that_another_reader_does_not_take():
    i, outs = Wire(), [Wire(), Wire()]
    fork = ForkProcess(i, outs)
    i.offer(5)
    outs[0].want(0)
    assert fork.step()
    assert (outs[0].offers, outs[1].offers, i.readies) == ([], [5], [])
    outs[1].want(9)
    assert fork.step()
    assert (outs[0].times, outs[1].times, i.times) == ([9], [9], [9])
    assert not fork.step()
