"""FIFO and queue depths: the smallest that cost no throughput, from the cycle model."""

from collections.abc import Callable
from dataclasses import replace

from brambling.hw.accelerator import pipeline
from brambling.network import Network
from brambling.plan import LEAST_FIFO, Plan, Stage
from brambling.sim.cycles import Deadlock, schedule

__all__ = ["size", "throughput"]


#: Frames of a trial. A FIFO that is too small shows within the first few; if at the end it turns
#: out that one did not, the search is done again with longer trials.
TRIALS = (6, 18, 54)


def throughput(network: Network, plan: Plan, frames: int = 32) -> float:
    """Cycles per frame in steady state; infinite where the beats stop."""
    try:
        out = schedule(pipeline(network, plan), frames).of_frames(network.layers[-1].name)[:, -1]
    except Deadlock:
        return float("inf")
    half = frames // 2
    return float(out[-1] - out[half - 1]) / (frames - half)


def size(
    network: Network, plan: Plan, progress: Callable[[float], None] = lambda done: None
) -> Plan:
    """Return ``plan`` with the smallest FIFOs and queues that cost no throughput.

    Starts from depths that never limit, then makes each one, first the FIFOs, then the queues, in
    stream order, as small as the cycle model allows with the others as they are. Deeper never costs
    throughput, so at the end no depth can be one less.

    Parameters
    ----------
    progress
        Called with the share of the work that is done.
    """
    nodes = {node.name: node.spec for node in pipeline(network, plan) if node.step}
    stages = [
        replace(
            stage,
            fifo=nodes[stage.layer].i.count + LEAST_FIFO
            if n
            else 0,  # The outside world needs no FIFO.
            queue=nodes[stage.layer].timing.queue + 1,
        )
        for n, stage in enumerate(plan.stages)
    ]
    for trial in TRIALS:
        sized, target = _search(network, plan, stages, trial, progress)
        if throughput(network, sized, 4 * trial) <= target:
            break
    return sized


def _search(
    network: Network,
    plan: Plan,
    stages: list[Stage],
    frames: int,
    progress: Callable[[float], None],
) -> tuple[Plan, float]:
    """Return the plan with the smallest depths, and its cycles per frame."""
    stages = [*stages]
    target = throughput(network, replace(plan, stages=tuple(stages)), frames)
    jobs = [(key, n) for key in ("fifo", "queue") for n in range(len(stages))]
    for done, (key, n) in enumerate(jobs):
        progress(done / len(jobs))

        def works(depth: int, n: int = n, key: str = key) -> bool:
            trial = [*stages]
            trial[n] = replace(trial[n], **{key: depth})
            return throughput(network, replace(plan, stages=tuple(trial)), frames) <= target

        most = getattr(stages[n], key)
        if key == "fifo" and (most == 0 or works(0)):
            depth = 0
        else:
            depth = _smallest(LEAST_FIFO if key == "fifo" else 1, most, works)
        stages[n] = replace(stages[n], **{key: depth})
    progress(1.0)
    return replace(plan, stages=tuple(stages)), target


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
