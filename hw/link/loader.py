"""Loading: words over the link into memories that cannot be initialised."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.wiring import In, Out

from brambling.protocol import LOAD_WORDS

__all__ = ["Loader"]

OFFSET = 4  #: Bytes before the words.


class Loader(wiring.Component):
    """Keeps the words of a packet until it is known to be good, then passes them on.

    Words come in order only: those of a packet whose offset is another than the number of words so
    far are ignored, as are those past the last.

    Parameters
    ----------
    total
        Words of 16 bits that are wanted.

    Members
    -------
    start : ``In(1)``
        A packet begins.
    i : ``In(stream.Signature(8))``
        Its bytes: a u32 offset, then words, low byte first. Always ready.
    good : ``In(1)``
        It was good.
    busy : ``Out(1)``
        Its words are being passed on.
    o : ``Out(stream.Signature(16))``
        Words.
    count : ``Out(32)``
        Words passed on.
    complete : ``Out(1)``
        They are all.
    crc : ``Out(32)``
        CRC-32 of them.
    """

    start: Signal
    i: stream.Interface
    good: Signal
    busy: Signal
    o: stream.Interface
    count: Signal
    complete: Signal
    crc: Signal

    def __init__(self, total: int) -> None:
        self.total = total
        super().__init__({
            "start": In(1),
            "i": In(stream.Signature(8)),
            "good": In(1),
            "busy": Out(1),
            "o": Out(stream.Signature(16)),
            "count": Out(32),
            "complete": Out(1),
            "crc": Out(32),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.cells = cells = memory.Memory(shape=16, depth=LOAD_WORDS, init=[])
        check: Any = CRC32_ISO_HDLC(16).create()
        m.submodules.check = check
        write, read = cells.write_port(), cells.read_port()
        number = Signal(range(OFFSET + 2 * LOAD_WORDS + 1))  # Bytes that came.
        offset, low = Signal(32), Signal(8)
        word = Signal(range(LOAD_WORDS + 1))  # Words of the packet that are passed on.
        m.d.comb += [
            self.i.ready.eq(1),
            write.addr.eq((number >> 1) - OFFSET // 2),
            write.data.eq(Cat(low, self.i.payload)),
            write.en.eq(self.i.valid & (number >= OFFSET) & number[0]),
            self.complete.eq(self.count == self.total),
        ]
        with m.If(self.i.valid):
            m.d.sync += [number.eq(number + 1), low.eq(self.i.payload)]
            with m.If(number < OFFSET):
                m.d.sync += offset.eq(Cat(offset[8:], self.i.payload))
        with m.If(self.start):
            m.d.sync += number.eq(0)

        there = Signal()
        ends = (word == (number >> 1) - OFFSET // 2) | self.complete
        m.d.comb += [
            read.addr.eq(word),
            read.en.eq(1),
            self.o.valid.eq(there),
            self.o.payload.eq(read.data),
            check.data.eq(read.data),
            check.valid.eq(there & self.o.ready),
            self.crc.eq(check.crc),
        ]
        with m.If(self.good):
            m.d.sync += [self.busy.eq(offset == self.count), word.eq(0)]
        with m.Elif(there & self.o.ready):
            m.d.sync += [there.eq(0), word.eq(word + 1), self.count.eq(self.count + 1)]
        with m.Elif(self.busy & ~there):
            m.d.sync += [there.eq(~ends), self.busy.eq(~ends)]
        return m
