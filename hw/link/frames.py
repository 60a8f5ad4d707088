"""Frames from bytes, and results to bytes."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from brambling.hw.beat import Beats
from brambling.hw.counter import below
from brambling.protocol import beat_bytes

__all__ = ["FrameFeeder", "ResultStore"]


class FrameFeeder(wiring.Component):
    """Bytes to beats, as they come.

    Parameters
    ----------
    beats
        Beats of a frame.

    Members
    -------
    begin : ``In(1)``
        A frame begins; only while not ``busy``.
    busy : ``Out(1)``
        It is not complete.
    i : ``In(stream.Signature(8))``
        Its bytes.
    fill : ``In(1)``
        Complete it with whatever there is: nobody wants its result.
    o : ``Out(beats.signature)``
        Its beats, each one edge after its last byte.
    """

    begin: Signal
    busy: Signal
    i: stream.Interface
    fill: Signal
    o: stream.Interface

    def __init__(self, beats: Beats) -> None:
        self.beats = beats
        super().__init__({
            "begin": In(1),
            "busy": Out(1),
            "i": In(stream.Signature(8)),
            "fill": In(1),
            "o": Out(beats.signature),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        size = beat_bytes(self.beats)
        cells = Signal(8 * size)
        number, beat = Signal(below(size)), Signal(below(self.beats.count))
        full = Signal()
        m.d.comb += [
            self.i.ready.eq(self.busy & ~full),
            self.o.valid.eq(full | (self.busy & self.fill)),
            self.o.payload.data.eq(cells),
            self.o.payload.first.eq(beat == 0),
        ]
        with m.If(self.i.valid & self.i.ready):
            last = number == size - 1
            m.d.sync += [
                cells.eq(Cat(cells[8:], self.i.payload)),
                number.eq(Mux(last, 0, number + 1)),
                full.eq(last),
            ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [full.eq(0), beat.eq(beat + 1)]
            with m.If(beat == self.beats.count - 1):
                m.d.sync += self.busy.eq(0)
        with m.If(self.begin):
            m.d.sync += [self.busy.eq(1), beat.eq(0), number.eq(0)]
        return m


class ResultStore(wiring.Component):
    """Keeps results until they are wanted, and the cycles that each has taken.

    Parameters
    ----------
    beats
        Beats of a result.
    count
        Results that there is place for.

    Members
    -------
    now : ``In(32)``
        Cycles.
    began : ``In(1)``
        The first beat of a frame went in.
    i : ``In(beats.signature)``
        Results.
    whole : ``Out(1)``
        There is a whole result.
    cycles : ``Out(32)``
        From its frame's first beat to its own last one.
    o : ``Out(stream.Signature(8))``
        Its bytes, when it is whole.
    last : ``Out(1)``
        The byte is its last one.
    drop : ``In(1)``
        Drop it when it is whole, a beat a cycle.
    done : ``Out(1)``
        The last of it goes in this cycle.
    """

    now: Signal
    began: Signal
    i: stream.Interface
    whole: Signal
    cycles: Signal
    o: stream.Interface
    last: Signal
    drop: Signal
    done: Signal

    def __init__(self, beats: Beats, count: int) -> None:
        self.beats = beats
        self.count = count
        super().__init__({
            "now": In(32),
            "began": In(1),
            "i": In(beats.signature),
            "whole": Out(1),
            "cycles": Out(32),
            "o": Out(stream.Signature(8)),
            "last": Out(1),
            "drop": In(1),
            "done": Out(1),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        beats, width, size = self.beats, self.beats.width - 1, beat_bytes(self.beats)
        m.submodules.fifo = store = fifo.SyncFIFOBuffered(
            width=width, depth=max(2, self.count * beats.count)
        )
        written, number, read = (Signal(below(n)) for n in (beats.count, size, beats.count))
        stored, gone, got = Signal(), Signal(), Signal()
        ends = read == beats.count - 1
        m.d.comb += [
            store.w_data.eq(self.i.payload.data),
            store.w_en.eq(self.i.valid),
            self.i.ready.eq(store.w_rdy),
            stored.eq(self.i.valid & self.i.ready & (written == beats.count - 1)),
            self.o.valid.eq(self.whole & store.r_rdy & ~self.drop),
            self.o.payload.eq(Cat(store.r_data).word_select(number, 8)),
            got.eq(self.o.valid & self.o.ready & (number == size - 1)),
            gone.eq(got | (self.drop & self.whole & store.r_rdy)),
            store.r_en.eq(gone),
            self.done.eq(gone & ends),
            self.last.eq(ends & (number == size - 1)),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += written.eq(Mux(stored, 0, written + 1))
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += number.eq(Mux(got, 0, number + 1))
        with m.If(gone):
            m.d.sync += read.eq(Mux(self.done, 0, read + 1))
        results = Signal(range(self.count + 1))
        m.d.comb += self.whole.eq(results != 0)
        m.d.sync += results.eq(results + stored - self.done)
        self._time(m, stored)
        return m

    def _time(self, m: Module, stored: Signal) -> None:
        """Note when frames begin, and how long they have taken when their results are stored."""
        begun = fifo.SyncFIFO(width=32, depth=self.count)
        taken = fifo.SyncFIFO(width=32, depth=self.count)
        m.submodules.begun, m.submodules.taken = begun, taken
        at_once = stored & ~begun.r_rdy  # A result in the cycle in which its frame begins.
        m.d.comb += [
            begun.w_data.eq(self.now),
            begun.w_en.eq(self.began & ~at_once),
            begun.r_en.eq(stored),
            taken.w_data.eq(Mux(at_once, 0, self.now - begun.r_data)),
            taken.w_en.eq(stored),
            taken.r_en.eq(self.done),
            self.cycles.eq(taken.r_data),
        ]
