"""What the cycle model by frame is built of; see :mod:`brambling.sim.frames`.

Records hold the times of all frames, each frame after the other; a component computes those of one
frame at a time.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from brambling.timing import Timing

__all__ = ["FramePart", "Queue", "Queued", "Record", "Track", "after", "chain", "shifted"]

Times = NDArray[np.int64]
NEVER = -1  #: Of a component that has done nothing yet.


def chain(bounds: Times, steps: Times, before: int | Times) -> Times:
    """Events in turn: ``t[n] = max(bounds[n], t[n - 1] + steps[n] - steps[n - 1])``.

    ``steps`` are counted from an event ahead of all, which was at ``before``. Along the first axis.
    """
    return steps + np.maximum(np.maximum.accumulate(bounds - steps), before)


def shifted(values: Times, first: int) -> Times:
    """Each event's predecessor; that of the first is ``first``."""
    return np.concatenate([[first], values[:-1]])


def after(values: Times, span: slice, lag: int) -> Times:
    """Cycle after each of ``values``, ``lag`` places before those of ``span``; 0 for what is not.

    A place that is freed is there in the cycle after (:attr:`Timing.CREDIT`).
    """
    missing = min(max(lag - span.start, 0), span.stop - span.start)
    known = values[max(span.start - lag, 0) : max(span.stop - lag, 0)]
    return np.concatenate([np.zeros(missing, np.int64), known + Timing.CREDIT])


class Record:
    """Times of ``count`` events of each frame, all in one array."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.times = np.zeros(0, np.int64)

    def grow(self, frames: int) -> None:
        """Make room for so many frames."""
        more = np.zeros(frames * self.count - len(self.times), np.int64)
        self.times = np.concatenate([self.times, more])

    def span(self, frame: int) -> slice:
        return slice(frame * self.count, (frame + 1) * self.count)

    def of(self, frame: int) -> Times:
        """Return the times of a frame."""
        return self.times[self.span(frame)]

    def put(self, frame: int, values: Times) -> bool:
        """Note the times of a frame; say whether they are new."""
        if np.array_equal(self.of(frame), values):
            return False
        self.times[self.span(frame)] = values
        return True

    def last(self, frame: int) -> int:
        """Time of the last event before that frame."""
        return int(self.times[frame * self.count - 1]) if frame else NEVER


class Track:
    """The beats of one stream; see :class:`brambling.sim.processes.Wire`.

    Parameters
    ----------
    count
        Beats of a frame.
    """

    def __init__(self, count: int) -> None:
        self.moved = Record(count)
        self.offers = np.zeros(count, np.int64)  #: From when each beat of this frame is offered,
        self.readies = np.zeros(count, np.int64)  #: and from when it is wanted.
        self.changed = [False, False]  #: Whether either is new to the other end.

    @property
    def count(self) -> int:
        return self.moved.count

    @property
    def times(self) -> Times:
        """Cycle in which each beat moves."""
        return self.moved.times

    def grow(self, frames: int) -> None:
        """Make room for so many frames."""
        self.moved.grow(frames)

    def begin(self) -> None:
        """Begin another frame, of which nothing is known."""
        self.offers.fill(0)
        self.readies.fill(0)

    def offer(self, frame: int, values: Times) -> None:
        """Say from when each beat of this frame is offered."""
        self._say(0, self.offers, frame, values)

    def want(self, frame: int, values: Times) -> None:
        """Say from when each beat of this frame is wanted."""
        self._say(1, self.readies, frame, values)

    def _say(self, side: int, said: Times, frame: int, values: Times) -> None:
        if not np.array_equal(said, values):
            said[:] = values
            self.moved.put(frame, np.maximum(self.offers, self.readies))
            self.changed[side] = True


class Queue:
    """A memory whose writer makes sure of room, and a register at its output."""

    def __init__(self, o: Track, depth: int) -> None:
        self.o, self.depth = o, depth
        self.written, self.read, self.given = (Record(o.count) for _ in range(3))
        self.steps = np.arange(1, o.count + 1)

    def grow(self, frames: int) -> None:
        """Make room for so many frames."""
        for record in (self.written, self.read, self.given):
            record.grow(frames)

    def room(self, frame: int) -> Times:
        """Return the first cycle with room for each result of a frame."""
        return after(self.given.times, self.given.span(frame), self.depth)

    def write(self, frame: int, written: Times) -> bool:
        """Write the results of a frame; say whether there may be other room for them now."""
        self.written.put(frame, written)
        before, wanted = self.given.last(frame), self.o.readies
        given = chain(np.maximum(written + 2, wanted), self.steps, before)
        read = np.maximum(written + 1, shifted(given, before))
        self.o.offer(frame, read + 1)
        changed = self.read.put(frame, read) | self.given.put(frame, given)
        return changed and self.depth < self.o.count


class FramePart(ABC):
    """A component of the model; what it must remember of each frame is in ``records``."""

    records: Sequence[Record | Queue] = ()

    def grow(self, frames: int) -> None:
        """Make room for so many frames."""
        for record in self.records:
            record.grow(frames)

    @abstractmethod
    def solve(self, frame: int) -> bool:
        """Compute the times of a frame; say whether they must be computed again from these."""


class Queued(FramePart):
    """A component that ends in a queue."""

    queue: Queue

    @property
    def results(self) -> Times:
        """Cycles in which results are written into the queue."""
        return self.queue.written.times
