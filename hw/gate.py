"""The gate at the accelerator's input: lets only whole frames in."""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from brambling.hw.beat import Beats

__all__ = ["FrameGate", "GateSpec"]


@dataclass(frozen=True, slots=True)
class GateSpec:
    """The gate of an accelerator whose frames are ``i.count`` beats."""

    i: Beats

    @property
    def o(self) -> Beats:
        return self.i

    def build(self) -> "FrameGate":
        return FrameGate(self)


class FrameGate(wiring.Component):
    """Makes every frame whole, so that no engine needs to know of a broken one.

    Combinational. Of a frame that is too long, the surplus is dropped: all beats up to the next
    ``first``. One that is too short is filled up with beats of zeros when the next begins: it has
    a result, as every frame that has begun.

    Members
    -------
    i : ``In(spec.i.signature)``
    o : ``Out(spec.i.signature)``
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, spec: GateSpec) -> None:
        self.spec = spec
        super().__init__({"i": In(spec.i.signature), "o": Out(spec.i.signature)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        whole = self.spec.i.count
        number = Signal(range(whole + 1), init=whole)  # Beats of the frame so far.
        ended, fill, drop = Signal(), Signal(), Signal()
        m.d.comb += [
            ended.eq(number == whole),
            fill.eq(self.i.payload.first & ~ended),
            drop.eq(~self.i.payload.first & ended),
            self.o.payload.eq(Mux(fill, 0, self.i.payload.as_value())),
            self.o.valid.eq(self.i.valid & ~drop),
            self.i.ready.eq((self.o.ready & ~fill) | drop),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += number.eq(Mux(ended, 1, number + 1))
        return m
