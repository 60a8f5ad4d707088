"""Components in a row."""

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Member, Out, connect, flipped

__all__ = ["Chain"]


class Chain(wiring.Component):
    """Each component's ``o`` feeds the next one's ``i``.

    Parameters
    ----------
    parts
        Components in stream order, by the names of their instances.
    more
        Further members, for a subclass to drive.

    Members
    -------
    i
        As the first part's.
    o
        As the last part's.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, parts: Mapping[str, Any], more: Mapping[str, Member] | None = None) -> None:
        self.parts = dict(parts)
        row = [*self.parts.values()]
        super().__init__({
            "i": In(row[0].i.signature.flip()),
            "o": Out(row[-1].o.signature),
            **(more or {}),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        upstream = flipped(self.i)
        for name, part in self.parts.items():
            m.submodules[name] = part
            connect(m, upstream, part.i)
            upstream = part.o
        connect(m, upstream, flipped(self.o))
        return m
