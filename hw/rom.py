"""Read-only memories, and those that are read only once they are filled."""

from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import memory
from amaranth.lib.wiring import Out, Signature

__all__ = ["PIECE", "filled", "filling", "pieces", "rom"]

#: What a Plan calls a kind of memory, and what Yosys calls it.
STYLES = {"block": "block", "lut": "logic", "spram": "huge"}
PIECE = 16  #: Bits of a word with which memories are filled: those of a word of SPRAM.


def rom(
    m: Module, name: str, words: list[int], width: int, address: Value, style: str = "block"
) -> Value:
    """Add a memory of ``words`` to ``m``; return its registered output.

    The word at ``address`` appears one edge later. A single word needs no memory.
    """
    if len(words) == 1:
        return Const(words[0], width)
    cells = memory.Memory(
        shape=width, depth=len(words), init=words, attrs={"ram_style": STYLES[style]}
    )
    m.submodules[name] = cells
    port = cells.read_port()
    m.d.comb += [port.en.eq(1), port.addr.eq(address)]
    out = Signal(width, name=f"{name}_data")
    m.d.comb += out.eq(port.data)
    return out


def pieces(width: int) -> int:
    """Pieces in which a word of ``width`` bits is written, lowest first."""
    return -(-width // PIECE)


def filling(depth: int, width: int) -> Signature:
    """How a memory of ``depth`` words is filled, seen from who does it.

    Members
    -------
    active : ``Out(1)``
        The memory is being filled, not read.
    address : ``Out(range(depth))``
    data : ``Out(PIECE)``
    write : ``Out(pieces(width))``
        Which piece of the word at ``address`` becomes ``data``; only while ``active``.
    """
    return Signature({
        "active": Out(1),
        "address": Out(range(depth)),
        "data": Out(PIECE),
        "write": Out(pieces(width)),
    })


def filled(m: Module, name: str, depth: int, width: int, address: Value, port: Any) -> Value:
    """Add a memory that is filled through ``port``; return its registered output, as :func:`rom`.

    ``port`` is a :func:`filling` seen from the memory. Reading and writing share one address and
    never happen in the same cycle: all that a single-port RAM can do.
    """
    parts = pieces(width)
    cells = memory.Memory(
        shape=parts * PIECE, depth=depth, init=[], attrs={"ram_style": STYLES["spram"]}
    )
    m.submodules[name] = cells
    writer, reader = cells.write_port(granularity=PIECE), cells.read_port()
    shared = Signal(range(depth), name=f"{name}_address")
    out = Signal(width, name=f"{name}_data")
    m.d.comb += [
        shared.eq(Mux(port.active, port.address, address)),
        writer.addr.eq(shared),
        writer.data.eq(port.data.replicate(parts)),
        writer.en.eq(port.write & port.active.replicate(parts)),
        reader.addr.eq(shared),
        reader.en.eq(~port.active),
        out.eq(reader.data),
    ]
    return out
