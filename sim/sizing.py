"""FIFO and queue depths that cost no throughput, from the cycle model."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.accelerator import Node, pipeline
from brambling.hw.node import Port
from brambling.hw.window import WindowFeedSpec
from brambling.network import Network
from brambling.plan import LEAST_FIFO, Plan, Stage
from brambling.sim.cycles import Deadlock, Model, schedule
from brambling.sim.processes import FifoProcess

__all__ = ["pace", "size", "throughput"]

#: Frames of a trial. A FIFO that is too small shows within the first few; if at the end it turns
#: out that one did not, the search is done again with longer trials.
TRIALS = (6, 18, 54)
UNBOUNDED = 1 << 40  #: A depth that never limits.
PACED, MOST_PACED = 4, 32  #: Frames of a paced run, until it has become periodic.
#: Beats that may move in all trials of a search of every depth, of which each takes so many.
SEARCHED, TRIES = 6_000_000, 4
#: Beats that may move in all trials without some FIFOs, each of so many frames.
LEFT_OUT, FRAMES = 30_000_000, 16

Pair = tuple[int, int]  #: A stage, and which of its inputs.


def throughput(network: Network, plan: Plan, frames: int = 32) -> float:
    """Cycles per frame in steady state; infinite where the beats stop."""
    try:
        found = schedule(pipeline(network, plan), frames)
    except Deadlock:
        return float("inf")
    out = found.of_frames(list(found.cycles)[-1])[:, -1]
    half = frames // 2
    return float(out[-1] - out[half - 1]) / (frames - half)


def pace(nodes: Sequence[Node]) -> int:
    """Cycles a frame that the slowest component needs."""
    return max(_cycles(node.spec) for node in nodes)


def _cycles(spec: Any) -> int:
    beats = [getattr(spec, end).count for end in ("i", "o") if hasattr(spec, end)]
    feed, timing = getattr(spec, "feed", None), getattr(spec, "timing", None)
    if isinstance(feed, WindowFeedSpec):
        return max(feed.interval, *beats)
    if timing is not None and hasattr(spec, "i"):
        beats.append(spec.i.count // timing.beats * timing.interval)
    return max(beats)


def size(
    network: Network, plan: Plan, progress: Callable[[float], None] = lambda done: None
) -> Plan:
    """Return ``plan`` with small FIFOs and queues that cost no throughput.

    First frames come evenly, as many as the slowest engine can take, into FIFOs and queues without
    bounds: what they hold at most is enough, and with that much nothing can stop. In a small
    network each depth, first the FIFOs', then the queues', in stream order, is then made as small
    as the cycle model allows with the others as they are; deeper never costs throughput, so at the
    end no depth can be one less. In a large one FIFOs are only left out, many at a time, and none
    where a stream forks or streams join.

    Parameters
    ----------
    progress
        Called with the share of the work that is done.
    """
    stages = [
        replace(stage, fifo=(UNBOUNDED,) * len(stage.fifo), queue=UNBOUNDED)
        for stage in plan.stages
    ]
    nodes = pipeline(network, replace(plan, stages=tuple(stages)))
    sizing = Sizing(network, plan, nodes)
    progress(0.1)
    sized = sizing.search(progress) if sizing.small else sizing.leave_out(progress)
    progress(1.0)
    found = throughput(network, sized)
    if found > sizing.target:
        raise ConfigError(
            f"{network.name}: a frame must come every {sizing.target} cycles, but with these "
            f"foldings comes every {found:g}: use wider engines"
        )
    return sized


class Sizing:
    """A plan whose depths are to be made smaller.

    Attributes
    ----------
    target
        Cycles a frame that must be kept.
    stages
        Depths that are enough.
    fifos
        Beats of a frame at each FIFO.
    branching, needed
        FIFOs behind forks or in front of joins; and those that stand directly between the two,
        where there must be one.
    beats
        Beats of a frame on all streams.
    """

    def __init__(self, network: Network, plan: Plan, nodes: Sequence[Node]) -> None:
        self.network = network
        self.plan = plan
        self.target = pace(nodes)
        self.fifos: dict[Pair, int] = {}
        self.branching: set[Pair] = set()
        self.needed: set[Pair] = set()
        model, frames = paced(nodes, self.target)
        self.beats = sum(len(wire.times) for wire in model.wires.values()) // frames
        named = {node.name: node for node in nodes}
        self.stages: list[Stage] = []
        for n, stage in enumerate(plan.stages):
            count = len(stage.fifo)
            depths = [self._fifo(model, nodes[0], named, n, k, count) for k in range(count)]
            first = named.get(f"{stage.layer}_sums", named[stage.layer])
            self.stages.append(replace(stage, fifo=tuple(depths), queue=queue_depth(model, first)))

    def _fifo(
        self, model: Model, gate: Node, named: dict[str, Node], n: int, k: int, count: int
    ) -> int:
        """Return the depth of a FIFO that is enough, and note where it is."""
        layer = self.plan.stages[n].layer
        node = named[f"{layer}_fifo{k if count > 1 else ''}"]
        if node.sources == (Port(gate.name),):  # The outside world can wait.
            return 0
        self.fifos[n, k] = node.spec.i.count
        fork, join = node.sources[0].index is not None, count > 1
        if fork or join:
            self.branching.add((n, k))
        if fork and join:
            self.needed.add((n, k))
        process = model.engines[node.name]
        assert isinstance(process, FifoProcess)
        freed = np.array(process.reads, np.int64) + 1
        return max(LEAST_FIFO, held(np.array(process.writes, np.int64), freed) + 1)

    # Trials -----------------------------------------------------------------------------------

    def plan_of(self, stages: Sequence[Stage]) -> Plan:
        """Return the plan with other depths."""
        return replace(self.plan, stages=tuple(stages))

    @property
    def small(self) -> bool:
        """Whether there is time for a search of every depth."""
        trials = TRIES * (len(self.fifos) + len(self.stages))
        return self.beats * TRIALS[0] * trials <= SEARCHED

    def search(self, progress: Callable[[float], None]) -> Plan:
        """Return the plan with each depth as small as can be."""
        stages = [
            replace(
                stage,
                fifo=tuple(
                    max(depth, self.fifos[n, k] + LEAST_FIFO) if depth else 0
                    for k, depth in enumerate(stage.fifo)
                ),
                queue=stage.queue + 1,
            )
            for n, stage in enumerate(self.stages)
        ]
        sized = self.plan
        for trial in TRIALS:
            sized, target = self._search(stages, trial, progress)
            if throughput(self.network, sized, 4 * trial) <= target:
                break
        return sized

    def _search(
        self, stages: list[Stage], frames: int, progress: Callable[[float], None]
    ) -> tuple[Plan, float]:
        """Return the plan with the smallest depths, and its cycles per frame."""
        stages = [*stages]
        target = throughput(self.network, self.plan_of(stages), frames)
        queues = [(n, None) for n in range(len(stages))]
        jobs: list[tuple[int, int | None]] = [*self.fifos, *queues]
        for done, (n, k) in enumerate(jobs):
            progress(0.1 + 0.9 * done / len(jobs))

            def works(depth: int, n: int = n, k: int | None = k) -> bool:
                trial = [*stages]
                trial[n] = with_depth(trial[n], k, depth)
                return throughput(self.network, self.plan_of(trial), frames) <= target

            if k is None:
                depth = _smallest(1, stages[n].queue, works)
            elif (n, k) not in self.needed and works(0):
                depth = 0
            else:
                depth = _smallest(LEAST_FIFO, stages[n].fifo[k], works)
            stages[n] = with_depth(stages[n], k, depth)
        return self.plan_of(stages), target

    def leave_out(self, progress: Callable[[float], None]) -> Plan:
        """Return the plan with as few FIFOs as there is time to try, half of them at a time."""
        stages = [*self.stages]
        groups = [[pair for pair in self.fifos if pair not in self.branching]]
        runs = max(2, LEFT_OUT // (self.beats * FRAMES))
        for run in range(runs):
            if not groups:
                break
            progress(0.1 + 0.9 * run / runs)
            group, trial = groups.pop(0), [*stages]
            for n, k in group:
                trial[n] = with_depth(trial[n], k, 0)
            if throughput(self.network, self.plan_of(trial), FRAMES) <= self.target:
                stages = trial
            elif len(group) > 1:
                groups += [group[: len(group) // 2], group[len(group) // 2 :]]
        return self.plan_of(stages)


def with_depth(stage: Stage, k: int | None, depth: int) -> Stage:
    """Return ``stage`` with another FIFO at input ``k``; with another queue where that is None."""
    if k is None:
        return replace(stage, queue=depth)
    return replace(stage, fifo=(*stage.fifo[:k], depth, *stage.fifo[k + 1 :]))


def paced(nodes: Sequence[Node], interval: int) -> tuple[Model, int]:
    """Run frames that come evenly, every ``interval``, until all repeats; return their number."""
    model, beats = Model(tuple(nodes)), nodes[0].spec.i.count

    def allowed(cycle: int) -> int:
        """First cycle, not before that one, in which a beat comes."""
        number = ceil_div(cycle * beats, interval)
        return ceil_div(number * interval, beats)

    model.feed.allowed = allowed
    frames = PACED
    model.run(frames * beats, frames * nodes[-1].spec.o.count)
    while not model.periodic(frames, 2) and frames < MOST_PACED:
        frames *= 2
        model.run(frames * beats, frames * nodes[-1].spec.o.count)
    return model, frames


def ceil_div(a: int, b: int) -> int:
    """Quotient, rounded up."""
    return -(-a // b)


def held(taken: NDArray[np.int64], freed: NDArray[np.int64]) -> int:
    """Return the fewest places with which each of ``taken`` finds one, given when they are freed.

    Cycles, ascending.
    """
    places = np.arange(1, len(taken) + 1) - np.searchsorted(freed, taken, side="right")
    return int(places.max())


def queue_depth(model: Model, node: Node) -> int:
    """Return the depth of the queue behind an engine that is enough."""
    process: Any = model.engines[node.name]
    timing = getattr(node.spec, "timing", None)
    if timing is None:  # A slice has none.
        return 1
    slots = np.array(process.results, np.int64) - timing.latency
    freed = np.array(model.wires[Port(node.name)].times, np.int64) + timing.CREDIT
    return max(1, held(slots, freed))


def _smallest(least: int, most: int, works: Callable[[int], bool]) -> int:
    """Smallest depth from ``least`` that works; ``most`` is known to. Small ones are likely."""
    reach = 1
    while least < most:
        middle = min(least + reach - 1, (least + most) // 2)
        if works(middle):
            most = middle
        else:
            least, reach = middle + 1, 2 * reach
    return most
