"""FIFO and queue depths: the smallest that cost no throughput, from the cycle model."""

from collections.abc import Callable
from dataclasses import replace

from brambling.hw.accelerator import pipeline
from brambling.network import Network
from brambling.plan import Plan
from brambling.sim.cycles import Deadlock, schedule

__all__ = ["size", "throughput"]


def throughput(network: Network, plan: Plan) -> float:
    """Cycles per frame in steady state; infinite where the beats stop."""
    nodes = pipeline(network, plan)
    frames = 8 + 2 * len(nodes)
    try:
        out = schedule(nodes, frames).of_frames(list(network.tensors)[-1])[:, -1]
    except Deadlock:
        return float("inf")
    return float(out[-1] - out[frames // 2 - 1]) / (frames - frames // 2)


def size(network: Network, plan: Plan) -> Plan:
    """Return ``plan`` with the smallest FIFOs and queues that cost no throughput.

    Starts from depths that never limit, then makes each one, in stream order, as small as the cycle
    model allows with the others as they are. Deeper never costs throughput, so bisection finds it,
    and at the end no depth can be one less.
    """
    nodes = {node.name: node.spec for node in pipeline(network, plan) if node.step}
    plan = replace(
        plan,
        stages=tuple(
            replace(
                stage,
                fifo=nodes[stage.layer].i.count + 2,
                queue=nodes[stage.layer].timing.queue + 1,
            )
            for stage in plan.stages
        ),
    )
    target = throughput(network, plan)
    for n, stage in enumerate(plan.stages):
        for key, least in (("fifo", 0), ("queue", 1)):

            def with_depth(depth: int, n: int = n, key: str = key) -> Plan:
                stages = list(plan.stages)
                stages[n] = replace(stages[n], **{key: depth})
                return replace(plan, stages=tuple(stages))

            options = [d for d in range(least, getattr(stage, key) + 1) if (key, d) != ("fifo", 1)]
            depth = _smallest(options, lambda d: throughput(network, with_depth(d)) <= target)
            plan = with_depth(depth)
    return plan


def _smallest(options: list[int], works: Callable[[int], bool]) -> int:
    """First of the rising ``options`` that works; the last one is known to."""
    low, high = 0, len(options) - 1
    while low < high:
        middle = (low + high) // 2
        if works(options[middle]):
            high = middle
        else:
            low = middle + 1
    return options[high]
