"""The place where bytes wait that came faster than they are used."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from brambling.hw.link.packets import received

__all__ = ["Inbox"]


class Inbox(wiring.Component):
    """A FIFO of bytes that marks the byte before which others were lost.

    Parameters
    ----------
    depth
        Bytes that can wait.

    Members
    -------
    data : ``In(8)``, valid : ``In(1)``
        A byte came.
    bad : ``In(1)``
        One came that cannot be read.
    o : ``Out(stream.Signature(received()))``
        Bytes.
    overrun : ``Out(1)``
        The byte of this cycle is lost: there is no place for it.
    """

    data: Signal
    valid: Signal
    bad: Signal
    o: stream.Interface
    overrun: Signal

    def __init__(self, depth: int) -> None:
        self.depth = depth
        super().__init__({
            "data": In(8),
            "valid": In(1),
            "bad": In(1),
            "o": Out(stream.Signature(received())),
            "overrun": Out(1),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.fifo = bytes_ = fifo.SyncFIFOBuffered(width=9, depth=self.depth)
        lost = Signal()
        m.d.comb += [
            bytes_.w_data.eq(Cat(self.data, lost)),
            bytes_.w_en.eq(self.valid),
            self.overrun.eq(self.valid & ~bytes_.w_rdy),
            self.o.payload.as_value().eq(bytes_.r_data),
            self.o.valid.eq(bytes_.r_rdy),
            bytes_.r_en.eq(self.o.ready),
        ]
        with m.If(self.overrun | self.bad):
            m.d.sync += lost.eq(1)
        with m.Elif(self.valid):
            m.d.sync += lost.eq(0)
        return m
