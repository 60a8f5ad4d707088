"""Fork: one stream to several readers."""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Cat, Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.beat import Beats

__all__ = ["Fork", "ForkSpec"]


@dataclass(frozen=True)
class ForkSpec:
    """The same beats to ``count`` readers."""

    i: Beats
    count: int

    def __post_init__(self) -> None:
        if self.count < 2:
            raise ConfigError(f"a fork needs 2 outputs or more, not {self.count}")

    @property
    def o(self) -> Beats:
        """Beats of every output."""
        return self.i

    def reference(self, x: NDArray) -> tuple[NDArray, ...]:
        """Golden result of each output: frames ``(n, i.size)`` as they are."""
        return (x,) * self.count

    def build(self) -> "Fork":
        return Fork(self)


class Fork(wiring.Component):
    """Streaming form of :class:`ForkSpec`: a beat moves when every reader is ready.

    Combinational, without a register: all readers get a beat in the cycle in which it is taken. A
    reader may not wait, without a FIFO in between, for what another one makes of the same beat.

    Members
    -------
    i : ``In(spec.i.signature)``
    o0, o1, … : ``Out(spec.o.signature)``
    """

    i: stream.Interface

    def __init__(self, spec: ForkSpec) -> None:
        self.spec = spec
        super().__init__({
            "i": In(spec.i.signature),
            **{f"o{n}": Out(spec.o.signature) for n in range(spec.count)},
        })
        self.outputs: list[Any] = [getattr(self, f"o{n}") for n in range(spec.count)]

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.comb += self.i.ready.eq(Cat(o.ready for o in self.outputs).all())
        for o in self.outputs:
            # An output is valid whether or not its own reader is ready: it may not wait for that.
            others = [other.ready for other in self.outputs if other is not o]
            m.d.comb += [
                o.valid.eq(Cat(self.i.valid, *others).all()),
                o.payload.eq(self.i.payload),
            ]
        return m
