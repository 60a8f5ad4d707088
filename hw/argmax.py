"""Arg-max."""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from brambling.hw.beat import Beats, shape_of
from brambling.hw.counter import below
from brambling.hw.queue import Queue
from brambling.quant.formats import Bipolar, Fixed, Format
from brambling.timing import Timing

__all__ = ["ArgMaxSpec", "ArgMaxUnit"]


@dataclass(frozen=True, kw_only=True)
class ArgMaxSpec:
    """Index of the largest of ``elements`` values, ``simd`` a cycle; of equal ones the lowest."""

    source: Format
    elements: int
    simd: int
    queue: int | None = None

    @property
    def i(self) -> Beats:
        return Beats(self.source, self.elements, self.simd)

    @property
    def o(self) -> Beats:
        return Beats(Fixed.spanning(0, self.elements - 1), 1, 1)

    @property
    def levels(self) -> int:
        """Levels of the tree that compares the lanes of a beat."""
        return (self.simd - 1).bit_length()

    @property
    def timing(self) -> Timing:
        # Input register, one edge a level of the tree, comparison with the best so far.
        return Timing(self.i.count, 1, latency=2 + self.levels)

    @property
    def depth(self) -> int:
        """Places in the output queue."""
        return self.timing.queue if self.queue is None else self.queue

    def build(self) -> "ArgMaxUnit":
        return ArgMaxUnit(self)


class ArgMaxUnit(wiring.Component):
    """Streaming form of :class:`ArgMaxSpec`.

    Members
    -------
    i : ``In(spec.i.signature)``
    o : ``Out(spec.o.signature)``
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, spec: ArgMaxSpec) -> None:
        self.spec = spec
        super().__init__({"i": In(spec.i.signature), "o": Out(spec.o.signature)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.queue = queue = Queue(spec.o.layout, spec.depth)
        connect(m, queue.o, flipped(self.o))

        beat, next_beat = Signal(below(spec.i.count)), Signal(below(spec.i.count))
        last, go = Signal(), Signal()
        m.d.comb += [
            beat.eq(Mux(self.i.payload.first, 0, next_beat)),
            last.eq(beat == spec.i.count - 1),
            self.i.ready.eq(queue.room | ~last),
            go.eq(self.i.valid & self.i.ready),
            queue.reserve.eq(go & last),
        ]
        with m.If(go):
            m.d.sync += next_beat.eq(Mux(last, 0, beat + 1))

        # Cycle 1: lanes with their indices; idle lanes lose against everything.
        rows = [
            (spec.i.lane(self.i.payload.data, n), beat * spec.simd + n) for n in range(spec.simd)
        ]
        bits = int(spec.source.to_bits(spec.source.min))
        lowest = Const(bits, spec.source.width)
        if spec.source != Bipolar() and spec.source.signed:
            lowest = lowest.as_signed()
        rows = [
            (Mux(last, lowest, value) if n >= spec.i.tail else Value.cast(value), index)
            for n, (value, index) in enumerate(rows)
        ]
        flags = self._register(m, "taken", go, go & last, beat == 0)
        rows = [self._candidate(m, f"lane{n}", *row) for n, row in enumerate(rows)]
        for level in range(spec.levels):
            flags = self._register(m, f"level{level}", *flags)
            pairs = [rows[n : n + 2] for n in range(0, len(rows), 2)]
            rows = [
                self._candidate(m, f"level{level}_{n}", *self._larger(*pair))
                for n, pair in enumerate(pairs)
            ]

        # Cycle 2 + levels: the best so far is the best.
        valid, complete, start = flags
        value, index = rows[0]
        best, winner, write = Signal.like(value), Signal.like(index), Signal()
        with m.If(valid & (start | (value > best))):
            m.d.sync += [best.eq(value), winner.eq(index)]
        m.d.sync += write.eq(complete)
        m.d.comb += [
            queue.write.eq(write),
            queue.result.first.eq(1),
            queue.result.data.eq(winner),
        ]
        return m

    def _register(self, m: Module, name: str, *flags: Value) -> tuple[Signal, ...]:
        registers = tuple(Signal(name=f"{name}_{k}") for k in ("valid", "complete", "start"))
        m.d.sync += [register.eq(flag) for register, flag in zip(registers, flags, strict=True)]
        return registers

    def _candidate(self, m: Module, name: str, value: Value, index: Value) -> tuple[Signal, Signal]:
        row = (
            Signal(shape_of(self.spec.source), name=f"{name}_value"),
            Signal(self.spec.o.fmt.width, name=f"{name}_index"),
        )
        m.d.sync += [row[0].eq(value), row[1].eq(index)]
        return row

    def _larger(self, a: tuple, b: tuple | None = None) -> tuple[Value, Value]:
        """Of two candidates the larger; of equal ones the first, whose index is lower."""
        if b is None:
            return a
        wins = b[0] > a[0]
        return Mux(wins, b[0], a[0]), Mux(wins, b[1], a[1])
