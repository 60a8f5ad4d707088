"""Verification: the generated Verilog under cocotb, against the golden and the cycle model."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.accelerator import Accelerator, Edge, Node, edges, pipeline
from brambling.hw.load import load_words
from brambling.hw.verilog import module_name, to_verilog
from brambling.network import Network
from brambling.plan import Plan
from brambling.sim import golden
from brambling.sim.cocotb_runner import Expected, Played, Scenario, Watched, run_scenarios
from brambling.sim.cycles import schedule
from brambling.sim.job import Job, pattern
from brambling.sim.progress import Progress

__all__ = ["Verification", "scenarios", "verify", "watched"]

#: Stalls of the source and of the sink, by scenario.
STALLS = {
    "back_to_back": ("none", "none"),
    "starved": ("random", "none"),
    "blocked": ("none", "random"),
    "both_random": ("random", "random"),
    "both_bursts": ("burst", "burst"),
    "alternating": ("alternate", "alternate"),
}


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of :func:`verify`."""

    passed: bool
    tests: int
    edges_compared: int
    beats_compared: int
    failures: tuple[str, ...]


def watched(nodes: tuple[Node, ...]) -> tuple[Watched, ...]:
    """Where the bench sees each edge: the ports of the engines' instances."""
    inner = [
        Watched(edge.name, edge.node, edge.port, ready=edge.port == "o")
        for edge in edges(nodes)[1:-1]
    ]
    last = edges(nodes)[-1].name
    return (Watched("input", "", "i", ready=True), *inner, Watched(last, "", "o", ready=True))


def encode(nodes: tuple[Node, ...], edge: Edge, codes: NDArray) -> NDArray[np.uint8]:
    """Payloads that carry ``codes`` of ``edge``: the inverse of its ``decode``."""
    if edge.port == "products":
        node = next(node for node in nodes if node.name == edge.node)
        codes = node.spec.accumulators_of(codes)
    return edge.beats.pack(codes)


def scenarios(
    network: Network, nodes: tuple[Node, ...], images: NDArray, seed: int = 1
) -> tuple[Scenario, ...]:
    """Everything that may happen to a stream, with what must come of it."""
    images = golden.frames(network, images).reshape(len(images), -1)
    values = golden.run(network, images)
    seen = edges(nodes)
    beats, last = seen[0].beats, seen[-1]

    def expected(
        found: dict | None, names: list[str], values: Mapping[str, NDArray]
    ) -> dict[str, Expected]:
        rows = {}
        for edge in seen:
            if edge.name in names:
                codes = values[edge.name].reshape(len(images), -1)
                cycles = found[edge.name] if found else None
                rows[edge.name] = Expected(encode(nodes, edge, codes), edge.beats.masks(), cycles)
        return rows

    def whole(offer: str, accept: str, reset_at: int = -1) -> Played:
        patterns = {"offer": pattern(offer, seed), "accept": pattern(accept, seed + 1)}
        found = schedule(nodes, len(images), **patterns)
        end = found.end
        job = Job(
            beats=beats.pack(images),
            outputs=len(images) * last.beats.count,
            limit=2 * end + 1000,
            until=end,
            **patterns,
        )
        every = [edge.name for edge in seen]
        rows = expected(dict(found.cycles), every, values)
        return Played(job, rows, reset_at if reset_at < 0 else min(reset_at, end - 1))

    def broken(payloads: NDArray[np.uint8], values: Mapping[str, NDArray]) -> Played:
        job = Job(
            beats=payloads,
            outputs=len(images) * last.beats.count,
            limit=10 * int(schedule(nodes, len(images)).cycles[last.name][-1]) + 1000,
        )
        return Played(job, expected(None, [last.name], values))

    def cut(length: int) -> Played:
        """End the first frame early: what is missing is filled up with zeros."""
        filled = packed[: beats.count].copy()
        filled[length:] = 0
        changed = images.copy()
        changed[0] = beats.unpack(filled)[0]
        rest = np.concatenate([packed[:length], packed[beats.count :]])
        return broken(rest, golden.run(network, changed))

    tests = [Scenario(name, (whole(*kinds),)) for name, kinds in STALLS.items()]
    first = schedule(nodes, len(images))
    middle = [int(first.of_frames(last.name)[0, 0]) // part for part in (5, 2, 1)]
    jobs = tuple(whole("random", "none", reset_at=cycle) for cycle in middle)
    tests.append(Scenario("reset_in_mid_frame", (*jobs, whole("none", "none"))))

    packed = beats.pack(images)
    cuts = sorted({1, beats.count // 2, beats.count - 1} - {0})
    if beats.count > 1:
        tests.append(Scenario("frames_cut_short", tuple(map(cut, cuts))))
        extra = packed[1 : 1 + max(1, beats.count // 2)]
        long = np.concatenate([packed[: beats.count], extra, packed[beats.count :]])
        tests.append(Scenario("surplus_beats", (broken(long, values),)))
    return tuple(tests)


def verify(
    network: Network,
    plan: Plan,
    images: NDArray,
    *,
    simulator: str | None = None,
    frames: int = 5,
    verilog: Path | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Run all scenarios on ``frames`` images; every edge, every beat, every cycle is compared.

    Parameters
    ----------
    simulator
        ``"verilator"`` (the default) or ``"icarus"``.
    verilog
        The file to verify; made from the network and the plan where ``None``.
    """
    if frames < 2:
        raise ConfigError(f"frames must be at least 2, not {frames}")
    nodes = pipeline(network, plan)
    top = module_name(network.name)
    tell: Progress = progress or (lambda what, done, total: None)
    tests = scenarios(network, nodes, images[:frames])
    with tempfile.TemporaryDirectory(prefix="brambling-") as name:
        if verilog is None:
            verilog = Path(name) / f"{top}.v"
            tell("generate Verilog", 0, 1)
            verilog.write_text(to_verilog(Accelerator(nodes, load=True), top), encoding="utf-8")
            tell("generate Verilog", 1, 1)
        outcome = run_scenarios(
            verilog,
            top,
            watched(nodes),
            tests,
            simulator=simulator or "verilator",
            load=load_words(nodes),
            progress=tell,
        )
    return Verification(
        passed=not outcome.failures and outcome.tests == len(tests),
        tests=outcome.tests,
        edges_compared=len(edges(nodes)),
        beats_compared=outcome.beats_compared,
        failures=outcome.failures,
    )
