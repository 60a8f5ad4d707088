"""How near the folding solver comes to what is proven that no plan can be better than.

    python bench/folding.py [--networks N …] [--parts P …] [--json FILE]

Every network of the zoo on every part, for each kind of goal; the rate is half of the fastest.
Without FIFOs and queues, which a plan gets afterwards. What is proven is a relaxation's optimum,
see :func:`brambling.boards.solver.bound`; the gap is by how much the plan is worse than that.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from record import RESULTS, Record
from rich.console import Console

from brambling import zoo
from brambling.boards.parts import PARTS, find_board
from brambling.boards.solver import Solver
from brambling.errors import DoesNotFit
from brambling.network import Network
from brambling.plan import Plan
from brambling.sim.sizing import unlimited

CLOSE = 5.0  #: Per cent.


def measure(solver: Solver, plan: Plan) -> float:
    """Return what the goal of a plan makes small."""
    match plan.goal:
        case "max-fps":
            return solver.search.options.polish.slowest(plan.stages)
        case "min-latency":
            return unlimited(solver.network, plan)
    return solver.search.share(plan.stages)


def row_of(solver: Solver, goal: str) -> dict[str, Any]:
    """Fold for a goal, and compare with the bound."""
    start = time.process_time()
    plan = solver.fold(goal, latency=lambda plan: unlimited(solver.network, plan))
    seconds = time.process_time() - start
    need = solver.search.options.polish.total(plan.stages)
    found, bound = measure(solver, plan), solver.bound(goal)
    return {
        "goal": goal,
        "found": found,
        "bound": bound.value,
        "unit": bound.unit,
        "gap": 100 * (found / bound.value - 1),
        "blocks": need.blocks,
        "luts": need.luts,
        "dsps": need.dsps,
        "sprams": need.sprams,
        "cpu_s": seconds,
    }


def rows_of(network: Network, part: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each goal; one alone where the network does not fit."""
    solver = Solver(network, find_board(part))
    start = time.process_time()
    solver.search.tree  # noqa: B018 - all foldings, found once for all goals.
    seconds = time.process_time() - start
    named = {"network": network.name, "part": part, "foldings_cpu_s": seconds}
    if solver.search.fastest(solver.search.options.most) is None:
        yield named | {"goal": "max-fps", "refused": True}
        return
    first = row_of(solver, "max-fps")
    yield named | first
    rate = solver.board.clock_hz / first["found"] / 2
    for goal in (f"fps={rate:.3f}", "min-area", "min-latency"):
        try:
            yield named | row_of(solver, goal)
        except DoesNotFit:  # pragma: no cover - what fits for one goal fits for another.
            yield named | {"goal": goal, "refused": True}


def text(value: float) -> str:
    """Write a number of cycles whole, a share with digits."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3f}"


COLUMNS = {
    "network": lambda row: row["network"],
    "part": lambda row: row["part"],
    "goal": lambda row: row["goal"],
    "found": lambda row: "–" if row.get("refused") else text(row["found"]),
    "bound": lambda row: "–" if row.get("refused") else text(row["bound"]),
    "gap %": lambda row: "does not fit" if row.get("refused") else f"{row['gap']:.1f}",
    "blocks": lambda row: "–" if row.get("refused") else str(row["blocks"]),
    "LUTs": lambda row: "–" if row.get("refused") else f"{row['luts']:,}",
    "DSP": lambda row: "–" if row.get("refused") else str(row["dsps"]),
    "SPRAM": lambda row: "–" if row.get("refused") else str(row["sprams"]),
    "CPU s": lambda row: "–" if row.get("refused") else f"{row['cpu_s']:.1f}",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="*", default=zoo.names())
    parser.add_argument("--parts", nargs="*", default=[*PARTS])
    parser.add_argument("--json", type=Path, default=RESULTS / "folding.json")
    args = parser.parse_args()
    record = Record("Folding: found, and what is proven", ("numpy",))
    console, rows = Console(stderr=True), []
    for name in args.networks:
        network = zoo.load(name)
        for part in args.parts:
            for row in rows_of(network, part):
                rows.append(row)
                console.print(*(f"{text(row)}" for text in COLUMNS.values()))
    near = [row for row in rows if not row.get("refused")]
    for goal in ("max-fps", "fps", "min-area", "min-latency"):
        gaps = [row["gap"] for row in near if row["goal"].startswith(goal)]
        if gaps:
            record.notes.append(
                f"{goal}: {sum(gap <= CLOSE for gap in gaps)} of {len(gaps)} within {CLOSE:g} %; "
                f"median {sorted(gaps)[len(gaps) // 2]:.1f} %, most {max(gaps):.1f} %."
            )
    record.notes.append(
        "Found and bound: cycles from frame to frame; of fps=N and min-area the sum of the shares "
        "of the part's resources; of min-latency cycles, whose bound leaves out pipelines. Without "
        "FIFOs and queues. CPU s: of a goal, when all foldings are known."
    )
    record.write(args.json, rows, COLUMNS)


if __name__ == "__main__":
    main()
