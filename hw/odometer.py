"""Nested counters, and the tables that they read."""

from amaranth.hdl import Const, Module, Mux, Signal, Value

from brambling.hw.counter import below
from brambling.hw.rom import rom

__all__ = ["TABLE_BITS", "Odometer", "record_bits", "table"]

TABLE_BITS = 4096  #: Larger tables go to block RAM.


class Odometer:
    """Nested counters, the fastest first, that go on when ``go``.

    ``at[name]`` is a counter, ``ends[name]`` says that it is at its last number, ``turns[name]``
    that it and all faster ones return to 0.
    """

    def __init__(self, m: Module, go: Value, **counts: int) -> None:
        self.at: dict[str, Signal] = {}
        self.ends: dict[str, Value] = {}
        self.turns: dict[str, Signal] = {}
        for name, count in counts.items():
            at = Signal(below(count), name=name)
            end: Value = Const(1, 1)
            if count > 1:
                end = Signal(name=f"{name}_end")  # A register: what remains is a chain of ANDs.
                with m.If(go):
                    m.d.sync += [at.eq(Mux(end, 0, at + 1)), end.eq(~end & (at == count - 2))]
            turn = Signal(name=f"{name}_turn")
            m.d.comb += turn.eq(go & end)
            self.at[name], self.ends[name], self.turns[name] = at, end, turn
            go = turn

    def walk(
        self, m: Module, name: str, count: int, go: Value, wraps: str, leaves: str, home: str
    ) -> Signal:
        """Add an address below ``count`` that goes on when ``go``.

        Where the counter ``wraps`` turns it goes back to where that was 0, unless ``leaves`` turns
        too, which begins with the next one; where ``home`` turns it returns to 0.
        """
        at, start = Signal(below(count), name=name), Signal(below(count), name=f"{name}_start")
        following = Signal.like(at, name=f"{name}_next")
        m.d.comb += following.eq(at + 1)
        with m.If(self.turns[home]):
            m.d.sync += [at.eq(0), start.eq(0)]
        with m.Elif(self.turns[leaves]):
            m.d.sync += [at.eq(following), start.eq(following)]
        with m.Elif(self.turns[wraps]):
            m.d.sync += at.eq(start)
        with m.Elif(go):
            m.d.sync += at.eq(following)
        return at

    def upcoming(self, m: Module, name: str, go: Value) -> Signal:
        """Return what the counter that ``go`` moves will be after this cycle."""
        at = self.at[name]
        upcoming = Signal.like(at, name=f"{name}_upcoming")
        m.d.comb += upcoming.eq(Mux(go, Mux(self.ends[name], 0, at + 1), at))
        return upcoming


def field_bits(column: list[int]) -> int:
    return max(1, max(column).bit_length())


def record_bits(fields: dict[str, list[int]]) -> int:
    """Bits of a record of a :func:`table`: those of the fields that vary."""
    return sum(field_bits(column) for column in fields.values() if len(set(column)) > 1)


def table(m: Module, name: str, address: Value, fields: dict[str, list[int]]) -> dict[str, Value]:
    """Add a read-only memory of records; return its fields, one edge later, as far as they vary."""
    found: dict[str, Value] = {}
    words, width = [0] * max(map(len, fields.values())), 0
    varying: list[tuple[str, int, int]] = []
    for field, column in fields.items():
        size = field_bits(column)
        if len(set(column)) == 1:
            found[field] = Const(column[0], size)
            continue
        varying.append((field, width, size))
        words = [word | n << width for word, n in zip(words, column, strict=True)]
        width += size
    if varying:
        style = "block" if len(words) * width > TABLE_BITS else "lut"
        record = rom(m, name, words, width, address, style)
        found |= {field: record[start : start + size] for field, start, size in varying}
    return found
