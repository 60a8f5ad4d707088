"""The cycle model: at which clock edge every beat leaves every engine.

Computed from the specs alone, without the hardware; the RTL must agree at every beat, in every
simulator, whatever the stalls at either end. The components are :mod:`brambling.sim.processes`;
where a run without stalls has become periodic, it is continued by addition.

Cycle 0 is the first clock edge at which reset is low. A beat's cycle is the edge at which valid
and ready are both high.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brambling.errors import BramblingError
from brambling.hw.accelerator import Edge, Node, edges
from brambling.hw.fork import ForkSpec
from brambling.hw.gate import GateSpec
from brambling.hw.join import AddSpec, ConcatSpec
from brambling.hw.node import Port
from brambling.hw.queue import FifoSpec
from brambling.hw.slice import SliceSpec
from brambling.hw.width import WidthAdapterSpec
from brambling.hw.window import WindowFeedSpec
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

__all__ = ["Deadlock", "Schedule", "schedule"]

ALWAYS = np.ones(1, bool)


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


class Model:
    """The processes of an accelerator, wired up."""

    def __init__(
        self,
        nodes: tuple[Node, ...],
        offer: NDArray[np.bool_] = ALWAYS,
        accept: NDArray[np.bool_] = ALWAYS,
    ) -> None:
        source = Wire()
        self.wires: dict[Port, Wire] = {}
        self.feed = Source(source, 0, next_allowed(offer))
        self.processes: list[Process] = [self.feed]
        self.ends: list[list[Wire]] = [[source]]  # What each process touches.
        self.engines: dict[str, Process] = {}
        for node in nodes:
            inputs = [self.wires[port] for port in node.sources] or [source]
            ports = [Port(node.name)]
            if isinstance(node.spec, ForkSpec):
                ports = [Port(node.name, n) for n in range(node.spec.count)]
            if isinstance(node.spec, GateSpec):  # Combinational, and every frame is whole.
                self.wires[ports[0]] = inputs[0]
                continue
            outputs = [Wire() for _ in ports]
            self.wires |= zip(ports, outputs, strict=True)
            process = process_of(node.spec, inputs, outputs)
            self.engines[node.name] = process
            self.processes.append(process)
            self.ends.append(inputs + outputs)
        self.source = source
        self.output = self.wires[Port(nodes[-1].name)]
        self.processes.append(Sink(self.output, next_allowed(accept)))
        self.ends.append([self.output])
        self.neighbours = self._neighbours()

    def _neighbours(self) -> list[list[int]]:
        """For each process, the others that share a wire with it."""
        touching: dict[int, set[int]] = {}
        for number, wires in enumerate(self.ends):
            for wire in wires:
                touching.setdefault(id(wire), set()).add(number)
        return [
            sorted(set().union(*(touching[id(wire)] for wire in wires)) - {number})
            for number, wires in enumerate(self.ends)
        ]

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

    def periodic(self, frames: int, horizon: int) -> bool:
        """Whether the last ``horizon`` of ``frames`` repeat at one distance, on every wire."""
        distances = set()
        for wire in (self.source, *self.wires.values()):
            rows = np.array(wire.times, np.int64).reshape(frames, -1)[-horizon - 1 :]
            distances |= set(np.unique(np.diff(rows, axis=0)).tolist())
        return len(distances) == 1

    def cycles(self, edge: Edge) -> list[int]:
        """Cycles of the beats that were seen on an edge."""
        if edge.port == "o":
            return self.wires[Port(edge.node)].times
        process = self.engines[edge.node]
        assert isinstance(process, EngineProcess | WindowProcess)
        return process.results


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
    model = Model(nodes, offer, accept)
    i, o = nodes[0].spec.i.count, nodes[-1].spec.o.count
    horizon = _horizon(nodes)
    run = frames
    if offer.all() and accept.all():
        run = min(frames, horizon + 2)
    model.run(run * i, run * o)
    while run < frames and not model.periodic(run, horizon):
        run = min(frames, 2 * run)
        model.run(run * i, run * o)
    cycles = {
        edge.name: _extend(np.array(model.cycles(edge), np.int64).reshape(run, -1), frames)
        for edge in edges(nodes)
    }
    return Schedule(cycles, frames)


def _horizon(nodes: tuple[Node, ...]) -> int:
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
