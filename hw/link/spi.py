"""SPI slave, mode 0: bytes both ways at the host's pace, most significant bit first."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

__all__ = ["FASTEST", "SpiSlave"]

FASTEST = 8  #: Clocks of the shortest period of ``sclk``.


class SpiSlave(wiring.Component):
    """Bytes from a host that clocks them, and bytes to it, at the same time.

    Data are taken at rising edges of ``sclk`` and change after falling ones, while ``cs_n`` is low.
    The pins are sampled with the clock: a period of ``sclk`` has at least ``FASTEST`` clocks, and
    so many also lie between the fall of ``cs_n`` and the first edge. A byte that is cut off by a
    rise of ``cs_n`` is lost. While nothing is to be sent, the host reads zeros; a byte that comes
    while the first edge of the one before it is yet to come follows without such a gap.

    Members
    -------
    sclk, cs_n, mosi : ``In(1)``, miso : ``Out(1)``
        The pins; inputs need not be synchronous to the clock.
    data : ``Out(8)``, valid : ``Out(1)``
        A byte came.
    bad : ``Out(1)``
        A byte was cut off.
    i : ``In(stream.Signature(8))``
        Bytes to be sent.
    """

    sclk: Signal
    cs_n: Signal
    mosi: Signal
    miso: Signal
    data: Signal
    valid: Signal
    bad: Signal
    i: stream.Interface

    def __init__(self) -> None:
        super().__init__({
            "sclk": In(1),
            "cs_n": In(1),
            "mosi": In(1),
            "miso": Out(1),
            "data": Out(8),
            "valid": Out(1),
            "bad": Out(1),
            "i": In(stream.Signature(8)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        clock, off, line = Signal(), Signal(init=1), Signal()
        m.submodules.clock = FFSynchronizer(self.sclk, clock)
        m.submodules.select = FFSynchronizer(self.cs_n, off, init=1)
        m.submodules.line = FFSynchronizer(self.mosi, line)
        was_clock, was_off = Signal(), Signal(init=1)
        m.d.sync += [was_clock.eq(clock), was_off.eq(off)]
        rises, falls = clock & ~was_clock & ~off, ~clock & was_clock & ~off
        starts, stops = ~off & was_off, off & ~was_off

        number = Signal(3)  # Bits of this byte that came.
        out = Signal(8)  # Bits still to be sent, the next one highest.
        full = Signal()  # They are those of a byte from `i`, not the filler.
        m.d.comb += self.miso.eq(out[-1])
        m.d.sync += self.valid.eq(rises & (number == 7))
        with m.If(rises):
            m.d.sync += [number.eq(number + 1), self.data.eq(Cat(line, self.data[:-1]))]
            with m.If(number == 7):
                m.d.sync += full.eq(0)

        # The byte to be sent next is chosen before its first edge, and kept until it is sent.
        load = (starts & ~full) | (falls & (number == 0))
        m.d.comb += self.i.ready.eq(load)
        with m.If(load):
            m.d.sync += [out.eq(Mux(self.i.valid, self.i.payload, 0)), full.eq(self.i.valid)]
        with m.Elif(falls):
            m.d.sync += out.eq(out << 1)

        m.d.comb += self.bad.eq(stops & (number != 0))
        with m.If(stops):
            m.d.sync += number.eq(0)
            with m.If(number != 0):
                m.d.sync += full.eq(0)
        return m
