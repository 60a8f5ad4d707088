"""Packets: found in a stream of bytes that may be damaged, and made. See `brambling.protocol`."""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.wiring import In, Out

from brambling.errors import ConfigError
from brambling.hw.counter import below
from brambling.protocol import DEVICE_MAGIC, HEADER, HOST_MAGIC

__all__ = ["FIELDS", "PacketReceiver", "PacketReceiverSpec", "PacketSender", "received"]

FIELDS = HEADER - len(HOST_MAGIC)  #: Bytes of a header behind its magic.
CRC_BYTES = 4


def received() -> data.StructLayout:
    """Return the layout of a byte that came: ``lost`` where others before it were lost."""
    return data.StructLayout({"data": 8, "lost": 1})


@dataclass(frozen=True, slots=True)
class PacketReceiverSpec:
    """A receiver that waits for ``timeout`` clocks for the next byte of a packet."""

    timeout: int

    def __post_init__(self) -> None:
        if self.timeout < 1:
            raise ConfigError(f"timeout must be at least 1, not {self.timeout}")

    def build(self) -> "PacketReceiver":
        return PacketReceiver(self)


class PacketReceiver(wiring.Component):
    """Finds packets, and tells what is in them byte by byte, as they come.

    After a magic come ``FIELDS`` bytes of the header, each told by ``header``. Then, for a cycle in
    which no byte is taken, ``check``: whoever reads the header may refuse it, and the search goes
    on. Else come the payload and four bytes of CRC, each told by ``crc``, and then ``end``, in a
    cycle in which no byte is taken either. A packet also ends, ``truncated``, when the next byte
    does not come in time, or when it comes with the mark that bytes before it were lost.

    Members
    -------
    i : ``In(stream.Signature(received()))``
        Bytes.
    pause : ``In(1)``
        Take no bytes; time stands still.
    data : ``Out(8)``
        The byte of this cycle.
    number : ``Out(3)``
        Its number in the header, or in the CRC.
    header, crc : ``Out(1)``
        It is one of the header, of the CRC.
    payload : ``Out(stream.Signature(8))``
        It is one of the payload.
    length : ``Out(16)``
        Bytes of the payload; from ``check`` on.
    check : ``Out(1)``, refuse : ``In(1)``
        The header is complete; it is wrong.
    end : ``Out(1)``
        The packet has ended.
    good, truncated : ``Out(1)``
        It has ended with the right CRC; it stopped in its middle.
    skipped : ``Out(2)``
        Bytes that were passed over in this cycle.
    """

    i: stream.Interface
    pause: Signal
    data: Signal
    number: Signal
    header: Signal
    crc: Signal
    payload: stream.Interface
    length: Signal
    check: Signal
    refuse: Signal
    end: Signal
    good: Signal
    truncated: Signal
    skipped: Signal

    def __init__(self, spec: PacketReceiverSpec) -> None:
        self.spec = spec
        super().__init__({
            "i": In(stream.Signature(received())),
            "pause": In(1),
            "data": Out(8),
            "number": Out(3),
            "header": Out(1),
            "crc": Out(1),
            "payload": Out(stream.Signature(8)),
            "length": Out(16),
            "check": Out(1),
            "refuse": In(1),
            "end": Out(1),
            "good": Out(1),
            "truncated": Out(1),
            "skipped": Out(2),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        check: Any = CRC32_ISO_HDLC().create()
        m.submodules.check = check
        take, cut = Signal(), Signal()
        left = Signal(16)  # Bytes of the payload still to come.
        m.d.comb += [
            self.data.eq(self.i.payload.data),
            self.payload.payload.eq(self.data),
            take.eq(self.i.valid & self.i.ready),
            check.data.eq(self.data),
            check.valid.eq(take),
        ]
        with m.FSM():
            self._hunt(m, check)
            self._header(m, take, cut, left)
            self._payload(m, take, cut, left)
            with m.State("End"):
                m.d.comb += [self.end.eq(~self.pause), self.good.eq(check.match_detected)]
                with m.If(~self.pause):
                    m.next = "Hunt"
            with m.State("Truncated"):
                m.d.comb += [self.end.eq(~self.pause), self.truncated.eq(1)]
                with m.If(~self.pause):
                    m.next = "Hunt"
        self._watch(m, cut)
        return m

    def _hunt(self, m: Module, check: Any) -> None:
        """Add the states that look for the magic."""
        first, second = HOST_MAGIC
        is_first = self.data == first
        there = self.i.valid & ~self.pause
        with m.State("Hunt"):
            m.d.comb += [self.i.ready.eq(~self.pause), self.skipped.eq(there & ~is_first)]
            with m.If(there & is_first):
                m.next = "Magic"
        with m.State("Magic"):
            m.d.comb += [self.i.ready.eq(~self.pause), check.start.eq(1), check.valid.eq(0)]
            m.d.sync += self.number.eq(0)
            with m.If(there & (self.data == second) & ~self.i.payload.lost):
                m.next = "Header"
            with m.Elif(there):
                m.d.comb += self.skipped.eq(Mux(is_first, 1, 2))
                with m.If(~is_first):
                    m.next = "Hunt"

    def _header(self, m: Module, take: Signal, cut: Signal, left: Signal) -> None:
        """Add the states of the header, and of the decision about it."""
        with m.State("Header"):
            m.d.comb += [self.i.ready.eq(~self.pause & ~cut), self.header.eq(take)]
            with m.If(take):
                m.d.sync += [
                    self.number.eq(self.number + 1),
                    self.length.eq(Cat(self.length[8:], self.data)),
                ]
            with m.If(cut):
                m.next = "Truncated"
            with m.Elif(take & (self.number == FIELDS - 1)):
                m.next = "Check"
        with m.State("Check"):
            m.d.comb += self.check.eq(~self.pause)
            m.d.sync += left.eq(self.length)
            with m.If(~self.pause):
                with m.If(self.refuse):
                    m.next = "Hunt"
                with m.Elif(self.length == 0):
                    m.next = "CRC"
                with m.Else():
                    m.next = "Payload"

    def _payload(self, m: Module, take: Signal, cut: Signal, left: Signal) -> None:
        """Add the states of the payload and the CRC."""
        with m.State("Payload"):
            m.d.comb += [
                self.payload.valid.eq(self.i.valid & ~self.pause & ~cut),
                self.i.ready.eq(self.payload.ready & ~self.pause & ~cut),
            ]
            with m.If(take):
                m.d.sync += left.eq(left - 1)
            with m.If(cut):
                m.next = "Truncated"
            with m.Elif(take & (left == 1)):
                m.next = "CRC"
        with m.State("CRC"):
            m.d.comb += [self.i.ready.eq(~self.pause & ~cut), self.crc.eq(take)]
            with m.If(take):
                m.d.sync += self.number.eq(self.number + 1)
            with m.If(cut):
                m.next = "Truncated"
            with m.Elif(take & (self.number == CRC_BYTES - 1)):
                m.next = "End"

    def _watch(self, m: Module, cut: Signal) -> None:
        """Set ``cut`` where a packet in its middle has no next byte."""
        waited = Signal(below(self.spec.timeout))
        late = Signal()
        m.d.comb += cut.eq(~self.pause & Mux(self.i.valid, self.i.payload.lost, late))
        with m.If(self.i.valid):
            m.d.sync += [waited.eq(0), late.eq(0)]
        with m.Elif(~late & ~self.pause):
            m.d.sync += [waited.eq(waited + 1), late.eq(waited == self.spec.timeout - 1)]


class PacketSender(wiring.Component):
    """Puts the magic before what a packet says, and its CRC behind; a byte a cycle.

    Members
    -------
    i : ``In(stream.Signature(StructLayout({"data": 8, "last": 1})))``
        Bytes of a packet from its kind to the end of its payload.
    o : ``Out(stream.Signature(8))``
        Bytes of whole packets.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self) -> None:
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({"data": 8, "last": 1}))),
            "o": Out(stream.Signature(8)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        check: Any = CRC32_ISO_HDLC().create()
        m.submodules.check = check
        number = Signal(unsigned(2))
        sent = self.o.valid & self.o.ready
        m.d.comb += check.data.eq(self.i.payload.data)
        with m.FSM():
            with m.State("Magic"):
                magic = Cat(Const(byte, 8) for byte in DEVICE_MAGIC)
                m.d.comb += [
                    self.o.valid.eq(self.i.valid),
                    self.o.payload.eq(magic.word_select(number[0], 8)),
                    check.start.eq(1),
                ]
                with m.If(sent):
                    m.d.sync += number.eq(number == 0)
                    with m.If(number == 1):
                        m.next = "Body"
            with m.State("Body"):
                m.d.comb += [
                    self.o.valid.eq(self.i.valid),
                    self.o.payload.eq(self.i.payload.data),
                    self.i.ready.eq(self.o.ready),
                    check.valid.eq(sent),
                ]
                with m.If(sent & self.i.payload.last):
                    m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += [
                    self.o.valid.eq(1),
                    self.o.payload.eq(check.crc.word_select(number, 8)),
                ]
                with m.If(sent):
                    m.d.sync += number.eq(number + 1)
                    with m.If(number == CRC_BYTES - 1):
                        m.next = "Magic"
        return m
