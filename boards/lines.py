"""The line buffer of an engine that slides a window over an image."""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Self

from brambling.boards.memories import Needs, ram, rom
from brambling.boards.parts import Part
from brambling.hw.beat import Beats
from brambling.hw.odometer import TABLE_BITS, record_bits
from brambling.hw.window import WindowFeedSpec
from brambling.layers import DepthToSpace, Upsample
from brambling.layers.image import Window
from brambling.plan import Stage, Step

__all__ = ["LineBuffer"]

PER_FEED = 150  #: Addresses, their tables, and the control of both ends.
PER_ROTATED_BIT = 1.0  #: For each place and each level of the multiplexers behind the banks.


@dataclass(frozen=True, slots=True)
class LineBuffer:
    """Rows of an image in ``banks`` memories, side by side, of ``words`` words of ``bits`` bits.

    Parameters
    ----------
    pixels
        Columns that are read in a cycle.
    tables
        Words and bits of the tables that are too large for LUTs.
    """

    banks: int
    words: int
    bits: int
    pixels: int
    tables: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, step: Step, window: Window, stage: Stage, source: int) -> Self:
        """Return the line buffer of ``step``, into which ``source`` pixels come at a time."""
        i = Beats.of(step.x, stage.simd, source)
        layer, factor = step.layers[0], (1, 1)
        chunks, folds = -(-step.outputs // stage.simd), 1
        if isinstance(layer, Upsample | DepthToSpace):
            factor = layer.factor if isinstance(layer, Upsample) else layer.block
        if step.products:
            chunks, folds = step.chunks, -(-step.outputs // stage.pe)
        split = isinstance(layer, DepthToSpace)
        banks, words, tables = _size(i, window, stage.pixels, chunks, folds, factor, split)
        return cls(banks, words, stage.simd * i.fmt.width, stage.pixels, tables)

    @classmethod
    def between(cls, i: Beats, pixels: int) -> Self:
        """Return what passes an image on with another number of pixels at a time."""
        banks, words, tables = _size(i, Window(kernel=(1, 1)), pixels, i.groups, 1)
        return cls(banks, words, i.lanes * i.fmt.width, pixels, tables)

    def needs(self, part: Part, store: str) -> Needs:
        """Estimate memories, multiplexers and control."""
        levels = (self.banks - 1).bit_length()
        turned = self.bits * max(self.pixels, self.banks if levels else 0) * (1 + levels)
        memories = ram(part, self.words, self.bits, store) * self.banks
        for words, bits in self.tables:
            memories += rom(part, "block", words, bits)
        return memories + Needs(0, ceil(PER_FEED + turned * PER_ROTATED_BIT))


@lru_cache(maxsize=1 << 15)
def _size(
    i: Beats,
    window: Window,
    pixels: int,
    chunks: int,
    folds: int,
    factor: tuple[int, int] = (1, 1),
    split: bool = False,
) -> tuple[int, int, tuple[tuple[int, int], ...]]:
    """Memories, words of each, and large tables."""
    feed = WindowFeedSpec(
        source=i,
        window=window,
        pixels=pixels,
        chunks=chunks,
        folds=folds,
        pad_value=i.fmt.min,  # Any code: what pads takes no memory.
        factor=factor,
        split=split,
    )
    return feed.banks, feed.lines * feed.words, _tables(feed)


def _tables(feed: WindowFeedSpec) -> tuple[tuple[int, int], ...]:
    """Words and bits of the tables of a feed that are too large for LUTs; few feeds have any."""
    ky, kx = feed.window.kernel
    most = max(feed.steps * kx, feed.bands * ky)
    address = (feed.lines * feed.words).bit_length() + most.bit_length() + feed.pixels
    if most * max(address, 2 * feed.source.rows.bit_length()) <= TABLE_BITS:
        return ()
    steps = {"need": feed.need_step.tolist()}
    tables = (feed.column_words(), feed.line_words(), feed.row_words(), steps)
    sizes = [(max(map(len, fields.values())), record_bits(fields)) for fields in tables]
    return tuple((words, bits) for words, bits in sizes if words * bits > TABLE_BITS)
