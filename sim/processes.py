"""The components of the cycle model: when each of them moves its beats.

A beat moves when it is offered and its taker is ready, so each time is a maximum over earlier times
plus constants (a max-plus system; Baccelli et al., "Synchronization and Linearity", 1992). A
process goes on as far as the times known so far allow.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from brambling.hw.width import WidthAdapterSpec, dependences
from brambling.timing import Timing

__all__ = [
    "AdapterProcess",
    "EngineProcess",
    "FifoProcess",
    "Process",
    "Sink",
    "Source",
    "Wire",
    "next_allowed",
]


@dataclass(slots=True)
class Wire:
    """The beats of one stream: from when each is offered, from when taken, and when it moves."""

    offers: list[int] = field(default_factory=list)
    readies: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)

    def settle(self) -> None:
        """Move every beat that is known to be both offered and wanted."""
        times, offers, readies = self.times, self.offers, self.readies
        for n in range(len(times), min(len(offers), len(readies))):
            times.append(max(offers[n], readies[n]))

    def offer(self, time: int) -> None:
        self.offers.append(time)
        self.settle()

    def want(self, time: int) -> None:
        self.readies.append(time)
        self.settle()


class Process(Protocol):
    """A component of the model."""

    def step(self) -> bool:
        """Go on as far as the times known so far allow; say whether that was any further."""
        ...


def next_allowed(pattern: NDArray[np.bool_]) -> Callable[[int], int]:
    """Return the function from a cycle to the first cycle, not before it, that is allowed."""
    if pattern.all():
        return lambda cycle: cycle
    period = len(pattern)
    allowed = np.flatnonzero(pattern)
    index = np.searchsorted(allowed, np.arange(period))
    wrapped = np.append(allowed, allowed[0] + period)
    gaps = (wrapped[index] - np.arange(period)).tolist()
    return lambda cycle: cycle + gaps[cycle % period]


@dataclass(slots=True)
class Source:
    """Offers ``count`` beats, beginning to offer one only in allowed cycles."""

    o: Wire
    count: int
    allowed: Callable[[int], int]

    def step(self) -> bool:
        times = self.o.times
        before = n = len(self.o.offers)
        while n < self.count and len(times) >= n:
            self.o.offer(self.allowed(times[n - 1] + 1 if n else 0))
            n += 1
        return n > before


@dataclass(slots=True)
class Sink:
    """Takes beats in allowed cycles."""

    i: Wire
    allowed: Callable[[int], int]

    def step(self) -> bool:
        before = len(self.i.readies)
        for offer in self.i.offers[before:]:
            self.i.want(self.allowed(offer))
        return len(self.i.readies) > before


@dataclass(slots=True)
class FifoProcess:
    """A buffered FIFO: a memory, and a register at its output that is refilled as it empties.

    ``capacity`` is the memory's; ``None`` where the writer makes sure of room by itself, and calls
    :meth:`write`.
    """

    o: Wire
    i: Wire | None = None
    capacity: int | None = None
    writes: list[int] = field(default_factory=list)
    reads: list[int] = field(default_factory=list)  # Memory to output register.

    def write(self, time: int) -> None:
        self.writes.append(time)

    def step(self) -> bool:
        before = self._done()
        while self._take() | self._give():
            pass
        return self._done() > before

    def _done(self) -> int:
        wanted = len(self.i.readies) if self.i else 0  # Behind a fork, that frees the others.
        return len(self.writes) + len(self.reads) + wanted

    def _take(self) -> bool:
        if self.i is None or self.capacity is None:
            return False
        wire, n = self.i, len(self.writes)
        if len(wire.readies) == n:
            ready = wire.times[n - 1] + 1 if n else 0
            if n >= self.capacity:
                if len(self.reads) <= n - self.capacity:
                    return False
                ready = max(ready, self.reads[n - self.capacity] + 1)
            wire.want(ready)
        if len(wire.times) <= n:
            return False
        self.writes.append(wire.times[n])
        return True

    def _give(self) -> bool:
        moved = False
        times = self.o.times
        while (n := len(self.reads)) < len(self.writes) and len(times) >= n:
            read = self.writes[n] + 1
            if n:
                read = max(read, times[n - 1])
            self.reads.append(read)
            self.o.offer(read + 1)
            moved = True
        return moved


@dataclass(slots=True)
class EngineProcess:
    """Anything that keeps a :class:`Timing` and ends in a queue."""

    i: Wire
    o: Wire
    timing: Timing
    depth: int
    queue: FifoProcess = field(init=False)
    taken: int = 0  # Input beats so far.
    made: int = 0  # Results begun so far.
    beat: int = 0  # Input beats of this vector so far.
    fold: int = 0
    slot: int = -1  # Cycle of the last slot.

    def __post_init__(self) -> None:
        self.queue = FifoProcess(self.o)

    @property
    def results(self) -> list[int]:
        """Cycles in which results are written into the queue."""
        return self.queue.writes

    def step(self) -> bool:
        before = len(self.i.readies)
        moved = False
        while self.queue.step() | (self._fresh() if self.fold == 0 else self._replay()):
            moved = True
        return moved or len(self.i.readies) > before

    def _room(self) -> int | None:
        """First cycle with room for another result; ``None`` where that is not known yet."""
        if self.made < self.depth:
            return 0
        taken = self.o.times
        index = self.made - self.depth
        return taken[index] + Timing.CREDIT if len(taken) > index else None

    def _fresh(self) -> bool:
        wire, beats = self.i, self.timing.beats
        n = self.taken
        if len(wire.readies) == n:
            ready = self.slot + 1
            if self.beat == beats - 1:
                room = self._room()
                if room is None:
                    return False
                ready = max(ready, room)
            wire.want(ready)
        if len(wire.times) == n:
            return False
        self.slot = wire.times[n]
        self.taken += 1
        self.beat += 1
        if self.beat == beats:
            self._complete()
        return True

    def _replay(self) -> bool:
        room = self._room()
        if room is None:
            return False
        self.slot = max(self.slot + self.timing.beats, room)
        self._complete()
        return True

    def _complete(self) -> None:
        self.queue.write(self.slot + self.timing.latency)
        self.made += 1
        self.fold = (self.fold + 1) % self.timing.folds
        self.beat = 0


class AdapterProcess:
    """A width adapter; see :class:`brambling.hw.width.WidthAdapter`."""

    def __init__(self, i: Wire, o: Wire, spec: WidthAdapterSpec) -> None:
        self.i = i
        self.o = o
        self.inputs, self.outputs = spec.i.groups, spec.o.groups
        self.given, self.needed = dependences(spec)

    def step(self) -> bool:
        moved = False
        while self._take() | self._give():
            moved = True
        return moved

    def _take(self) -> bool:
        wire, given = self.i, self.o.times
        n = len(wire.readies)
        if len(wire.times) < n:
            return False
        pixel, beat = divmod(n, self.inputs)
        before = pixel * self.outputs + self.given[beat]
        if len(given) < before:
            return False
        ready = wire.times[n - 1] + 1 if n else 0
        wire.want(max(ready, given[before - 1]) if before else ready)
        return True

    def _give(self) -> bool:
        wire, taken = self.o, self.i.times
        n = len(wire.offers)
        if len(wire.times) < n:
            return False
        pixel, beat = divmod(n, self.outputs)
        needed = pixel * self.inputs + self.needed[beat]
        if len(taken) <= needed:
            return False
        offer = taken[needed] + 1
        wire.offer(max(offer, wire.times[n - 1] + 1) if n else offer)
        return True
