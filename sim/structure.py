"""The cycle model of forks, joins and slices; see :mod:`brambling.sim.processes`.

Their ready and valid are functions of those of their neighbours, so one beat settles several wires
in the same cycle. Each process says on a wire only what does not depend on that same wire.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from brambling.hw.join import ConcatSpec
from brambling.hw.slice import SliceSpec
from brambling.sim.processes import FifoProcess, Wire
from brambling.timing import Timing

__all__ = ["AddProcess", "ConcatProcess", "ForkProcess", "SliceProcess"]


@dataclass(slots=True)
class ForkProcess:
    """A fork; see :class:`brambling.hw.fork.Fork`."""

    i: Wire
    outs: Sequence[Wire]

    def step(self) -> bool:
        moved = False
        for o in self.outs:
            others = [other for other in self.outs if other is not o]
            known = min(len(self.i.offers), *(len(other.readies) for other in others))
            for beat in range(len(o.offers), known):
                o.offer(max(self.i.offers[beat], *(other.readies[beat] for other in others)))
                moved = True
        known = min(len(o.readies) for o in self.outs)
        for beat in range(len(self.i.readies), known):
            self.i.want(max(o.readies[beat] for o in self.outs))
            moved = True
        return moved


@dataclass(slots=True)
class Results:
    """The output queue of a join that makes one result a cycle."""

    o: Wire
    latency: int
    depth: int
    queue: FifoProcess = field(init=False)

    def __post_init__(self) -> None:
        self.queue = FifoProcess(self.o)

    def room(self, result: int) -> int | None:
        """First cycle with room for that result; ``None`` where that is not known yet."""
        if result < self.depth:
            return 0
        index = result - self.depth
        taken = self.o.times
        return taken[index] + Timing.CREDIT if len(taken) > index else None

    def write(self, slot: int) -> None:
        self.queue.write(slot + self.latency)


class AddProcess:
    """A sum; see :class:`brambling.hw.join.Adder`."""

    def __init__(self, sources: Sequence[Wire], o: Wire, latency: int, depth: int) -> None:
        self.sources = sources
        self.made = Results(o, latency, depth)

    @property
    def results(self) -> list[int]:
        """Cycles in which results are written into the queue."""
        return self.made.queue.writes

    def step(self) -> bool:
        moved = False
        while self.made.queue.step() | self._want() | self._take():
            moved = True
        return moved

    def _want(self) -> bool:
        """Say when there is room and all others offer."""
        n = len(self.results)
        room = self.made.room(n)
        if room is None:
            return False
        moved = False
        for source in self.sources:
            others = [other for other in self.sources if other is not source]
            if len(source.readies) == n and all(len(other.offers) > n for other in others):
                source.want(max(room, *(other.offers[n] for other in others)))
                moved = True
        return moved

    def _take(self) -> bool:
        n = len(self.results)
        if any(len(source.times) <= n for source in self.sources):
            return False
        self.made.write(self.sources[0].times[n])
        return True


class ConcatProcess:
    """A concatenation; see :class:`brambling.hw.join.Concatenation`."""

    def __init__(self, sources: Sequence[Wire], o: Wire, spec: ConcatSpec) -> None:
        self.sources = sources
        self.made = Results(o, spec.timing.latency, spec.depth)
        # Source of each beat of a pixel.
        self.turns = [n for n, i in enumerate(spec.sources) for _ in range(i.groups)]
        self.taken = [0] * len(sources)  # Beats of each source so far.
        self.slot = -1  # Cycle of the last beat.

    @property
    def results(self) -> list[int]:
        """Cycles in which results are written into the queue."""
        return self.made.queue.writes

    def step(self) -> bool:
        moved = False
        while self.made.queue.step() | self._take():
            moved = True
        return moved

    def _take(self) -> bool:
        result = len(self.results)
        turn = self.turns[result % len(self.turns)]
        wire, n = self.sources[turn], self.taken[turn]
        if len(wire.readies) == n:
            room = self.made.room(result)
            if room is None:
                return False
            wire.want(max(self.slot + 1, room))
        if len(wire.times) == n:
            return False
        self.slot = wire.times[n]
        self.taken[turn] += 1
        self.made.write(self.slot)
        return True


@dataclass(slots=True)
class SliceProcess:
    """A slice; see :class:`brambling.hw.slice.Slice`."""

    i: Wire
    o: Wire
    spec: SliceSpec

    def step(self) -> bool:
        return self._offer() | self._want()

    def _offer(self) -> bool:
        groups, passed = self.spec.i.groups, self.spec.passed
        before = n = len(self.o.offers)
        while True:
            pixel, beat = divmod(n, len(passed))
            source = pixel * groups + passed[beat]
            if len(self.i.offers) <= source:
                return n > before
            self.o.offer(self.i.offers[source])
            n += 1

    def _want(self) -> bool:
        groups, passed = self.spec.i.groups, self.spec.passed
        before = n = len(self.i.readies)
        while len(self.i.times) >= n:
            pixel, beat = divmod(n, groups)
            if beat in passed:
                taken = pixel * len(passed) + beat - passed.start
                if len(self.o.readies) <= taken:
                    break
                self.i.want(self.o.readies[taken])
            else:
                self.i.want(0)
            n += 1
        return n > before
