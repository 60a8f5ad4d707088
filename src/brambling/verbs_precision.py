"""The verb ``precision``: what each width and each choice of radix points costs in accuracy."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from brambling import zoo
from brambling.errors import ConfigError
from brambling.quant.data import find, pair, read_cifar
from brambling.sim.progress import progress_bar

if TYPE_CHECKING:
    from brambling.quant.radix import Precision

__all__ = ["add_arguments", "precision_verb"]

FLOATS = zoo.FOLDER / "float"
IMAGES = 2000  #: Test images, where not all are asked for.
CALIBRATION = 256


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    verb.add_argument(
        "model",
        help="a float model of the zoo, a .safetensors file of one, or package.module:function "
        "that makes yours",
    )
    verb.add_argument(
        "--weights", type=Path, metavar="FILE", help="of yours: its state_dict, as .safetensors"
    )
    verb.add_argument("--dataset", choices=zoo.DATASETS, help="of yours: what it was trained on")
    verb.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="MNIST's idx files or CIFAR-10's binary batches (default: the package's images)",
    )
    verb.add_argument("--all", action="store_true", help=f"all test images, not {IMAGES:,}")


def float_path(model: str) -> Path:
    """Path of a float model of the zoo, or of a file."""
    known = sorted(path.stem for path in FLOATS.glob("*.safetensors"))
    if model in known:
        return zoo.checked(FLOATS / f"{model}.safetensors")
    if Path(model).suffix == ".safetensors" or Path(model).exists():
        return Path(model)
    raise ConfigError(
        f"a float model is a .safetensors file or one of the zoo ({', '.join(known) or 'none'}), "
        f"not {model!r}"
    )


def images_for(dataset: str, folder: Path | None) -> tuple[NDArray, NDArray, NDArray]:
    """Return images that calibrate, test images and their labels.

    Without a folder both are of the package's test images, and those that calibrate, the last,
    are not tested.
    """
    if folder is None:
        images, labels = zoo.evaluation_set(dataset)
        kept = max(len(images) - CALIBRATION, len(images) // 2)
        return images[kept:], images[:kept], labels[:kept]
    if dataset == "MNIST":
        return pair(folder, "train")[0][:CALIBRATION], *pair(folder, "t10k")
    what = "CIFAR-10's six binary batches"
    first, test = (
        read_cifar(find(folder, name, ".xz", what))
        for name in ("data_batch_1.bin", "test_batch.bin")
    )
    return first[0][:CALIBRATION], *test


def precision_verb(args: argparse.Namespace) -> int:
    """Compare float, static and dynamic fixed point at 16, 8, 6 and 4 bits."""
    try:
        import torch

        from brambling.quant import radix
        from brambling.quant.floats import build_float, load_float
    except ImportError as error:
        if error.name != "torch":
            raise
        raise ConfigError(
            "float models need PyTorch, which is not installed: pip install 'brambling[train]'"
        ) from None
    if ":" in args.model and not Path(args.model).exists():
        if args.weights is None or args.dataset is None:
            raise ConfigError(f"{args.model}: a model of yours needs --weights and --dataset")
        sys.path.insert(0, str(Path.cwd()))
        loaded = build_float(args.model, args.weights, args.dataset)
    elif args.weights is not None or args.dataset is not None:
        raise ConfigError(
            f"{args.model}: --weights and --dataset go with a package.module:function of yours"
        )
    else:
        loaded = load_float(float_path(args.model))
    calibration, images, labels = images_for(loaded.dataset, args.data)
    if not args.all:
        images, labels = images[:IMAGES], labels[:IMAGES]
    torch.set_num_threads(1)  # batches are small; threads that wait for each other cost more
    with progress_bar() as tell:
        result = radix.table(
            loaded.module,
            images,
            np.asarray(labels),
            calibration=calibration,
            progress=lambda done, total: tell("precision", done, total),
        )
    if args.json:
        print(json.dumps(to_json(loaded.architecture, loaded.dataset, result), indent=2))
    else:
        show(Console(), f"{loaded.architecture} on {loaded.dataset}", result)
    return 0


def to_json(architecture: str, dataset: str, result: "Precision") -> dict[str, Any]:
    """Everything of a table, radix points included."""
    return {"model": architecture, "dataset": dataset, **asdict(result)}


def show(console: Console, title: str, result: "Precision") -> None:
    """Print a table as Qiu et al. do, a row for each experiment."""
    console.print(
        f"[bold]{title}[/]: {result.images:,} test images, {result.calibration:,} to calibrate"
    )
    table = Table(box=None, header_style="bold")
    for column in ("method", "data bits", "weight bits", "data step", "weight step"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for column in ("accuracy", "loss"):
        table.add_column(column, justify="right")
    first = result.rows[0].accuracy
    for row in result.rows:
        data, weights = row.precision
        bits = ("32", "32") if row.bits is None else (str(row.bits.data), row.bits.weights)
        loss = "-" if row.bits is None else f"{100 * (first - row.accuracy):.2f}"
        table.add_row(row.method, *bits, data, weights, f"{row.accuracy:.2%}", loss)
    console.print(table)
    console.print(
        "[dim]step: real value of a code of 1; dynamic: a power of two for each layer\n"
        "weight bits 8 or 4: of convolutions, and of dense layers; pixels have 8 bits\n"
        "loss: of accuracy, in points[/]"
    )
