"""Replies: an answer, or a refusal, for each ticket in order."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from brambling.hw.link.tickets import BEGUN, CRC, DETAIL, KIND
from brambling.protocol import ANSWER, VERSION, Flag, Ident, Kind

__all__ = ["Replies"]

BODY = CRC  #: Bytes of a reply before its payload, magic left out.
FLAGS = 28  #: Where the flags of an identification are.


class Replies(wiring.Component):
    """Makes the bytes of a reply from a ticket, and from what it tells to say.

    Parameters
    ----------
    ident
        What the device says of itself; its flags come from ``flags``.

    Members
    -------
    waiting : ``In(1)``, ask : ``Out(4)``, told : ``In(8)``, release : ``Out(1)``
        Tickets: see :class:`brambling.hw.link.tickets.Tickets`.
    whole : ``In(1)``, cycles : ``In(32)``, bytes : ``In(stream.Signature(8))``, last : ``In(1)``,
    drop : ``Out(1)``, done : ``In(1)``
        Results: see :class:`brambling.hw.link.frames.ResultStore`.
    number : ``Out(8)``, read : ``Out(1)``, value : ``In(32)``
        Registers: see :class:`brambling.hw.link.counters.Counters`.
    flags : ``In(4)``
        Those of the identification.
    loaded : ``In(32)``
        Words loaded so far.
    o : ``Out(stream.Signature(StructLayout({"data": 8, "last": 1})))``
        Bytes of the reply, from its kind to the end of its payload.
    nak, result, frame : ``Out(1)``
        A refusal, a result was sent; a frame is no longer in flight.
    timed : ``Out(1)``
        ``cycles`` are those of the result that is sent next.
    """

    waiting: Signal
    ask: Signal
    told: Signal
    release: Signal
    whole: Signal
    cycles: Signal
    bytes: stream.Interface
    last: Signal
    drop: Signal
    done: Signal
    number: Signal
    read: Signal
    value: Signal
    flags: Signal
    loaded: Signal
    o: stream.Interface
    nak: Signal
    result: Signal
    frame: Signal
    timed: Signal

    def __init__(self, ident: Ident) -> None:
        self.ident = ident
        super().__init__({
            "waiting": In(1),
            "ask": Out(4),
            "told": In(8),
            "release": Out(1),
            "whole": In(1),
            "cycles": In(32),
            "bytes": In(stream.Signature(8)),
            "last": In(1),
            "drop": Out(1),
            "done": In(1),
            "number": Out(8),
            "read": Out(1),
            "value": In(32),
            "flags": In(4),
            "loaded": In(32),
            "o": Out(stream.Signature(data.StructLayout({"data": 8, "last": 1}))),
            "nak": Out(1),
            "result": Out(1),
            "frame": Out(1),
            "timed": Out(1),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        kind, detail = Signal(8), Signal(8)
        is_nak, is_frame = kind == Kind.NAK, kind == Kind.FRAME | ANSWER
        begun = (is_nak | is_frame) & detail[BEGUN]
        at = Signal(range(BODY + len(self.ident.encode()) + 1))  # Number of the byte.
        word = Signal(40)  # What is left of the numbers in the payload.
        m.d.comb += self.number.eq(detail)

        with m.FSM():
            with m.State("Idle"):
                m.d.comb += self.ask.eq(KIND)
                with m.If(self.waiting):
                    m.next = "Kind"
            with m.State("Kind"):
                m.d.comb += self.ask.eq(DETAIL)
                m.d.sync += kind.eq(self.told)
                m.next = "Detail"
            with m.State("Detail"):
                m.d.sync += detail.eq(self.told)
                m.next = "Wait"
            with m.State("Wait"):
                m.d.comb += self.drop.eq(begun & is_nak)
                with m.If(~begun | (self.whole & ~is_nak) | self.done):
                    m.next = "Look"
            with m.State("Look"):
                m.d.comb += [self.read.eq(kind == Kind.READ | ANSWER), self.timed.eq(is_frame)]
                self._look(m, word, kind, detail)
                m.d.sync += at.eq(0)
                m.next = "Fetch"
            with m.State("Fetch"):
                m.d.comb += self.ask.eq(at)
                m.next = "Choose"
            with m.State("Choose"):
                self._choose(m, at, kind, word)
            with m.State("Send"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "Fetch"
                    with m.If(self.o.payload.last):
                        m.next = "Release"
            with m.State("Release"):
                m.d.comb += [
                    self.release.eq(1),
                    self.nak.eq(is_nak),
                    self.result.eq(is_frame),
                    self.frame.eq(begun),
                ]
                m.next = "Idle"
        return m

    def _look(self, m: Module, word: Signal, kind: Signal, detail: Signal) -> None:
        """Look up the numbers in the payload: all at one time, as they may change."""
        with m.Switch(kind):
            with m.Case(Kind.READ | ANSWER):
                m.d.sync += word.eq(Cat(detail, self.value))
            with m.Case(Kind.FRAME | ANSWER):
                m.d.sync += word.eq(self.cycles)
            with m.Case(Kind.LOAD | ANSWER):
                m.d.sync += word.eq(self.loaded)
            with m.Case(Kind.SELFTEST | ANSWER):
                m.d.sync += word.eq((self.flags & Flag.PASSED) != 0)
            with m.Default():
                m.d.sync += word.eq(detail[:BEGUN])

    def _choose(self, m: Module, at: Signal, kind: Signal, word: Signal) -> None:
        """Choose the byte to be sent, and whether it is the last."""
        is_frame = kind == Kind.FRAME | ANSWER
        results, numbers, length = Signal(), Signal(), Signal(16)
        with m.Switch(kind):
            for code, value in self._lengths().items():
                with m.Case(code):
                    m.d.comb += length.eq(value)
        ends = ~is_frame & (at == BODY - 1 + length[: len(at)])
        m.d.comb += [
            results.eq(is_frame & (at == BODY + 8)),
            numbers.eq((at >= BODY) & ~(is_frame & (at < BODY + 4))),
            self.bytes.ready.eq(results),
        ]
        with m.If(~results | self.bytes.valid):
            m.d.sync += [at.eq(at + ~results), self.o.payload.last.eq(ends)]
            m.next = "Send"
        with m.If(results):
            m.d.sync += [
                self.o.payload.data.eq(self.bytes.payload),
                self.o.payload.last.eq(self.last),
            ]
        with m.Elif((kind == Kind.IDENT | ANSWER) & (at >= BODY)):
            self._identify(m, at)
        with m.Elif(numbers):
            m.d.sync += [self.o.payload.data.eq(word[:8]), word.eq(word[8:])]
        with m.Else():
            m.d.sync += self.o.payload.data.eq(self.told)
            with m.Switch(at):
                with m.Case(1):
                    m.d.sync += self.o.payload.data.eq(VERSION)
                with m.Case(6):
                    m.d.sync += self.o.payload.data.eq(length[:8])
                with m.Case(7):
                    m.d.sync += self.o.payload.data.eq(length[8:])

    def _identify(self, m: Module, at: Signal) -> None:
        """Choose a byte of the identification."""
        with m.Switch(at):
            for n, byte in enumerate(self.ident.encode()):
                with m.Case(BODY + n):
                    m.d.sync += self.o.payload.data.eq(self.flags if n == FLAGS else byte)

    def _lengths(self) -> dict[int, int]:
        """Bytes of the payload by kind of reply."""
        return {
            Kind.IDENT | ANSWER: len(self.ident.encode()),
            Kind.FRAME | ANSWER: 8 + self.ident.result_bytes,
            Kind.READ | ANSWER: 5,
            Kind.SELFTEST | ANSWER: 1,
            Kind.LOAD | ANSWER: 4,
            Kind.CLEAR | ANSWER: 0,
            Kind.NAK: 1,
        }
