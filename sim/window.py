"""The cycle model of an engine behind a :class:`brambling.hw.window.WindowFeed`."""

from dataclasses import dataclass, field

from brambling.hw.window import WindowFeedSpec
from brambling.sim.processes import FifoProcess, Wire
from brambling.timing import Timing

__all__ = ["WindowProcess"]


@dataclass(slots=True)
class WindowProcess:
    """An engine that works on windows, and ends in a queue.

    The first slot of a group of positions comes after the input beat that the group waits for, the
    last slot of a run when there is room for its result, and the first input beat of a row when its
    line is free. All others follow one another.

    Parameters
    ----------
    i, o
        Streams.
    feed
        Which beats are needed, and which lines are free, when.
    latency
        Clock edges from the last slot of a run to the write of its result into the queue.
    depth
        Places in the queue.
    """

    i: Wire
    o: Wire
    feed: WindowFeedSpec
    latency: int
    depth: int
    queue: FifoProcess = field(init=False)
    needs: list[int] = field(init=False)  # Input beat of each group of positions.
    finished: list[int] = field(init=False)  # Bands that free each line.
    runs: int = field(init=False)  # Of a group of positions.
    row: int = field(init=False)  # Input beats of a row.
    sizes: tuple[int, int, int] = field(init=False)  # Lines; rows of the image; bands.
    shape: tuple[int, int, int] = field(init=False)  # Of a run, of the image, steps of a band.
    group: int = 0  # Groups of positions begun and ended so far.
    run: int = 0  # Runs of this one so far.
    slot: int = -1  # Cycle of the last slot.
    ends: list[int] = field(default_factory=list)  # Cycles in which bands ended.

    def __post_init__(self) -> None:
        self.queue = FifoProcess(self.o)
        self.needs = self.feed.need.tolist()
        self.finished = self.feed.down.finished.tolist()
        self.runs = self.feed.chunks * self.feed.folds
        self.row = self.feed.i.steps * self.feed.i.groups
        self.sizes = self.feed.lines, self.feed.i.rows, self.feed.bands
        self.shape = self.feed.beats, self.feed.i.count, self.feed.steps

    @property
    def results(self) -> list[int]:
        """Cycles in which results are written into the queue."""
        return self.queue.writes

    def step(self) -> bool:
        moved = False
        while self._take() | self._work() | self.queue.step():
            moved = True
        return moved

    def _take(self) -> bool:
        """Want the rows whose lines are known to become free.

        A row at a time: the source offers no beat before the one ahead of it has moved.
        """
        wire = self.i
        lines, height, bands = self.sizes
        before = len(wire.readies)
        while True:
            ready = 0
            frame, line = divmod(len(wire.readies) // self.row - lines, height)
            if frame >= 0:
                ended = frame * bands + self.finished[line]
                if len(self.ends) < ended:
                    break
                ready = self.ends[ended - 1] + WindowFeedSpec.RELEASE
            wire.readies.append(ready)
            wire.readies.extend([0] * (self.row - 1))
        if len(wire.readies) == before:
            return False
        wire.settle()
        return True

    def _work(self) -> bool:
        """Go on run by run, as far as input and room are known."""
        written, given = self.i.times, self.o.times
        beats, count, steps = self.shape
        groups = len(self.needs)
        results, depth, group = self.queue.writes, self.depth, self.group
        made = len(results)
        began = made
        slot, run = self.slot, self.run
        while True:
            if run == 0:
                frame, position = divmod(group, groups)
                need = frame * count + self.needs[position]
                if len(written) <= need:
                    break
                first = max(slot, written[need]) + 1
            else:
                first = slot + 1
            room = 0
            if made >= depth:
                if len(given) <= made - depth:
                    break
                room = given[made - depth] + Timing.CREDIT
            slot = max(first + beats - 1, room)
            results.append(slot + self.latency)
            made += 1
            run += 1
            if run == self.runs:
                run = 0
                group += 1
                if group % steps == 0:
                    self.ends.append(slot)
        self.slot, self.run, self.group = slot, run, group
        return made > began
