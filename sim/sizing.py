"""FIFO and queue depths that cost no throughput, from the cycle model."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.accelerator import Node, pipeline, root
from brambling.hw.feed import StreamFeedSpec
from brambling.hw.node import Port
from brambling.hw.window import WindowFeedSpec
from brambling.network import Network
from brambling.plan import LEAST_FIFO, Plan, Stage
from brambling.sim.cycles import Deadlock, schedule
from brambling.sim.frames import Fifo, FrameModel

__all__ = ["pace", "size", "throughput", "unlimited"]

#: Frames of a trial. A FIFO that is too small shows within the first few; if at the end it turns
#: out that one did not, the search is done again with longer trials.
TRIALS = (6, 18, 54)
UNBOUNDED = 1 << 40  #: A depth that never limits.
PACED, MOST_PACED = 3, 24  #: Frames of a paced run, until they repeat.
RELAXED = 4  #: Times that a longer interval is tried.
MOST_SWEEPS = 1_000_000  #: Of one of them.
#: Beats that may move in all trials of a search of every depth, of which each takes so many.
SEARCHED, TRIES = 2_000_000, 4
CHECKED, FRAMES = 4_000_000, 16  #: Beats that may move in the last check, and its frames.

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


def unlimited(network: Network, plan: Plan) -> int:
    """Cycles from the first beat of a frame to its last result, with queues that never fill up.

    Behind forks there are FIFOs, since there it may not go on without.
    """
    pairs = plan.pairs(network)
    readers = Counter(root(network, edge) for step, _ in pairs for edge in step.sources)
    stages = (
        replace(
            stage,
            fifo=tuple(UNBOUNDED * (readers[root(network, e)] > 1) for e in step.sources),
            queue=UNBOUNDED,
        )
        for step, stage in pairs
    )
    return schedule(pipeline(network, replace(plan, stages=tuple(stages))), 1).latency


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

    First frames come evenly, as many as the slowest engine can take, into queues without bounds,
    and FIFOs without bounds behind forks and where a vector must be put together early: what they
    hold at most is enough, and with that much nothing can stop, since room that is always there
    delays nothing, and what comes earlier makes nothing later. A large network keeps these depths.
    In a small one each depth, first the FIFOs', then the queues', in stream order, is made as small
    as the cycle model allows with the others as they are; deeper never costs throughput, so at the
    end no depth can be one less.

    Parameters
    ----------
    progress
        Called with the share of the work that is done.
    """
    sizing = Sizing(network, plan)
    progress(0.1)
    if sizing.beats * TRIALS[0] * TRIES * sizing.depths <= SEARCHED:
        sized = sizing.search(progress)
    else:
        sized = sizing.plan_of(sizing.stages)
    progress(1.0)
    if sizing.beats * FRAMES <= CHECKED:
        found = throughput(network, sized, FRAMES)
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
        Cycles a frame that must be kept: with room without bounds there are no fewer.
    stages
        Depths that are enough.
    fifos
        Beats of a frame where a FIFO can be.
    needed
        FIFOs straight behind a fork and in front of a join: there must be one.
    beats
        Beats of a frame on all streams.
    """

    def __init__(self, network: Network, plan: Plan) -> None:
        self.network = network
        self.plan = plan
        self.fifos: dict[Pair, int] = {}
        self.needed: set[Pair] = set()
        wanted = self._places()
        stages = [
            replace(
                stage,
                fifo=tuple(UNBOUNDED if (n, k) in wanted else 0 for k in range(len(stage.fifo))),
                queue=UNBOUNDED,
            )
            for n, stage in enumerate(plan.stages)
        ]
        nodes = pipeline(network, self.plan_of(stages))
        self.target = pace(nodes)
        model, frames = paced(nodes, self.target)
        for _ in range(RELAXED):
            slowest = settled(model, frames)
            if slowest <= self.target:
                break
            # Not all can keep that pace beside each other, or with beats of such lanes.
            self.target = slowest
            model, frames = paced(nodes, self.target)
        self.beats = sum(len(wire.times) for wire in model.wires.values()) // frames
        named = {node.name: node for node in nodes}
        self.stages = [
            replace(
                stage,
                fifo=tuple(
                    fifo_depth(model, fifo_name(stage, k)) if depth and (n, k) in self.fifos else 0
                    for k, depth in enumerate(stage.fifo)
                ),
                queue=queue_depth(model, named.get(f"{stage.layer}_sums", named[stage.layer])),
            )
            for n, stage in enumerate(stages)
        ]

    def _places(self) -> set[Pair]:
        """Note where FIFOs can be; return those that hold what a queue cannot.

        Behind forks; and behind what makes wide beats of narrow ones, in front of an engine that
        takes none while it repeats a vector: with a FIFO the next vector is put together meanwhile.
        """
        stages = [replace(s, fifo=(UNBOUNDED,) * len(s.fifo)) for s in self.plan.stages]
        nodes = {node.name: node for node in pipeline(self.network, self.plan_of(stages))}
        gate, *_ = nodes
        engines = {f"{stage.layer}{suffix}" for stage in stages for suffix in ("", "_sums")}
        between = nodes.keys() - engines - {gate}
        found = set()
        for n, stage in enumerate(stages):
            for k in range(len(stage.fifo)):
                node = nodes[fifo_name(stage, k)]
                if node.sources == (Port(gate),):  # The outside world can wait: it is the FIFO.
                    found.add((n, k))
                    continue
                self.fifos[n, k] = node.spec.i.count
                reader = nodes.get(f"{stage.layer}_sums", nodes[stage.layer])
                direct, most = node.sources[0].index is not None, 0
                while node.sources[0].index is None and node.sources[0].node in between:
                    node = nodes[node.sources[0].node]  # An adapter holds next to nothing.
                    most = max(most, node.spec.i.count)
                if most > self.fifos[n, k] and repeats(reader.spec):
                    found.add((n, k))
                if node.sources[0].index is not None:
                    found.add((n, k))
                if direct and (len(stage.fifo) > 1 or stage.engine == "slice"):
                    self.needed.add((n, k))
        return found

    @property
    def depths(self) -> int:
        """Number of depths."""
        return len(self.fifos) + len(self.stages)

    # Trials -----------------------------------------------------------------------------------

    def plan_of(self, stages: Sequence[Stage]) -> Plan:
        """Return the plan with other depths."""
        return replace(self.plan, stages=tuple(stages))

    def search(self, progress: Callable[[float], None]) -> Plan:
        """Return the plan with each depth as small as can be."""
        stages = [
            replace(
                stage,
                fifo=tuple(
                    max(depth, self.fifos[n, k] + LEAST_FIFO) if (n, k) in self.fifos else 0
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


def repeats(spec: Any) -> bool:
    """Whether an engine takes no beats while it repeats a vector; a line buffer goes on taking."""
    feed = getattr(spec, "feed", None)
    return isinstance(feed, StreamFeedSpec) and feed.folds > 1


def with_depth(stage: Stage, k: int | None, depth: int) -> Stage:
    """Return ``stage`` with another FIFO at input ``k``; with another queue where that is None."""
    if k is None:
        return replace(stage, queue=depth)
    return replace(stage, fifo=(*stage.fifo[:k], depth, *stage.fifo[k + 1 :]))


def paced(nodes: Sequence[Node], interval: int) -> tuple[FrameModel, int]:
    """Run frames that come evenly, every ``interval``, until all repeats; return their number."""
    beats = nodes[0].spec.i.count

    def allowed(cycle: int) -> int:
        """First cycle, not before that one, in which a beat comes."""
        number = (cycle - 1) * beats // interval + 1
        return ceil_div(number * interval, beats)

    # With room without end nothing waits for good, so every frame settles some time.
    model = FrameModel(nodes, allowed, sweeps=MOST_SWEEPS)
    frames = PACED
    model.advance(frames)
    first = nodes[-1].spec.o.count - 1  # Only when a frame has left are all places in use.
    while frames < MOST_PACED and not (
        model.periodic(frames, 1) and model.output.times[first] < model.source.times[-beats]
    ):
        frames *= 2
        model.advance(frames)
    return model, frames


def settled(model: FrameModel, frames: int) -> int:
    """Return the cycles from the last but one to the last frame of a paced run."""
    last = model.output.times[model.output.count - 1 :: model.output.count]
    return int(last[frames - 1] - last[frames - 2])


def ceil_div(a: int, b: int) -> int:
    """Quotient, rounded up."""
    return -(-a // b)


def fifo_name(stage: Stage, k: int) -> str:
    """Return the name of the component that is the FIFO at input ``k``."""
    return f"{stage.layer}_fifo{k if len(stage.fifo) > 1 else ''}"


def fifo_depth(model: FrameModel, name: str) -> int:
    """Return the depth of a FIFO that is enough: what its memory holds, and a register."""
    process = model.engines[name]
    assert isinstance(process, Fifo)
    return max(LEAST_FIFO, held(process.writes, process.reads + 1) + 1)


def held(taken: NDArray[np.int64], freed: NDArray[np.int64]) -> int:
    """Return the fewest places with which each of ``taken`` finds one, given when they are freed.

    Cycles, ascending.
    """
    places = np.arange(1, len(taken) + 1) - np.searchsorted(freed, taken, side="right")
    return int(places.max())


def queue_depth(model: FrameModel, node: Node) -> int:
    """Return the depth of the queue behind an engine that is enough."""
    process: Any = model.engines[node.name]
    timing = getattr(node.spec, "timing", None)
    if timing is None:  # A slice has none.
        return 1
    freed = model.wires[Port(node.name)].times + timing.CREDIT
    return max(1, held(process.results - timing.latency, freed))


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
