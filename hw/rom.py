"""Read-only memories."""

from amaranth.hdl import Const, Module, Signal, Value
from amaranth.lib import memory

__all__ = ["rom"]

#: What a Plan calls a kind of memory, and what Yosys calls it.
STYLES = {"block": "block", "lut": "logic"}


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
