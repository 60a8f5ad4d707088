"""The verb ``quantise``: a float model in ONNX becomes one of few bits, which can be imported."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from brambling.errors import ConfigError
from brambling.quant.data import read_idx
from brambling.sim.progress import progress_bar

if TYPE_CHECKING:
    from brambling.quant.interchange.quantise import Report, Rounding, Settings

__all__ = ["add_arguments", "quantise_verb"]

BITS = 8
SATURATED = 0.01  #: Share of clipped elements that is worth a word.
NAME = 24  #: Characters of a layer's name in the table.


def ratio(text: str) -> float:
    """Read a number or a fraction, ``1/255``."""
    numerator, _, denominator = text.partition("/")
    divisor = float(denominator or 1)
    if not divisor:
        raise ValueError(text)
    return float(numerator) / divisor


def sizes(text: str) -> tuple[int, ...]:
    """Read a shape, ``3,32,32``."""
    return tuple(int(size) for size in text.split(","))


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    verb.add_argument("model", type=Path, help="a float model, .onnx")
    verb.add_argument(
        "--calibrate",
        type=Path,
        required=True,
        metavar="IMAGES",
        help="some hundred images, .npy or idx, batch first, as the model takes them",
    )
    verb.add_argument("-o", "--output", type=Path, metavar="OUT.onnx", help="the quantised model")
    verb.add_argument("--labels", type=Path, metavar="FILE", help=".npy or idx; for the accuracy")
    verb.add_argument(
        "--bits", type=int, default=BITS, metavar="N", help=f"2 to 16 (default {BITS})"
    )
    verb.add_argument("--weight-bits", type=int, metavar="N", help="of weights (default: --bits)")
    verb.add_argument(
        "--activation-bits", type=int, metavar="N", help="of results (default: --bits)"
    )
    verb.add_argument(
        "--ends",
        type=int,
        metavar="N",
        help="of the input and the weights of first and last layers (default: 8, or more if "
        "the others have more)",
    )
    verb.add_argument(
        "--per-channel", action="store_true", help="a radix point for each output's weights"
    )
    verb.add_argument(
        "--input-scale",
        type=ratio,
        metavar="S",
        help="images are integers, and the model takes integer * S; such as 1/255",
    )
    verb.add_argument(
        "--input-shape", type=sizes, metavar="C,H,W", help="where the model leaves it open"
    )


def settings_of(args: argparse.Namespace) -> "Settings":
    """Bits that the arguments ask for."""
    from brambling.quant.interchange.quantise import Settings

    return Settings(
        weight_bits=args.bits if args.weight_bits is None else args.weight_bits,
        activation_bits=args.bits if args.activation_bits is None else args.activation_bits,
        ends=args.ends,
        per_channel=args.per_channel,
    )


def output_of(args: argparse.Namespace) -> Path:
    """Where to write the model; never over the float one."""
    path = args.output or args.model.with_name(f"{args.model.stem}-quantised.onnx")
    if path.suffix != ".onnx":
        raise ConfigError(f"{path}: the quantised model must be an .onnx file")
    if path.resolve() == args.model.resolve():
        raise ConfigError(f"{path}: is the float model; write the quantised one to another file")
    return path


def labels_of(path: Path) -> NDArray:
    """Read labels."""
    from brambling.cli import read_array

    return read_array(path) if path.suffix == ".npy" else read_idx(path)


def quantise_verb(args: argparse.Namespace) -> int:
    """Quantise a float ONNX model: a radix point for each layer, from images; none is trained."""
    # Not at the top: the command line imports this module.
    from brambling.cli import read_array

    try:
        from brambling.quant.interchange import reader
        from brambling.quant.interchange.quantise import quantise
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in {"onnx", "google"}:
            raise
        raise ConfigError(
            "ONNX models need the package onnx, which is not installed: pip install onnx"
        ) from None
    settings, out = settings_of(args), output_of(args)
    graph = reader.read(args.model, shape=args.input_shape)
    images = read_array(args.calibrate)
    labels = None if args.labels is None else labels_of(args.labels)
    with progress_bar() as tell:
        made = quantise(
            graph,
            images,
            settings,
            input_scale=args.input_scale,
            labels=labels,
            progress=tell,
        )
    made.save(out)
    if args.json:
        print(json.dumps(to_json(graph.name, out, settings, made.report), indent=2))
    else:
        show(Console(), graph.name, out, made.report)
    return 0


def to_json(name: str, out: Path, settings: "Settings", report: "Report") -> dict[str, Any]:
    """Everything that is known of the quantised model."""
    return {"model": name, "output": str(out), **asdict(settings), **asdict(report)}


# Table --------------------------------------------------------------------------------------------


def share(value: float) -> str:
    """Share of elements; ``-`` for none."""
    return f"{value:.2%}" if value else "-"


def level(value: float | None) -> str:
    """Decibels; ``-`` where nothing is lost."""
    return "-" if value is None else f"{value:.1f}"


def cells(rounding: "Rounding | None") -> tuple[str, str, str]:
    """Format, share of what is clipped, and decibels."""
    if rounding is None:
        return "", "", ""
    return str(rounding), share(rounding.clipped), level(rounding.sqnr)


def short(name: str) -> str:
    """Name of a layer, its end if it is long."""
    return name if len(name) <= NAME else f"…{name[1 - NAME :]}"


def show(console: Console, name: str, out: Path, report: "Report") -> None:
    """Print how near the models are, and a row for each layer."""
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for column in ("layer", "weights", "clipped", "dB", "result", "clipped", "dB", "net dB"):
        table.add_column(column, justify="left" if column == "layer" else "right", no_wrap=True)
    for layer in report.layers:
        table.add_row(
            escape(short(layer.name)), *cells(layer.weights), *cells(layer.data), level(layer.sqnr)
        )
    console.print(table)
    console.print(
        "[dim]s8.5: signed, 8 bits, 5 of them right of the point; u: unsigned; a…b: by channel\n"
        "dB: signal to quantisation noise, of this rounding alone; net dB: of the result,\n"
        "with all that was lost before it; -: nothing is lost[/]"
    )
    for line in verdict(name, report):
        console.print(escape(line), highlight=False)
    console.print(escape(str(out)), highlight=False, soft_wrap=True)


def verdict(name: str, report: "Report") -> list[str]:
    """Say how near the quantised model is to the float model, and what is clipped."""
    noise = "nothing lost" if report.sqnr is None else f"{report.sqnr:.1f} dB"
    lines = [f"{name}: output {noise}, on the {report.images:,} images that calibrated"]
    if report.agreement is not None:
        lines.append(f"same class as float: {report.agreement:.2%}")
    if report.accuracy is not None:
        lines.append(f"accuracy: {report.accuracy:.2%}, float {report.float_accuracy:.2%}")
    many = [x for x in report.layers if x.data and x.data.clipped >= SATURATED]
    if many:
        listed = ", ".join(f"{short(x.name)} {x.data.clipped:.1%}" for x in many if x.data)
        lines.append(f"saturation: results clipped: {listed}; try more bits")
    else:
        lines.append(
            f"saturation: of no result {SATURATED:.0%} of the elements or more are clipped"
        )
    return lines
