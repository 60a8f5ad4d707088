"""The line buffer of an engine that slides a window over an image."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, prod
from typing import Any, Self

from brambling.boards.memories import PER_WORD_OF_LUT, Needs, ram, rom
from brambling.boards.parts import Part
from brambling.hw.beat import Beats
from brambling.hw.lines import Flow
from brambling.hw.odometer import TABLE_BITS, record_bits
from brambling.hw.window import WindowFeedSpec
from brambling.layers import DepthToSpace, Upsample
from brambling.layers.image import Window
from brambling.plan import Stage, Step

__all__ = ["LineBuffer"]

# Fitted to line buffers, synthesised one by one for ECP5, from 125 to 1,423 LUTs.
PER_FEED = 26  #: LUTs of the control of both ends,
PER_COUNTER_BIT = 6.6  #: and by bits of its counters,
PER_ADDRESS_BIT = 4.4  #: of the addresses in a bank,
PER_MOVED_BIT = 6.6  #: of the line in which a frame begins, where it is not always the first,
PER_LATER_BIT = 1.7  #: of the addresses of banks that are read one word further on.
PER_TABLE = 0.7  #: Of what tables in LUTs would take by themselves.
PER_CHOICE = 0.83  #: LUTs of a bit that choose between one more bank, for each place.
PER_PADDED_BIT = 0.27  #: LUTs of a bit that choose between image and padding.


@dataclass(frozen=True, slots=True)
class LineBuffer:
    """Rows of an image in ``banks`` memories, side by side, of ``words`` words of ``bits`` bits.

    Parameters
    ----------
    pixels
        Columns that are read in a cycle.
    control
        LUTs of counters, addresses and small tables.
    choices
        Banks that a place may be in, beside the first, summed over the places of a slot.
    padded
        Whether some tap is in the padding.
    tables
        Words and bits of the tables that are too large for LUTs.
    """

    banks: int
    words: int
    bits: int
    pixels: int
    control: float = PER_FEED
    choices: int = 0
    padded: bool = False
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
        size = _size(i, window, stage.pixels, chunks, folds, factor, split)
        return cls(bits=stage.simd * i.fmt.width, pixels=stage.pixels, **size)

    @classmethod
    def between(cls, i: Beats, pixels: int) -> Self:
        """Return what passes an image on with another number of pixels at a time."""
        size = _size(i, Window(kernel=(1, 1)), pixels, i.groups, 1)
        return cls(bits=i.lanes * i.fmt.width, pixels=pixels, **size)

    def needs(self, part: Part, store: str) -> Needs:
        """Estimate memories, multiplexers and control."""
        memories = ram(part, self.words, self.bits, store) * self.banks
        for words, bits in self.tables:
            memories += rom(part, "block", words, bits)
        chosen = self.choices * PER_CHOICE + self.padded * self.pixels * PER_PADDED_BIT
        return memories + Needs(0, ceil(self.control + self.bits * chosen))


@lru_cache(maxsize=1 << 15)
def _size(
    i: Beats,
    window: Window,
    pixels: int,
    chunks: int,
    folds: int,
    factor: tuple[int, int] = (1, 1),
    split: bool = False,
) -> Mapping[str, Any]:
    """Return what does not depend on the width of a code, by field of :class:`LineBuffer`.

    As :class:`WindowFeedSpec` has them, but what does not depend on the lanes is found only once.
    """
    parts = prod(factor) if split else 1
    places = _places(replace(i, elements=parts, lanes=1), window, pixels, factor, split)
    kept = replace(places.stored, elements=i.elements // parts, lanes=i.lanes)
    beats = window.kernel[0] * window.kernel[1] * (kept.groups // chunks)
    flow = Flow(
        kept,
        places.down,
        need_step=places.need_step,
        slots=chunks * folds * beats,
        release=places.RELEASE,
    )
    lines = flow.lines()
    line = -(-kept.columns // places.banks) * kept.groups
    large: tuple[tuple[int, int], ...] = ()
    if _many_places(places, lines * line):
        large = _tables(replace(places, source=i, chunks=chunks, folds=folds))
    counted = kept.groups // chunks, *window.kernel, folds, chunks, places.steps, places.bands
    seen = _seen(places)
    control = PER_FEED + PER_COUNTER_BIT * sum(map(bits_below, counted))
    control += bits_below(lines * line) * (PER_ADDRESS_BIT + PER_LATER_BIT * seen.later)
    control += PER_MOVED_BIT * bits_below(lines) * (i.rows % lines > 0)
    control += PER_TABLE * _small(places, seen, lines, line)
    return {
        "banks": places.banks,
        "words": lines * line,
        "control": control,
        "choices": seen.choices,
        "padded": seen.padded,
        "tables": large,
    }


def bits_below(count: int) -> int:
    """Bits of a number below ``count``."""
    return (count - 1).bit_length()


@dataclass(frozen=True, slots=True)
class Seen:
    """Where the places of a feed's slots are.

    Parameters
    ----------
    patterns
        Different ones.
    choices
        As :class:`LineBuffer` has them.
    later
        Banks of which the word after the first of a slot is read.
    padded
        Whether some tap is in the padding.
    """

    patterns: int
    choices: int
    later: int
    padded: bool


@lru_cache(maxsize=1 << 12)
def _seen(feed: WindowFeedSpec) -> Seen:
    _, patterns = feed.patterns
    choices = sum(len({seen[place][0] for seen in patterns}) - 1 for place in range(feed.pixels))
    later = {bank for pattern in patterns for bank, after in pattern if after}
    padded = not (feed.across.inside | feed.idle[:, None]).all() or not feed.down.inside.all()
    return Seen(len(patterns), choices, len(later), padded)


def _small(feed: WindowFeedSpec, seen: Seen, lines: int, line: int) -> float:
    """LUTs of the tables of a feed whose line has so many words, those too large for LUTs left out.

    Columns, lines, rows, steps, and where lines begin.
    """
    ky, kx = feed.window.kernel
    column = bits_below(seen.patterns) + bits_below(line) + seen.padded * feed.pixels
    tables = (
        (feed.steps * kx, column),
        (feed.bands * ky, bits_below(lines) + seen.padded),
        (feed.bands, 2),
        (feed.steps, bits_below(feed.stored.steps)),
        (lines, bits_below(lines * line)),
    )
    rows = [(-(-words // 16), bits) for words, bits in tables if 1 < words * bits <= TABLE_BITS]
    return sum(bits * (PER_WORD_OF_LUT * row + row - 1) for row, bits in rows)


@lru_cache(maxsize=1 << 12)
def _places(
    i: Beats, window: Window, pixels: int, factor: tuple[int, int], split: bool
) -> WindowFeedSpec:
    """Return a feed that sees the same places; all feeds of as many pixels share it."""
    return WindowFeedSpec(
        source=i,
        window=window,
        pixels=pixels,
        pad_value=i.fmt.min,  # Any code: what pads takes no memory.
        factor=factor,
        split=split,
    )


def _many_places(feed: WindowFeedSpec, words: int) -> bool:
    """Whether a feed of so many words may have tables that are too large for LUTs; few have any."""
    most = max(feed.steps * feed.window.kernel[1], feed.bands * feed.window.kernel[0])
    address = words.bit_length() + most.bit_length() + feed.pixels
    return most * max(address, 2 * feed.source.rows.bit_length()) > TABLE_BITS


def _tables(feed: WindowFeedSpec) -> tuple[tuple[int, int], ...]:
    """Words and bits of the tables of a feed that are too large for LUTs."""
    steps = {"need": feed.need_step.tolist()}
    tables = (feed.column_words(), feed.line_words(), feed.row_words(), steps)
    sizes = [(max(map(len, fields.values())), record_bits(fields)) for fields in tables]
    return tuple((words, bits) for words, bits in sizes if words * bits > TABLE_BITS)
