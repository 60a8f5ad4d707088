"""The shortest latency: stages that keep a frame back for the fewest cycles.

How long an engine keeps a frame back is its tail, see :mod:`brambling.boards.latency`. One that is
slower than the others keeps it back too; so the sum of the tails is made small within several
longest intervals, each at prices of the resources, and what is best is then measured.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from brambling.boards.choices import NEVER
from brambling.boards.latency import tail
from brambling.boards.memories import Needs
from brambling.boards.polish import vector
from brambling.boards.resources import interval
from brambling.boards.search import Search
from brambling.hw.accelerator import pipeline
from brambling.network import Network
from brambling.plan import Plan, Stage

__all__ = ["delay", "soonest", "soonest_bound"]

Stages = tuple[Stage, ...]

SLOWER = (1.0, 1.1, 1.25, 1.5, 2.0, 4.0)  #: Longest intervals, times the shortest that fits.
STEPS = 24  #: Times that prices are changed.
CHEAPER = 0.5  #: Prices, after a try that fits.
BESIDE = 0.2  #: Weight of the tail of a step beside the way from the input to the output.


def way(search: Search) -> list[int]:
    """Return the steps from the input to the last, each the first source of the next."""
    nodes = search.tree.nodes
    steps = [len(nodes) - 1]
    while (link := nodes[steps[-1]].link) is not None:
        steps.append(link.source)
    return steps[::-1]


def arrival(search: Search, n: int, stage: Stage) -> int:
    """Cycles in which a frame comes to a step that reads the network's input."""
    step = search.options.chain[n]
    return step.arrival(stage.simd, 1 if step.window else stage.pixels)


def delay(search: Search, stages: Stages) -> int:
    """Cycles from the first beat of a frame to the last result, without pipelines and adapters."""
    options = search.options
    tails = tails_of(search, stages)
    ends = [0] * len(stages)
    for n, stage in enumerate(stages):
        sources = [link.source for link in options.joined if link.reader == n]
        came = max(ends[k] if k >= 0 else arrival(search, n, stage) for k in sources)
        ends[n] = max(came + tails[n], interval(options.chain[n], stage))
    return ends[-1]


def tails_of(search: Search, stages: Sequence[Stage]) -> list[int]:
    """Tail of each stage."""
    chain = search.options.chain
    return [
        tail(step, s.pixels, step.runs(s.pe, s.simd, s.pixels))
        for step, s in zip(chain, stages, strict=True)
    ]


def soonest(search: Search, most: Needs, latency: Callable[[Stages], int | None]) -> Stages | None:
    """Return stages that fit and keep a frame for the fewest cycles, if any do.

    ``latency`` measures stages; where it cannot, what is best by :func:`delay` is returned.
    """
    fastest = search.fastest(most)
    if fastest is None:
        return None
    shortest = search.options.polish.slowest(fastest)
    tries = [fastest]
    for times in SLOWER:
        found = min(
            _hurried(search, int(times * shortest), most),
            key=lambda stages: delay(search, stages),
            default=None,
        )
        if found is not None and found not in tries:
            tries.append(found)

    def measured(stages: Stages) -> int:
        found = latency(stages)
        return delay(search, stages) if found is None else found

    return min(tries, key=measured)


def _hurried(search: Search, limit: int, most: Needs) -> Iterator[Stages]:
    """Yield stages that fit, with ever shorter tails."""
    on = set(way(search))
    hurry = [1.0 if n in on else BESIDE for n in range(len(search.options.chain))]
    there = np.maximum(vector(most), 1)
    prices, known = limit / there, set()
    for _ in range(STEPS):
        found = search.tree.solve(limit, prices.tolist(), hurry)
        stages = None if found is None else search.agreeing(found.stages, limit, prices, hurry)
        if stages is None:
            return
        need = vector(search.options.polish.total(stages))
        if stages not in known:
            known.add(stages)
            tails = tails_of(search, stages)
            better = search.options.polish.run(stages, limit, most, tails)
            if search.fits(better, most):
                yield better
        if (need <= vector(most)).all():
            prices = prices * CHEAPER
        else:
            prices = prices * np.exp(2 * (need / there - 1).clip(-0.2, 0.5))


def soonest_bound(network: Network, search: Search, shortest: int) -> int:
    """Return cycles that no plan can be under, of what fits with the ``shortest`` interval.

    A frame takes that interval, and the tails on its way, with the input beats that come before;
    and in both cases the pipelines. The least sum of tails that fits is bounded by the dual of the
    resources' limits.
    """
    options = search.options
    steps = way(search)
    # Behind a window that does not see the last pixel nothing is known of what comes before it.
    blind = [place for place, n in enumerate(steps) if _blind(search, n)]
    steps = steps[blind[-1] + 1 :] if blind else steps
    hurry = [1.0 if n in steps else 0.0 for n in range(len(options.chain))]
    there, best = vector(options.most), 0.0
    limit = options.intervals[-1]
    prices = shortest / np.maximum(there, 1)
    for _ in range(STEPS):
        found = search.tree.solve(limit, prices.tolist(), hurry, proof=True)
        if found is None:
            break
        best = max(best, found.cost - float(prices @ there))
        need = vector(options.polish.total(found.stages))
        if (need <= there).all():
            prices = prices * CHEAPER
        else:
            prices = prices * np.exp(2 * (need / np.maximum(there, 1) - 1).clip(-0.2, 0.5))
    first = way(search)[0]
    tables = search.tree.nodes[first].tables.values()
    ways = (stage for table in tables for stage in table.choices.stages)
    came = 1 if blind else min(arrival(search, first, stage) for stage in ways)
    return max(shortest, int(np.ceil(best)) + came) - 1 + _pipelines(network, search, steps)


def _blind(search: Search, n: int) -> bool:
    """Whether no position of a window sees the last pixel of its image."""
    step = search.options.chain[n]
    return step.window is not None and tail(step, 1, step.runs(1, 1, 1)) == 0


def _pipelines(network: Network, search: Search, steps: Sequence[int]) -> int:
    """Cycles that the pipelines of steps take at the least: those of the narrowest engines."""
    chain = search.options.chain
    found = [NEVER] * len(steps)
    for style in ("lut", "dsp", "planes"):
        stages = tuple(
            Stage(
                layer=step.name,
                engine=step.engine,
                pe=1,
                simd=1,
                style=style if style == "dsp" or step.engine == "product" else "lut",
                fifo=(0,) * len(step.sources),
            )
            for step in chain
        )
        plan = Plan(network=network.name, board="", goal="hand", clock_hz=1, stages=stages)
        specs = {node.name: node.spec for node in pipeline(network, plan)}
        for place, n in enumerate(steps):
            parts = (specs.get(f"{chain[n].name}{suffix}") for suffix in ("", "_sums"))
            timings = [getattr(part, "timing", None) for part in parts]
            cycles = sum(timing.latency + timing.QUEUE for timing in timings if timing)
            found[place] = min(found[place], cycles)
    return sum(found)
