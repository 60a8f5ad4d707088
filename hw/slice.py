"""Slice: some of the channels of every pixel."""

from dataclasses import dataclass, replace
from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.counter import below

__all__ = ["Slice", "SliceSpec"]


@dataclass(frozen=True, kw_only=True)
class SliceSpec:
    """Channels ``start`` to ``stop - 1``: those beats pass, the others are dropped.

    ``lanes`` divides ``start``, ``stop`` and all channels, so that beats pass as they are.
    """

    i: Beats
    start: int
    stop: int

    def __post_init__(self) -> None:
        lanes, elements = self.i.lanes, self.i.elements
        if not 0 <= self.start < self.stop <= elements:
            raise ConfigError(
                f"start and stop must lie in 0 to {elements} in that order, "
                f"not {self.start} and {self.stop}"
            )
        for key, value in (("start", self.start), ("stop", self.stop), ("channels", elements)):
            if value % lanes:
                raise ConfigError(
                    f"lanes must divide {key}, {value}, not be {lanes}: "
                    "use a width adapter before the slice"
                )

    @property
    def o(self) -> Beats:
        return replace(self.i, elements=self.stop - self.start)

    @property
    def passed(self) -> range:
        """Beats of a pixel that pass, out of ``i.groups``."""
        return range(self.start // self.i.lanes, self.stop // self.i.lanes)

    def reference(self, x: NDArray) -> NDArray:
        """Golden result: codes ``(n, i.size)`` to codes ``(n, o.size)``."""
        pixels = x.reshape(len(x), -1, self.i.elements)
        return pixels[:, :, self.start : self.stop].reshape(len(x), self.o.size)

    def build(self) -> "Slice":
        return Slice(self)


class Slice(wiring.Component):
    """Streaming form of :class:`SliceSpec`: combinational, a beat passes in its own cycle.

    A dropped beat is taken at once. Frames come whole; the first beat of a frame that passes is
    marked ``first``.

    Members
    -------
    i : ``In(spec.i.signature)``
    o : ``Out(spec.o.signature)``
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, spec: SliceSpec) -> None:
        self.spec = spec
        super().__init__({"i": In(spec.i.signature), "o": Out(spec.o.signature)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        groups, passed = self.spec.i.groups, self.spec.passed
        beat = Signal(below(groups))  # Number of the next beat, inside a pixel.
        passes = Signal()
        marked = Signal()  # The mark of a beat that was dropped.
        first = self.i.payload.first | marked
        m.d.comb += [
            # A comparison that is always true is left out: it makes linters suspicious.
            passes.eq(
                (beat >= passed.start if passed.start else Const(1))
                & (beat < passed.stop if passed.stop < groups else Const(1))
            ),
            self.o.valid.eq(self.i.valid & passes),
            self.o.payload.data.eq(self.i.payload.data),
            self.o.payload.first.eq(first),
            self.i.ready.eq(self.o.ready | ~passes),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                beat.eq(Mux(beat == groups - 1, 0, beat + 1)),
                marked.eq(first & ~passes),
            ]
        return m
