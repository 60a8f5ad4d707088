"""Latency and interval of CNV by folding: planned, predicted, and seen in the RTL.

    python bench/latency.py [--network N] [--board B] [--goals G …] [--plans DIR] [--json FILE]

Each plan is made at the board's clock. ``model`` is the cycle model; ``RTL`` the generated Verilog
in Verilator, where every beat of all frames at every edge has been compared with the golden model
and, in its cycle, with the cycle model: one that differs ends the benchmark. Latency is from a
frame's first input beat to its last output beat in an empty accelerator; the interval in the
RTL is that of the last frame. Resources are the planner's estimate. Whether the clock is reached,
only place and route can tell.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import models
from record import RESULTS, Record

from brambling import api
from brambling.boards.parts import find_board
from brambling.errors import DoesNotFit
from brambling.hw.accelerator import Node, pipeline
from brambling.network import Network
from brambling.plan import Plan
from brambling.sim import golden
from brambling.sim.cycles import Schedule, schedule
from brambling.simulation import compare, design_of, job_of, runner

BOARD = "ulx3s-85f"
GOALS = ("fps=50", "fps=200", "fps=1000", "fps=3000", "max-fps")
STEADY = 16  #: Frames after which the interval is that of all later ones.


def of_plan(
    network: Network, plan: Plan, nodes: tuple[Node, ...]
) -> tuple[dict[str, Any], Schedule]:
    """Return what the plan and the model say, and the schedule."""
    part = find_board(plan.board).part
    taken = api.total(network, plan, find_board(plan.board))
    slowest = max(plan.pairs(network), key=lambda pair: pair[0].interval(
        pair[1].pe, pair[1].simd, pair[1].pixels))  # fmt: skip
    start = time.perf_counter()
    found = schedule(nodes, STEADY)
    row = {
        "luts": taken.luts,
        "luts_of": part.luts,
        "blocks": taken.blocks,
        "blocks_of": part.blocks,
        "dsps": taken.dsps,
        "dsps_of": part.dsps,
        "clock_hz": plan.clock_hz,
        "interval_cycles": found.interval,
        "latency_cycles": found.latency,
        "bottleneck": slowest[0].name,
        "model_s": round(time.perf_counter() - start, 2),
    }
    return row, found


def seen(network: Network, plan: Plan, nodes: tuple[Node, ...], found: Schedule) -> dict[str, int]:
    """Return what Verilator shows, compared beat by beat."""
    frames = found.frames
    images = golden.frames(network, models.images(network)[0])[:frames]
    job = job_of(nodes, found, images.reshape(frames, -1))
    trace = runner("verilator").run(design_of(network, plan, nodes), job)
    beats = compare(nodes, golden.run(network, images), found, trace, frames)
    last = trace["output"].cycles.reshape(frames, -1)[:, -1]
    return {
        "latency_rtl": int(last[0] - trace["input"].cycles[0]),
        "interval_rtl": int(last[-1] - last[-2]),
        "beats_compared": beats,
    }


def share(key: str) -> Any:
    """Return how much a plan takes, and of how much."""
    return lambda row: f"{row[key]:,} ({row[key] / row[key + '_of']:.0%})"


COLUMNS = {
    "goal": lambda row: row["goal"],
    "interval, model": lambda row: f"{row['interval_cycles']:,}",
    "RTL": lambda row: f"{row['interval_rtl']:,}",
    "latency, model": lambda row: f"{row['latency_cycles']:,}",
    "RTL ": lambda row: f"{row['latency_rtl']:,}",
    "ms": lambda row: f"{row['latency_cycles'] / row['clock_hz'] * 1e3:.3g}",
    "frames/s": lambda row: f"{row['clock_hz'] / row['interval_cycles']:,.1f}",
    "LUT": share("luts"),
    "BRAM": share("blocks"),
    "DSP": share("dsps"),
    "beats": lambda row: f"{row['beats_compared']:,}",
    "model s": lambda row: f"{row['model_s']:.1f}",
    "plan s": lambda row: "–" if row["plan_s"] is None else f"{row['plan_s']:.1f}",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--network", default=models.CNV, choices=models.names())
    parser.add_argument("--board", default=BOARD, metavar="B")
    parser.add_argument("--goals", nargs="+", default=list(GOALS), metavar="G")
    parser.add_argument("--frames", type=int, default=2, help="in the RTL, at least 2")
    parser.add_argument("--plans", type=Path, metavar="DIR", help=models.PLANS)
    parser.add_argument("--json", type=Path, default=RESULTS / "latency.json")
    args = parser.parse_args()

    clock = find_board(args.board).clock_hz
    record = Record(
        f"Latency: {args.network} on {args.board} at {clock / 1e6:g} MHz",
        ("amaranth", "verilator", "numpy"),
        [
            "Cycles. RTL: Verilog in Verilator, every beat equal to both models.",
            "LUT, BRAM, DSP: estimates of the planner, in brackets the share of the part.",
        ],
    )
    network = models.load(args.network)
    rows = []
    for goal in args.goals:
        try:
            plan, seconds = models.plan(network, args.board, goal, args.plans)
        except DoesNotFit as problem:
            print(f"{goal}: left out ({problem})", file=sys.stderr)
            continue
        row = {"network": network.name, "goal": goal, "plan_s": seconds}
        nodes = pipeline(network, plan)
        planned, found = of_plan(network, plan, nodes)
        rows.append(row | planned | seen(network, plan, nodes, found.first(args.frames)))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    record.write(args.json, rows, COLUMNS)


if __name__ == "__main__":
    main()
