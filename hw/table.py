"""Tables: any function of one code, by lookup."""

from dataclasses import dataclass, replace

import numpy as np
from amaranth.hdl import Module, Value
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.elementwise import Code, Elementwise, ElementwiseSpec
from brambling.hw.pipe import Pipe
from brambling.hw.rom import rom
from brambling.quant.formats import Bipolar, Format

__all__ = ["TableSpec", "TableUnit"]


@dataclass(frozen=True, eq=False, kw_only=True)
class TableSpec(ElementwiseSpec):
    """The entry of each code; see :class:`brambling.layers.Table`.

    Every lane and place has a memory of its own.

    Parameters
    ----------
    target
        Format of the entries.
    entries
        Result for each code of the input, from the smallest, ``(codes,)``.
    store
        Memory of the entries: ``"lut"`` or ``"block"``.
    """

    target: Format
    entries: NDArray[np.int64]
    store: str = "lut"

    MOST = 10  #: Bits of the widest codes that a table takes.

    def __post_init__(self) -> None:
        source = self.i.fmt
        if source.width > self.MOST:
            raise ConfigError(
                f"a table takes codes of at most {self.MOST} bits, not {source}: requantise first"
            )
        codes = 2 if source == Bipolar() else source.max - source.min + 1
        if self.entries.shape != (codes,):
            raise ConfigError(
                f"entries must be {codes}, one for each code of {source}, "
                f"not of shape {self.entries.shape}"
            )
        if not self.target.holds(self.entries):
            raise ConfigError(
                f"entries must be codes of {self.target}, "
                f"not {int(self.entries.min())} to {int(self.entries.max())}"
            )

    @property
    def o(self) -> Beats:
        return replace(self.i, fmt=self.target)

    @property
    def latency(self) -> int:
        # The memory, and a register behind it: block RAM is slow.
        return 2

    def _index(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        return (codes + 1) // 2 if self.i.fmt == Bipolar() else codes - self.i.fmt.min

    def reference(self, x: NDArray) -> NDArray[np.int64]:
        return self.entries.astype(np.int64)[self._index(np.asarray(x).astype(np.int64))]

    def words(self) -> list[int]:
        """Contents of the memory, by the bits of the code."""
        bits = np.arange(1 << self.i.fmt.width)
        # A ternary code leaves one pattern over, which never comes.
        index = self._index(self.i.fmt.from_bits(bits)) % len(self.entries)
        return self.target.to_bits(self.entries[index]).tolist()

    def build(self) -> "TableUnit":
        return TableUnit(self)


class TableUnit(Elementwise[TableSpec]):
    """Streaming form of :class:`TableSpec`: one beat a cycle.

    Members
    -------
    i : ``In(spec.i.signature)``
    o : ``Out(spec.o.signature)``
    """

    def compute(self, m: Module, pipe: Pipe, code: Code) -> Value:
        spec = self.spec
        pipe.stage()  # The memory's own.
        address = code.bits.as_unsigned()
        entry = rom(m, "entries", spec.words(), spec.target.width, address, spec.store)
        return pipe.stage(entry=entry)[0]
