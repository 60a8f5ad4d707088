"""Lines of an image that a sliding window sees: which, when, and how many must be kept."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from brambling.hw.beat import Beats

__all__ = ["Axis", "Flow"]

ALWAYS = 1 << 40  #: A latest cycle that is never missed.


@dataclass(frozen=True, eq=False)
class Axis:
    """Rows or columns: which lines of the image each position sees.

    ``taps`` is int64 ``(positions, kernel)``, rising both ways (but for columns of an image that is
    split); in the padding it is below 0, or ``size`` or more.
    """

    taps: NDArray[np.int64]
    size: int

    @cached_property
    def inside(self) -> NDArray[np.bool_]:
        """Whether a tap is in the image."""
        return (self.taps >= 0) & (self.taps < self.size)

    @cached_property
    def base(self) -> NDArray[np.int64]:
        """First line that a position, or one after it, sees; then ``size``; ``(positions + 1,)``.

        That last one is for the position after the last: it sees nothing.
        """
        return np.append(self.taps[:, 0].clip(0, self.size), self.size)

    @cached_property
    def need(self) -> NDArray[np.int64]:
        """Line up to which all must be there for a position, ``(positions,)``."""
        return self.taps[:, -1].clip(0, self.size - 1)

    @cached_property
    def finished(self) -> NDArray[np.int64]:
        """Positions that must be finished until a line is free, ``(size,)``."""
        return np.searchsorted(self.base, np.arange(self.size), side="right")

    @cached_property
    def least(self) -> int:
        """Lines without which a position would never be complete."""
        return max(1, int((self.need - self.base[:-1]).max()) + 1)


@dataclass(frozen=True, eq=False)
class Flow:
    """Input and slots of a steady state without stalls: frame after frame, no cycle lost.

    A frame takes the cycles of its slots, or of its input beats, whichever is more.

    Parameters
    ----------
    source
        The image.
    down
        Its rows, by row of positions.
    need_step
        Step of the input, in its row, that a group of positions waits for, ``(groups,)``.
    slots
        Slots of a group of positions.
    release
        Edges from the last slot of a row of positions to its lines being free.
    """

    source: Beats
    down: Axis
    need_step: NDArray[np.int64]
    slots: int
    release: int

    def lines(self) -> int:
        """Fewest lines with which the flow is possible.

        Each line must be free before it is written, and each pixel written before it is read: with
        the slower side at its pace and the other one as early as it can be; and, since an engine
        in front makes its results evenly, also with the input spread evenly over the frame.
        """
        if self._written > self._worked:
            lines = self.down.least
            while not self._writing(lines):
                lines += 1
            return lines
        return max(self.down.least, self._kept(self._working), self._kept(self._even))

    def possible(self, lines: int) -> bool:
        """Whether the flow is possible with that many lines."""
        if self._written > self._worked:
            return self._writing(lines)
        return lines >= max(self._kept(self._working), self._kept(self._even))

    def _kept(self, latest: NDArray[np.int64]) -> int:
        """Fewest lines with which each row is free by its latest cycle.

        ``latest`` is of the rows of a frame, or also of those of the frame before.
        """
        rows, bands, finished = self.source.rows, len(self.down.taps), self.down.finished
        # Rows of positions that may be waited for, and the last line that these make free.
        most = (latest + 1 - self.release) // self._row
        frame, band = np.divmod(most - 1, bands)
        free = frame * rows + np.searchsorted(finished, band + 1, side="right") - 1
        return int((np.arange(-rows, rows)[-len(latest) :] - free).max())

    @property
    def _row(self) -> int:
        """Slots of a row of positions."""
        return len(self.need_step) * self.slots

    @property
    def _worked(self) -> int:
        """Slots of a frame."""
        return len(self.down.taps) * self._row

    @property
    def _written(self) -> int:
        """Input beats of a frame."""
        return self.source.count

    def _outputs(self, lines: int) -> NDArray[np.int64]:
        """Rows of positions to be finished before each row of two frames is written.

        ``(2 * rows,)``; counted from the start of the second frame, so negative before it.
        """
        rows = self.source.rows
        frame, line = np.divmod(np.arange(-rows, rows) - lines, rows)
        return frame * len(self.down.taps) + self.down.finished[line]

    def _writing(self, lines: int) -> bool:
        """Whether input in every cycle finds its lines free; slots as early as they can be."""
        source, groups = self.source, len(self.need_step)
        row = source.steps * source.groups
        begin = np.arange(-source.rows, source.rows) * row
        need = np.concatenate([self.down.need, self.down.need + source.rows])
        # A group begins in the cycle after the pixel that it waits for; those behind it follow.
        behind = (groups - np.arange(groups)) * self.slots - 1
        tail = int(((self.need_step + 1) * source.groups + behind).max())
        at = np.arange(len(need)) * self._row
        ends = (np.maximum.accumulate(begin[need] + tail - at) + at)[len(self.down.taps) :]
        frame, position = np.divmod(self._outputs(lines)[source.rows :] - 1, len(self.down.taps))
        free = ends[position] + frame * self._written + self.release
        return bool((free <= begin[source.rows :]).all())

    @property
    def _working(self) -> NDArray[np.int64]:
        """Latest cycles in which rows must be free, for a slot in every cycle.

        Input as early as it can be.
        """
        source = self.source
        at = np.arange(2 * source.rows) * source.steps * source.groups
        steps = np.arange(len(self.need_step)) * self.slots
        late = int(((self.need_step + 1) * source.groups - steps).max())
        # Each band needs all rows up to one, and so does each that needs a later one.
        needed = source.rows + self.down.need
        spare = np.full(2 * source.rows, ALWAYS)
        np.minimum.at(spare, needed, np.arange(len(needed)) * self._row - at[needed])
        return np.minimum.accumulate(spare[::-1])[::-1] + at - late

    @property
    def _even(self) -> NDArray[np.int64]:
        """Latest cycles in which rows must be free, for a slot in every cycle.

        Input spread evenly over the frame.
        """
        source, unit = self.source, self.source.rows * self.source.steps
        # Times are in cycles / unit, so that each step of the input takes a whole number of them.
        begin = np.arange(source.rows) * source.steps * self._worked
        steps = np.arange(len(self.need_step)) * self.slots * unit
        late = int(((self.need_step + 1) * self._worked - steps).max())
        rows = np.arange(len(self.down.taps)) * self._row * unit
        latest = (rows - begin[self.down.need]).min() - late  # For the input to begin.
        return (latest + begin) // unit
