"""The cycle model: at which clock edge every beat leaves every engine.

Computed from the specs alone, without the hardware; the RTL must agree at every beat, in every
simulator, whatever the stalls at either end. The components are :mod:`brambling.sim.processes`,
which go beat by beat, and :mod:`brambling.sim.frames`, the same by frame, which are tried first
where nothing stalls. Where such a run has become periodic, it is continued by addition.

Cycle 0 is the first clock edge at which reset is low. A beat's cycle is the edge at which valid
and ready are both high.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brambling.errors import BramblingError
from brambling.hw.accelerator import Node, edges
from brambling.hw.fork import ForkSpec
from brambling.hw.join import AddSpec, ConcatSpec
from brambling.hw.queue import FifoSpec
from brambling.hw.slice import SliceSpec
from brambling.hw.width import WidthAdapterSpec
from brambling.hw.window import WindowFeedSpec
from brambling.sim.frames import FrameModel, Unsettled
from brambling.sim.processes import (
    AdapterProcess,
    EngineProcess,
    FifoProcess,
    Process,
    Sink,
    Source,
    Wire,
    next_allowed,
)
from brambling.sim.structure import AddProcess, ConcatProcess, ForkProcess, SliceProcess
from brambling.sim.window import WindowProcess
from brambling.sim.wiring import Wiring

__all__ = ["Deadlock", "Schedule", "schedule"]

ALWAYS = np.ones(1, bool)
LARGE = 5000  #: Beats of a frame from which on it is faster to go by frames.


class Deadlock(BramblingError):
    """The beats stop moving before the work is done."""


@dataclass(frozen=True, eq=False)
class Schedule:
    """What the cycle model found: for each edge the cycle of each beat, int64 ``(beats,)``."""

    cycles: Mapping[str, NDArray[np.int64]]
    frames: int

    def of_frames(self, edge: str) -> NDArray[np.int64]:
        """Return the cycles of ``edge`` by frame, ``(frames, beats)``."""
        return self.cycles[edge].reshape(self.frames, -1)

    def first(self, frames: int) -> "Schedule":
        """Return what a run of fewer frames does: no beat waits for a later one."""
        return Schedule(
            {edge: self.of_frames(edge)[:frames].reshape(-1) for edge in self.cycles}, frames
        )

    @property
    def end(self) -> int:
        """Cycle of the last beat of all."""
        return max(int(cycles.max()) for cycles in self.cycles.values())

    @property
    def latency(self) -> int:
        """Clock edges from the first beat of the first frame to its last output beat."""
        first, last = self.of_frames("input")[0, 0], self._output[0, -1]
        return int(last - first)

    @property
    def interval(self) -> int:
        """Cycles from the last output beat of the last frame but one to that of the last."""
        if self.frames < 2:
            return self.latency
        return int(self._output[-1, -1] - self._output[-2, -1])

    @property
    def _output(self) -> NDArray[np.int64]:
        return self.of_frames(list(self.cycles)[-1])


def process_of(spec: Any, inputs: list[Wire], outputs: list[Wire]) -> Process:
    """Return the process of a component."""
    i, o = inputs[0], outputs[0]
    match spec:
        case WidthAdapterSpec():
            return AdapterProcess(i, o, spec)
        case FifoSpec():
            return FifoProcess(o, i, spec.depth - 1)
        case ForkSpec():
            return ForkProcess(i, outputs)
        case AddSpec():
            return AddProcess(inputs, o, spec.timing.latency, spec.depth)
        case ConcatSpec():
            return ConcatProcess(inputs, o, spec)
        case SliceSpec():
            return SliceProcess(i, o, spec)
    feed = getattr(spec, "feed", None)
    if isinstance(feed, WindowFeedSpec):
        return WindowProcess(i, o, feed, spec.timing.latency, spec.depth)
    return EngineProcess(i, o, spec.timing, spec.depth)


class Model(Wiring[Wire, Process]):
    """The processes of an accelerator, beat by beat, with any stalls at either end."""

    def __init__(
        self,
        nodes: Sequence[Node],
        offer: NDArray[np.bool_] = ALWAYS,
        accept: NDArray[np.bool_] = ALWAYS,
    ) -> None:
        super().__init__(nodes, lambda count: Wire(), process_of)
        self.beats = nodes[0].spec.i.count, nodes[-1].spec.o.count  #: Of a frame, in and out.
        self.feed = Source(self.source, 0, next_allowed(offer))
        sink = Sink(self.output, next_allowed(accept))
        self.processes: list[Process] = [self.feed, *self.engines.values(), sink]
        self.neighbours = self._neighbours()

    def _neighbours(self) -> list[list[int]]:
        """For each process, the others that share a wire with it."""
        ends = [[self.source], *(i + o for i, o in self.ends), [self.output]]
        touching: dict[int, set[int]] = {}
        for number, wires in enumerate(ends):
            for wire in wires:
                touching.setdefault(id(wire), set()).add(number)
        return [
            sorted(set().union(*(touching[id(wire)] for wire in wires)) - {number})
            for number, wires in enumerate(ends)
        ]

    def advance(self, frames: int) -> None:
        """Go on until so many frames have left; :class:`Deadlock` where they never do."""
        beats, outputs = self.beats
        self.run(frames * beats, frames * outputs)

    def run(self, beats: int, outputs: int) -> None:
        """Go on until ``beats`` have come and nothing moves any more.

        :class:`Deadlock` where fewer than ``outputs`` beats have left by then.
        """
        self.feed.count = beats
        while sum(process.step() for process in self.processes):
            self._settle()
        if len(self.output.times) < outputs:
            raise Deadlock(
                f"the accelerator stops after {len(self.output.times)} of {outputs} output "
                f"beats, with {len(self.source.times)} input beats taken"
            )

    def _settle(self) -> None:
        """Step every process, and again the neighbours of each that moved."""
        waiting = deque(range(len(self.processes)))
        queued = [True] * len(self.processes)
        while waiting:
            number = waiting.popleft()
            queued[number] = False
            if self.processes[number].step():
                for other in self.neighbours[number]:
                    if not queued[other]:
                        queued[other] = True
                        waiting.append(other)


def schedule(
    nodes: tuple[Node, ...],
    frames: int,
    *,
    offer: NDArray[np.bool_] = ALWAYS,
    accept: NDArray[np.bool_] = ALWAYS,
) -> Schedule:
    """Compute when every beat of ``frames`` frames moves.

    Parameters
    ----------
    nodes
        The components, from :func:`brambling.hw.accelerator.pipeline`.
    offer, accept
        By cycle, repeating: whether the source may begin to offer a beat, and whether the sink
        takes one.
    """
    if offer.all() and accept.all():
        if sum(node.spec.o.count for node in nodes) >= LARGE:
            try:
                return _periodic(FrameModel(nodes), nodes, frames)
            except Unsettled:
                pass
        return _periodic(Model(nodes), nodes, frames)
    model = Model(nodes, offer, accept)
    model.advance(frames)
    return Schedule({edge.name: model.cycles(edge) for edge in edges(nodes)}, frames)


def _periodic(model: Model | FrameModel, nodes: Sequence[Node], frames: int) -> Schedule:
    """Run until all repeats, and continue by addition."""
    horizon = _horizon(nodes)
    run = min(frames, horizon + 2)
    model.advance(run)
    while run < frames and not model.periodic(run, horizon):
        run = min(frames, 2 * run)
        model.advance(run)
    cycles = {
        edge.name: _extend(model.cycles(edge).reshape(run, -1), frames) for edge in edges(nodes)
    }
    return Schedule(cycles, frames)


def _horizon(nodes: Sequence[Node]) -> int:
    """Frames that the time of a beat can depend on: no component looks back further."""
    held = 0.0
    for node in nodes:
        spec = node.spec
        held = max(held, getattr(spec, "depth", 0) / spec.o.count)
        if isinstance(feed := getattr(spec, "feed", None), WindowFeedSpec):
            held = max(held, (feed.lines + 1) / feed.i.rows)
    return ceil(held) + 2


def _extend(rows: NDArray[np.int64], frames: int) -> NDArray[np.int64]:
    more = frames - len(rows)
    if more > 0:
        interval = rows[-1, -1] - rows[-2, -1]
        later = rows[-1] + interval * np.arange(1, more + 1)[:, None]
        rows = np.concatenate([rows, later])
    return rows.reshape(-1)
