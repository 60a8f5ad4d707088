"""Beats: how a tensor travels over a stream."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from amaranth.hdl import Shape, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import Out
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.layers import Tensor
from brambling.quant.formats import Bipolar, Format

__all__ = ["Beats", "shape_of"]


def shape_of(fmt: Format) -> Shape:
    """Amaranth's shape for the codes of ``fmt``; a bipolar code is one unsigned bit."""
    return Shape(fmt.width, fmt.signed and fmt != Bipolar())


@dataclass(frozen=True, slots=True)
class Beats:
    """An image of ``rows`` by ``columns`` pixels, or one vector, as beats of codes.

    Each pixel has ``elements`` channels. A beat carries ``lanes`` channels of ``pixels`` neighbours
    in a row. Beats come row by row; in a row, group of ``pixels`` by group; in a group, lanes by
    lanes. Channel ``n`` of a pixel is in beat ``n // lanes`` of its group, lane ``n % lanes``, and
    column ``c`` in group ``c // pixels``, place ``c % pixels``. Lane 0 is in the lowest bits; the
    ``pixels`` codes of a lane lie side by side, place 0 lowest. Lanes past the last channel and
    places past the last column carry no meaning. The bit above the lanes, ``first``, marks the
    first beat of a frame: whatever came before, a frame starts there.
    """

    fmt: Format
    elements: int
    lanes: int
    rows: int = 1
    columns: int = 1
    pixels: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.lanes <= self.elements:
            raise ConfigError(f"lanes must be 1 to {self.elements}, not {self.lanes}")
        if not 1 <= self.pixels <= self.columns:
            raise ConfigError(f"pixels must be 1 to {self.columns}, not {self.pixels}")

    @classmethod
    def of(cls, tensor: Tensor, lanes: int, pixels: int = 1) -> Self:
        """Return how ``tensor`` travels: an image by pixels, a vector or one value as one pixel."""
        rows, columns, elements = (1, 1, 1, *tensor.shape)[-3:]
        return cls(tensor.fmt, elements, lanes, rows, columns, pixels)

    @property
    def groups(self) -> int:
        """Beats of a pixel, or of ``pixels`` neighbours."""
        return -(-self.elements // self.lanes)

    @property
    def steps(self) -> int:
        """Groups of ``pixels`` in a row."""
        return -(-self.columns // self.pixels)

    @property
    def count(self) -> int:
        """Beats in a frame."""
        return self.rows * self.steps * self.groups

    @property
    def tail(self) -> int:
        """Channels in the last beat of a pixel."""
        return self.elements - (self.groups - 1) * self.lanes

    @property
    def size(self) -> int:
        """Codes of a frame."""
        return self.rows * self.columns * self.elements

    @property
    def layout(self) -> data.StructLayout:
        # All lanes in one field: Amaranth gives each element of an array a wire of its own, named
        # like a bit of the whole, and Yosys' ABC pass mixes up the two.
        return data.StructLayout({"data": self.width - 1, "first": 1})

    def lane(self, data: Value, n: int, place: int = 0) -> Value:
        """Return one code of a payload's ``data``, to be read as a code or written as bits."""
        width = self.fmt.width
        start = (n * self.pixels + place) * width
        bits = data[start : start + width]
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
        return self.lanes * self.pixels * self.fmt.width + 1

    def pack(self, codes: NDArray) -> NDArray[np.uint8]:
        """Frames ``(n, size)`` to payloads ``(n * count, bytes)``, little-endian."""
        first = np.zeros(self.count, np.uint8)
        first[0] = 1
        return self._payloads(self.fmt.to_bits(codes.reshape(len(codes), self.size)), first)

    def masks(self) -> NDArray[np.uint8]:
        """Bits that carry meaning in the payloads of a frame, ``(count, bytes)``."""
        words = np.full((1, self.size), (1 << self.fmt.width) - 1, np.uint64)
        return self._payloads(words, np.ones(self.count, np.uint8))

    def _payloads(self, words: NDArray[np.uint64], first: NDArray[np.uint8]) -> NDArray[np.uint8]:
        frames = len(words)
        words = words.reshape(frames, self.rows, self.columns, self.elements)
        spare = self.steps * self.pixels - self.columns, self.groups * self.lanes - self.elements
        words = np.pad(words, ((0, 0), (0, 0), (0, spare[0]), (0, spare[1])))
        words = words.reshape(
            frames * self.rows, self.steps, self.pixels, self.groups, self.lanes
        ).transpose(0, 1, 3, 4, 2)
        bits = np.zeros((*words.shape, self.fmt.width), np.uint8)
        for n in range(self.fmt.width):
            bits[..., n] = (words >> np.uint64(n)) & np.uint64(1)
        flags = np.broadcast_to(first[:, None], (frames, self.count, 1))
        rows = np.concatenate([bits.reshape(frames, self.count, self.width - 1), flags], axis=2)
        return np.packbits(rows.reshape(-1, self.width), axis=1, bitorder="little")

    def unpack(self, payloads: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Payloads of whole frames to codes ``(n, size)``; inverse of :meth:`pack`."""
        frames = len(payloads) // self.count
        rows = np.unpackbits(
            payloads[: frames * self.count], axis=1, count=self.width - 1, bitorder="little"
        )
        bits = rows.reshape(
            frames * self.rows, self.steps, self.groups, self.lanes, self.pixels, self.fmt.width
        )
        words = np.zeros(bits.shape[:-1], np.uint64)
        for n in range(self.fmt.width):
            words |= bits[..., n].astype(np.uint64) << np.uint64(n)
        words = words.transpose(0, 1, 4, 2, 3).reshape(
            frames, self.rows, self.steps * self.pixels, self.groups * self.lanes
        )
        codes = self.fmt.from_bits(words[:, :, : self.columns, : self.elements])
        return codes.reshape(frames, self.size)
