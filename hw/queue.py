"""Queues: at the output of an engine, and between engines."""

from dataclasses import dataclass
from typing import Any, ClassVar

from amaranth.hdl import Module, ShapeLike, Signal, Value
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.plan import LEAST_FIFO

__all__ = ["Fifo", "FifoSpec", "Queue"]


class Queue(wiring.Component):
    """Collects the results of a pipeline that cannot stall.

    An engine asks ``room`` and pulses ``reserve`` when it issues the work that will make a result;
    however long the pipeline, the result then finds a place. So no pipeline register needs a clock
    enable, and back-pressure is one counter. A result is offered two edges after its write.

    Parameters
    ----------
    shape
        Shape of a result.
    depth
        Results that may be reserved or waiting at a time.

    Members
    -------
    room : ``Out(1)``
        A place is free.
    reserve : ``In(1)``
        Takes the place; only while ``room``.
    write : ``In(1)``, result : ``In(shape)``
        Puts a result in.
    o : ``Out(stream.Signature(shape))``
        The results.
    """

    room: Signal
    reserve: Signal
    write: Signal
    result: Any
    o: stream.Interface

    def __init__(self, shape: ShapeLike, depth: int) -> None:
        self.depth = depth
        super().__init__({
            "room": Out(1),
            "reserve": In(1),
            "write": In(1),
            "result": In(shape),
            "o": Out(stream.Signature(shape)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        payload = Value.cast(self.o.payload)

        # One place more than is ever used: the FIFO's output register must not cost a cycle.
        m.submodules.fifo = buffer = fifo.SyncFIFOBuffered(
            width=len(payload), depth=max(self.depth + 1, FifoSpec.LEAST)
        )
        m.d.comb += [
            buffer.w_data.eq(Value.cast(self.result)),
            buffer.w_en.eq(self.write),
            payload.eq(buffer.r_data),
            self.o.valid.eq(buffer.r_rdy),
            buffer.r_en.eq(self.o.ready),
        ]

        free = Signal(range(self.depth + 1), init=self.depth)
        taken = self.o.valid & self.o.ready
        m.d.comb += self.room.eq(free != 0)
        with m.If(taken & ~self.reserve):
            m.d.sync += free.eq(free + 1)
        with m.Elif(self.reserve & ~taken):
            m.d.sync += free.eq(free - 1)
        return m


@dataclass(frozen=True, slots=True)
class FifoSpec:
    """A FIFO of ``depth`` beats between two engines."""

    beats: Beats
    depth: int

    LEAST: ClassVar[int] = LEAST_FIFO  #: Below, it cannot take a beat in every cycle.

    def __post_init__(self) -> None:
        if self.depth < self.LEAST:
            raise ConfigError(f"fifo must be 0 or at least {self.LEAST} beats, not {self.depth}")

    @property
    def i(self) -> Beats:
        return self.beats

    @property
    def o(self) -> Beats:
        return self.beats

    def build(self) -> "Fifo":
        return Fifo(self)


class Fifo(wiring.Component):
    """Amaranth's buffered FIFO with streams on both sides; a beat is offered after two edges.

    Members
    -------
    i : ``In(spec.i.signature)``
    o : ``Out(spec.o.signature)``
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, spec: FifoSpec) -> None:
        self.spec = spec
        super().__init__({"i": In(spec.i.signature), "o": Out(spec.o.signature)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        buffer = fifo.SyncFIFOBuffered(width=self.spec.beats.width, depth=self.spec.depth)
        m.submodules.fifo = buffer
        m.d.comb += [
            buffer.w_data.eq(self.i.payload.as_value()),
            buffer.w_en.eq(self.i.valid),
            self.i.ready.eq(buffer.w_rdy),
            self.o.payload.as_value().eq(buffer.r_data),
            self.o.valid.eq(buffer.r_rdy),
            buffer.r_en.eq(self.o.ready),
        ]
        return m
