"""The line buffer of an engine that slides a window over an image."""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Self

from brambling.boards.memories import Needs, ram
from brambling.boards.parts import Part
from brambling.hw.beat import Beats
from brambling.hw.window import WindowFeedSpec
from brambling.layers import Upsample
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
    """

    banks: int
    words: int
    bits: int
    pixels: int

    @classmethod
    def of(cls, step: Step, window: Window, stage: Stage, source: int) -> Self:
        """Return the line buffer of ``step``, into which ``source`` pixels come at a time."""
        i = Beats.of(step.x, stage.simd, source)
        factor = step.layers[0].factor if isinstance(step.layers[0], Upsample) else (1, 1)
        chunks, folds = i.groups, 1
        if step.products:
            chunks, folds = step.chunks, -(-step.outputs // stage.pe)
        banks, words = _size(i, window, stage.pixels, chunks, folds, factor)
        return cls(banks, words, stage.simd * i.fmt.width, stage.pixels)

    @classmethod
    def between(cls, i: Beats, pixels: int) -> Self:
        """Return what passes an image on with another number of pixels at a time."""
        banks, words = _size(i, Window(kernel=(1, 1)), pixels, i.groups, 1, (1, 1))
        return cls(banks, words, i.lanes * i.fmt.width, pixels)

    def needs(self, part: Part, store: str) -> Needs:
        """Estimate memories, multiplexers and control."""
        levels = (self.banks - 1).bit_length()
        turned = self.bits * max(self.pixels, self.banks if levels else 0) * (1 + levels)
        memories = ram(part, self.words, self.bits, store) * self.banks
        return memories + Needs(0, ceil(PER_FEED + turned * PER_ROTATED_BIT))


@lru_cache(maxsize=1 << 15)
def _size(
    i: Beats, window: Window, pixels: int, chunks: int, folds: int, factor: tuple[int, int]
) -> tuple[int, int]:
    """Memories, and words of each."""
    feed = WindowFeedSpec(
        source=i, window=window, pixels=pixels, chunks=chunks, folds=folds, factor=factor
    )
    return feed.banks, feed.lines * feed.words
