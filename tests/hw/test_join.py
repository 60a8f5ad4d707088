"""Adder and Concatenation: values, and cycles with every source stalled on its own."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.join import AddSpec, ConcatSpec
from brambling.quant.formats import Bipolar, Fixed, Ternary
from brambling.sim.job import Design, Job
from brambling.sim.processes import Process, Sink, Source, Wire, next_allowed
from brambling.sim.pysim import Pysim
from brambling.sim.structure import AddProcess, ConcatProcess


def bits_of(flags):
    return int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little")


class Player(wiring.Component):
    """Offers payloads like a simulation's source: begins to offer one only where ``flags`` say."""

    o: Any

    def __init__(self, beats, payloads, flags):
        self.payloads, self.flags = payloads, flags
        super().__init__({"o": Out(beats.signature)})

    def elaborate(self, platform):
        m = Module()
        count, width = len(self.payloads), len(self.o.payload.as_value())
        rows = np.unpackbits(self.payloads, axis=1, count=width, bitorder="little")
        left = Signal(count * width, init=bits_of(rows.reshape(-1)))
        number = Signal(range(count + 1))
        turn = Signal(len(self.flags), init=bits_of(self.flags))
        held = Signal()
        m.d.sync += [turn.eq(turn.rotate_right(1)), held.eq(self.o.valid & ~self.o.ready)]
        m.d.comb += [
            self.o.valid.eq((number != count) & (turn[0] | held)),
            self.o.payload.as_value().eq(left[:width]),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [number.eq(number + 1), left.eq(left >> width)]
        return m


class Played(wiring.Component):
    """A join whose sources but the first are players."""

    i: Any
    o: Any

    def __init__(self, spec, payloads, flags):
        self.spec, self.payloads, self.flags = spec, payloads, flags
        super().__init__({
            "i": In(spec.sources[0].signature),
            **{f"tap_i{n}": Out(i.tap) for n, i in enumerate(spec.sources) if n},
            "o": Out(spec.o.signature),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.join = join = self.spec.build()
        connect(m, flipped(self.i), join.i0)
        for n, i in enumerate(self.spec.sources[1:], 1):
            player = Player(i, self.payloads[n], self.flags[n])
            m.submodules[f"player{n}"] = player
            connect(m, player.o, join.inputs[n])
            tap = getattr(self, f"tap_i{n}")
            m.d.comb += [
                tap.valid.eq(player.o.valid & player.o.ready),
                tap.payload.eq(player.o.payload),
            ]
        connect(m, join.o, flipped(self.o))
        return m


def run(spec, frames, stalls):
    """Run frames of each source through a join; return its trace, after comparing cycles."""
    count = len(frames[0])
    outputs = count * spec.o.count
    offers = [np.roll(stalls["offer"], 19 * n) for n in range(len(frames))]
    wires, o = tuple(Wire() for _ in frames), Wire()
    processes: list[Process] = [
        Source(wire, count * i.count, next_allowed(offer))
        for wire, i, offer in zip(wires, spec.sources, offers, strict=True)
    ]
    if isinstance(spec, AddSpec):
        joined = AddProcess(wires, o, spec.timing.latency, spec.depth)
    else:
        joined = ConcatProcess(wires, o, spec)
    processes += [joined, Sink(o, next_allowed(stalls["accept"]))]
    while any(process.step() for process in processes):
        pass
    assert len(o.times) == outputs

    payloads = [i.pack(x) for i, x in zip(spec.sources, frames, strict=True)]
    job = Job(
        beats=payloads[0],
        outputs=outputs,
        limit=o.times[-1] + 10,
        offer=offers[0],
        accept=stalls["accept"],
    )
    trace = Pysim().run(Design.of("part", partial(Played, spec, payloads, offers)), job)
    assert trace["output"].cycles.tolist() == o.times
    assert trace["input"].cycles.tolist() == wires[0].times
    for n, wire in enumerate(wires[1:], 1):
        assert trace[f"i{n}"].cycles.tolist() == wire.times

    got = trace["output"].payloads
    assert np.array_equal(spec.o.unpack(got), spec.reference(*frames))
    marks = np.unpackbits(got, axis=1, bitorder="little")[:, spec.o.width - 1]
    assert np.flatnonzero(marks).tolist() == [*range(0, outputs, spec.o.count)]
    return trace


def codes_of(i, frames, seed):
    rng = np.random.default_rng(seed)
    if i.fmt == Bipolar():
        return rng.choice([-1, 1], (frames, i.size))
    return rng.integers(i.fmt.min, i.fmt.max + 1, (frames, i.size))


def image(fmt, elements, lanes, pixels=1):
    return Beats(fmt, elements, lanes, rows=2, columns=3, pixels=pixels)


SUMS = {
    "alike": ((Fixed(4), Fixed(4)), Fixed(5)),
    "aligned": ((Fixed(4, 3), Fixed(5, 1)), Fixed(8, 3)),
    "unsigned": ((Fixed(3, signed=False), Fixed(2, signed=False)), Fixed(4, signed=False)),
    "mixed": ((Fixed(4, signed=False), Bipolar(), Ternary()), Fixed(6)),
    "bits": ((Bipolar(),) * 4, Fixed(4)),
    "more": ((Fixed(3, 2), Fixed(3, 0), Fixed(3, 1), Fixed(4, 2), Fixed(2, 2)), Fixed(7, 2)),
}


@pytest.mark.parametrize("case", SUMS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 2, 1), (3, 3, 2)], ids=str)
def test_adds(stalls, case, shape):
    formats, target = SUMS[case]
    sources = tuple(image(fmt, *shape) for fmt in formats)
    spec = AddSpec(sources=sources, target=target)
    frames = [codes_of(i, 3, seed) for seed, i in enumerate(sources)]
    run(spec, frames, stalls)
    values = sum(x * 2.0**-i.fmt.frac for x, i in zip(frames, sources, strict=True))
    assert np.array_equal(target.decode(spec.reference(*frames)), values)


@pytest.mark.parametrize("case", SUMS)
@pytest.mark.parametrize("end", ["min", "max"])
def test_adds_the_ends_of_the_ranges(case, end):
    formats, target = SUMS[case]
    sources = tuple(Beats(fmt, 2, 2) for fmt in formats)
    always = {"offer": np.ones(1, bool), "accept": np.ones(1, bool)}
    frames = [np.full((2, 2), getattr(fmt, end)) for fmt in formats]
    run(AddSpec(sources=sources, target=target), frames, always)


CONCATS = {
    "alike": ((Fixed(4), Fixed(4)), Fixed(4)),
    "aligned": ((Fixed(4, 3), Fixed(3, 1, signed=False), Fixed(3, 2)), Fixed(6, 3)),
    "bits": ((Bipolar(), Bipolar()), Bipolar()),
    "mixed": ((Bipolar(), Fixed(3, 1)), Fixed(3, 1)),
}


@pytest.mark.parametrize("case", CONCATS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (3, 2)], ids=str)
def test_puts_channels_side_by_side(stalls, case, shape):
    formats, target = CONCATS[case]
    lanes, pixels = shape
    sources = tuple(image(fmt, (n + 1) * lanes, lanes, pixels) for n, fmt in enumerate(formats))
    spec = ConcatSpec(sources=sources, target=target)
    frames = [codes_of(i, 3, seed) for seed, i in enumerate(sources)]
    run(spec, frames, stalls)
    values = np.concatenate(
        [x.reshape(3, 2, 3, -1) * 2.0**-i.fmt.frac for x, i in zip(frames, sources, strict=True)],
        axis=3,
    )
    assert np.array_equal(spec.reference(*frames) * 2.0**-target.frac, values.reshape(3, -1))


@pytest.mark.parametrize("kind", [AddSpec, ConcatSpec])
@pytest.mark.parametrize("queue", [1, 2, None])
def test_loses_no_cycle_with_its_own_depth(kind, queue):
    sources = (image(Fixed(4), 4, 2), image(Fixed(4), 4, 2))
    spec = kind(sources=sources, target=Fixed(5), queue=queue)
    always = {"offer": np.ones(1, bool), "accept": np.ones(1, bool)}
    frames = [codes_of(i, 3, seed) for seed, i in enumerate(sources)]
    steps = np.diff(run(spec, frames, always)["output"].cycles)
    assert (set(steps) == {1}) == (queue is None)


A = image(Fixed(4), 4, 2)


@pytest.mark.parametrize(
    ("kind", "sources", "target", "message"),
    [
        (AddSpec, (A,), Fixed(5), "a join needs 2 sources or more, not 1"),
        (
            AddSpec,
            (A, image(Fixed(4), 4, 4)),
            Fixed(5),
            "sources of a join must have the same lanes, 2 like source 0, not 4 like source 1",
        ),
        (
            ConcatSpec,
            (A, Beats(Fixed(4), 4, 2, 3, 3)),
            Fixed(5),
            "sources of a join must have the same rows, 2 like source 0, not 3 like source 1",
        ),
        (
            AddSpec,
            (A, image(Fixed(4), 6, 2)),
            Fixed(5),
            "sources of a sum must have the same channels, 4 like source 0, not 6 like source 1",
        ),
        (
            AddSpec,
            (A, image(Fixed(4, 2), 4, 2)),
            Fixed(9, 1),
            "target must have 2 fractional bits or more, like source 1, not 1",
        ),
        (AddSpec, (A, A), Fixed(4), "target must hold -16 to 14, s4.0 does not"),
        (ConcatSpec, (A, A), Fixed(3), "target must hold -8 to 7, s3.0 does not"),
        (ConcatSpec, (A, A), Bipolar(), "target must hold the codes of s4.0, bipolar does not"),
        (
            ConcatSpec,
            (A, image(Fixed(4), 5, 2)),
            Fixed(4),
            (
                "lanes must divide the 5 channels of source 1, not 2: "
                "use a width adapter before the join"
            ),
        ),
    ],
)
def test_rejects(kind, sources, target, message):
    with pytest.raises(ConfigError) as caught:
        kind(sources=sources, target=target)
    assert str(caught.value) == message
