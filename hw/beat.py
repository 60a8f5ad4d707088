"""Beats: how a tensor travels over a stream."""

from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Shape, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import Out
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.quant.formats import Bipolar, Format

__all__ = ["Beats", "shape_of"]


def shape_of(fmt: Format) -> Shape:
    """Amaranth's shape for the codes of ``fmt``; a bipolar code is one unsigned bit."""
    return Shape(fmt.width, fmt.signed and fmt != Bipolar())


@dataclass(frozen=True, slots=True)
class Beats:
    """A vector of ``elements`` codes as beats of ``lanes`` codes each.

    Element ``n`` of the vector is in beat ``n // lanes``, lane ``n % lanes``; lane 0 is in the
    lowest bits. Lanes past the last element carry no meaning. The bit above the lanes, ``first``,
    marks the first beat of a frame: whatever came before, a frame starts there.
    """

    fmt: Format
    elements: int
    lanes: int

    def __post_init__(self) -> None:
        if not 1 <= self.lanes <= self.elements:
            raise ConfigError(f"lanes must be 1 to {self.elements}, not {self.lanes}")

    @property
    def count(self) -> int:
        """Beats in a frame."""
        return -(-self.elements // self.lanes)

    @property
    def tail(self) -> int:
        """Elements in the last beat."""
        return self.elements - (self.count - 1) * self.lanes

    @property
    def layout(self) -> data.StructLayout:
        # All lanes in one field: Amaranth gives each element of an array a wire of its own, named
        # like a bit of the whole, and Yosys' ABC pass mixes up the two.
        return data.StructLayout({"data": self.lanes * self.fmt.width, "first": 1})

    def lane(self, data: Value, n: int) -> Value:
        """Return lane ``n`` of a payload's ``data``, to be read as a code or written as bits."""
        width = self.fmt.width
        bits = data[n * width : (n + 1) * width]
        return bits.as_signed() if shape_of(self.fmt).signed else bits

    @property
    def signature(self) -> stream.Signature:
        return stream.Signature(self.layout)

    @property
    def tap(self) -> wiring.Signature:
        """Interface on which beats are only observed: ``valid`` and ``payload``."""
        return wiring.Signature({"valid": Out(1), "payload": Out(self.layout)})

    @property
    def width(self) -> int:
        """Bits of a beat, ``first`` included."""
        return self.lanes * self.fmt.width + 1

    def pack(self, codes: NDArray) -> NDArray[np.uint8]:
        """Frames ``(n, elements)`` to payloads ``(n * count, bytes)``, little-endian."""
        frames = len(codes)
        bits = np.zeros((frames, self.count * self.lanes, self.fmt.width), np.uint8)
        words = self.fmt.to_bits(codes.reshape(frames, self.elements))
        for n in range(self.fmt.width):
            bits[:, : self.elements, n] = (words >> np.uint64(n)) & np.uint64(1)
        bits = bits.reshape(frames, self.count, -1)
        first = np.zeros((frames, self.count, 1), np.uint8)
        first[:, 0] = 1
        rows = np.concatenate([bits, first], axis=2).reshape(frames * self.count, -1)
        return np.packbits(rows, axis=1, bitorder="little")

    def unpack(self, payloads: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Payloads of whole frames to codes ``(n, elements)``; inverse of :meth:`pack`."""
        frames = len(payloads) // self.count
        rows = np.unpackbits(
            payloads[: frames * self.count], axis=1, count=self.width - 1, bitorder="little"
        )
        bits = rows.reshape(frames, self.count * self.lanes, self.fmt.width)[:, : self.elements]
        words = np.zeros(bits.shape[:2], np.uint64)
        for n in range(self.fmt.width):
            words |= bits[:, :, n].astype(np.uint64) << np.uint64(n)
        return self.fmt.from_bits(words)
