"""Tickets: what is known of each request until it is answered, in order."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["BEGUN", "CRC", "DETAIL", "KIND", "SIZE", "Tickets", "slots"]

#: Where what is in a ticket: a reply has kind, session, sequence and CRC at the same places.
KIND, DETAIL, CRC = 0, 1, 8
BEGUN = 7  #: Bit of the detail: a frame has begun, so there will be a result.
SIZE = 16  #: Bytes of a ticket.


def slots(credits: int) -> int:
    """Tickets that there is place for: those of all frames, and of two other requests."""
    return 1 << (credits + 2).bit_length()


class Tickets(wiring.Component):
    """A ring of tickets, each ``SIZE`` bytes, in one memory.

    Parameters
    ----------
    count
        Places, a power of 2; one of them is always free.

    Members
    -------
    field : ``In(4)``, data : ``In(8)``, write : ``In(1)``
        Write a byte of the newest ticket.
    commit : ``In(1)``
        It is complete with what is written in this cycle. Only while not ``full``.
    full : ``Out(1)``
        There is no place for another.
    waiting : ``Out(1)``
        There is one to be answered.
    ask : ``In(4)``, told : ``Out(8)``
        Byte of the oldest ticket; it comes an edge later.
    release : ``In(1)``
        The oldest one is answered.
    """

    field: Signal
    data: Signal
    write: Signal
    commit: Signal
    full: Signal
    waiting: Signal
    ask: Signal
    told: Signal
    release: Signal

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__({
            "field": In(4),
            "data": In(8),
            "write": In(1),
            "commit": In(1),
            "full": Out(1),
            "waiting": Out(1),
            "ask": In(4),
            "told": Out(8),
            "release": In(1),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        cells = memory.Memory(shape=8, depth=SIZE * self.count, init=[])
        m.submodules.cells = cells
        port, view = cells.write_port(), cells.read_port()
        newest, oldest = Signal(range(self.count)), Signal(range(self.count))
        m.d.comb += [
            port.addr.eq(Cat(self.field, newest)),
            port.data.eq(self.data),
            port.en.eq(self.write),
            view.addr.eq(Cat(self.ask, oldest)),
            view.en.eq(1),
            self.told.eq(view.data),
            self.waiting.eq(newest != oldest),
            self.full.eq((newest + 1)[: len(newest)] == oldest),
        ]
        with m.If(self.commit):
            m.d.sync += newest.eq(newest + 1)
        with m.If(self.release):
            m.d.sync += oldest.eq(oldest + 1)
        return m
