"""Width adapter: beats of one number of lanes to beats of another."""

from dataclasses import dataclass, replace
from math import gcd
from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from brambling.hw.beat import Beats
from brambling.hw.counter import below

__all__ = ["WidthAdapter", "WidthAdapterSpec", "dependences"]


@dataclass(frozen=True, kw_only=True)
class WidthAdapterSpec:
    """Regroup the channels of each pixel to ``target`` lanes; neither number need divide.

    Works in units of the lanes' greatest common divisor. It holds up to ``capacity`` units: enough
    that it takes or gives a beat in every cycle, also from one pixel or frame to the next.
    """

    i: Beats
    target: int

    @property
    def o(self) -> Beats:
        return replace(self.i, lanes=self.target)

    @property
    def source(self) -> int:
        """Lanes of an input beat."""
        return self.i.lanes

    @property
    def unit(self) -> int:
        """Elements of a unit."""
        return gcd(self.source, self.target)

    @property
    def taken(self) -> int:
        """Units of an input beat."""
        return self.source // self.unit

    @property
    def given(self) -> int:
        """Units of an output beat."""
        return self.target // self.unit

    @property
    def units(self) -> int:
        """Units of a pixel."""
        return -(-self.i.elements // self.unit)

    @property
    def capacity(self) -> int:
        """Units held."""
        return self.taken + self.given - 1

    @property
    def places(self) -> tuple[int, ...]:
        """Units that may be held when an input beat comes, and so where it can go."""
        found = {0}
        for beat in range(1, self.i.groups):
            come = beat * self.taken
            found |= {
                come - gone
                for gone in range(0, come + 1, self.given)
                if come - gone <= self.capacity - self.taken
            }
        return tuple(sorted(found))

    def build(self) -> "WidthAdapter":
        return WidthAdapter(self)


def dependences(spec: WidthAdapterSpec) -> tuple[list[int], list[int]]:
    """Return what each beat of a pixel waits for in a width adapter.

    Of each input beat, how many output beats must have moved until there is a place; none for the
    first, which waits for the whole pixel before. Of each output beat, which input beat completes
    it.
    """
    taken, given, units = spec.taken, spec.given, spec.units
    capacity = spec.capacity
    surplus = [(n + 1) * taken - capacity for n in range(1, spec.i.groups)]
    places = [0, *(max(0, -(-units // given)) for units in surplus)]
    gone = [min((n + 1) * given, units) for n in range(spec.o.groups)]
    return places, [-(-n // taken) - 1 for n in gone]


class WidthAdapter(wiring.Component):
    """Streaming form of :class:`WidthAdapterSpec`.

    An output beat is offered one edge after the input beat that completes it. An input beat may be
    taken in the same cycle as the output beat that makes room for it; the first beat of a pixel in
    the same cycle as the last output beat of the pixel before, or at any time where ``first`` shows
    that the frame before ends early.

    Members
    -------
    i : ``In(spec.i.signature)``
    o : ``Out(spec.o.signature)``
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, spec: WidthAdapterSpec) -> None:
        self.spec = spec
        super().__init__({"i": In(spec.i.signature), "o": Out(spec.o.signature)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        spec = self.spec
        size = spec.unit * spec.i.pixels * spec.i.fmt.width
        cells = Signal(spec.capacity * size)
        level = Signal(range(spec.capacity + 1))  # Units held.
        beat = Signal(below(spec.i.groups))  # Number of the next input beat, inside a pixel.
        inside, ended = Signal(), Signal()  # A beat of this pixel was taken; all of them were.
        first = Signal()  # No beat of this frame has been given.

        final = ended & (level <= spec.given)
        m.d.comb += [
            self.o.valid.eq((level >= spec.given) | (ended & (level != 0))),
            self.o.payload.first.eq(first),
            self.o.payload.data.eq(cells[: spec.given * size]),
        ]
        give = self.o.valid & self.o.ready

        # What is left after giving, and whether another beat fits behind it: compared for both
        # cases at once, since giving is known late.
        left = Signal(range(spec.capacity + 1))
        kept = Signal.like(cells)
        begun, restart, fits = Signal(), Signal(), Signal()
        limit = spec.capacity - spec.taken
        m.d.comb += [
            left.eq(Mux(give, Mux(final, 0, level - spec.given), level)),
            kept.eq(Mux(give, cells >> spec.given * size, cells)),
            begun.eq(inside & ~(give & final)),
            restart.eq(self.i.payload.first & begun & ~ended),
            fits.eq(Mux(give, level <= limit + spec.given, level <= limit)),
            self.i.ready.eq(Mux(ended, give & final, fits) | restart),
        ]
        take = self.i.valid & self.i.ready
        base, number = Signal.like(left), Signal.like(beat)
        m.d.comb += [
            base.eq(Mux(restart, 0, left)),
            number.eq(Mux(begun & ~restart, beat, 0)),
        ]
        with m.If(give):
            m.d.sync += first.eq(0)
        with m.If(give & final):
            m.d.sync += [inside.eq(0), ended.eq(0)]
        m.d.sync += [level.eq(left), cells.eq(kept)]
        with m.If(take):
            added = Signal(range(spec.taken + 1))
            tail = spec.units - (spec.i.groups - 1) * spec.taken
            last = number == spec.i.groups - 1
            m.d.comb += added.eq(Mux(last, tail, spec.taken))
            m.d.sync += [
                beat.eq(number + 1),
                inside.eq(1),
                ended.eq(last),
                level.eq(base + added),
            ]
            with m.If(number == 0):
                m.d.sync += first.eq(self.i.payload.first)
            data = self.i.payload.data
            empty = restart | (give & final)
            for place in spec.places:
                here = Mux(give, level == place + spec.given, level == place)
                with m.If(Mux(empty, place == 0, here)):
                    m.d.sync += cells[place * size :][: spec.taken * size].eq(data)
        return m
