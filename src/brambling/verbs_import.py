"""The verbs about models of other tools: ``import``, ``export`` and ``bisect``."""

import argparse
import json
import sys
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from rich.console import Console

from brambling import zoo
from brambling.errors import ConfigError, FileProblem
from brambling.network import Network
from brambling.origin import origin_of
from brambling.quant.formats import Fixed, parse_format
from brambling.sim.progress import progress_bar

if TYPE_CHECKING:
    from brambling.quant.interchange.models import Model

__all__ = [
    "add_bisect",
    "add_export",
    "add_import",
    "add_options",
    "bisect_verb",
    "export_verb",
    "import_verb",
    "load_model",
    "options_of",
    "read_model",
]

SUFFIXES = (".onnx", ".tflite")


def ratio(text: str) -> Fraction:
    """Read a number or a fraction, exactly."""
    value = Fraction(text)
    if value <= 0:
        raise ValueError(text)
    return value


def sizes(text: str) -> tuple[int, ...]:
    """Read a shape, ``3,32,32``."""
    found = tuple(int(size) for size in text.split(","))
    if min(found) < 1:
        raise ValueError(text)
    return found


def fixed(text: str) -> Fixed:
    """Read a format, ``u8.0``; of ``u8`` too."""
    found = parse_format(text if "." in text else f"{text}.0")
    if isinstance(found, Fixed):
        return found
    raise ValueError(text)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what a model of another tool does not say."""
    group = parser.add_argument_group("models of other tools (.onnx, .tflite)")
    group.add_argument(
        "--input-scale",
        type=ratio,
        metavar="S",
        help="the network takes integers n, the model n * S, such as 1/255; without it the "
        "network takes the codes of the model's first quantiser",
    )
    group.add_argument("--input-zero", type=int, metavar="Z", help="the model takes (n - Z) * S")
    group.add_argument(
        "--input-format", type=fixed, metavar="F", help="of these integers (default u8)"
    )
    group.add_argument(
        "--input-shape", type=sizes, metavar="C,H,W", help="where the model leaves it open"
    )
    group.add_argument(
        "--argmax", action="store_true", help="add the arg-max: the result is the class"
    )


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of :func:`add_options` that are given."""
    if args.input_scale is None and (args.input_zero is not None or args.input_format is not None):
        raise ConfigError("--input-zero and --input-format go with --input-scale: give that too")
    named = {
        "scale": args.input_scale,
        "zero": args.input_zero,
        "fmt": args.input_format,
        "shape": args.input_shape,
        "argmax": args.argmax or None,
    }
    return {key: value for key, value in named.items() if value is not None}


def read_model(path: str | Path, options: dict[str, Any]) -> "Model":
    """Read a model of another tool; tell which package is missing."""
    try:
        from brambling.quant.interchange import models

        return models.read(Path(path), **options)
    except ImportError as error:
        missing = missing_package(error)
        if missing is None:
            raise
        raise ConfigError(
            f"reading {Path(path).name} needs the package {missing}, which is not installed: "
            "pip install 'brambling[import]'"
        ) from None


def missing_package(error: ImportError) -> str | None:
    """Name the optional package that is not there; ``None``: it is something else."""
    found = (error.name or "").partition(".")[0]
    return found if found in {"onnx", "tflite", "flatbuffers"} else None


def load_model(args: argparse.Namespace) -> Network:
    """Return the network that the arguments of a verb name, whatever it is made of."""
    from brambling import api

    options = options_of(args)
    if Path(args.model).suffix.lower() in SUFFIXES:
        return read_model(args.model, options).network
    if options:
        raise ConfigError(f"{args.model}: --input-… and --argmax go with .onnx and .tflite models")
    return api.load(args.model)


# import -------------------------------------------------------------------------------------------


def add_import(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of ``import``."""
    verb.add_argument(
        "model",
        help="an .onnx or .tflite file, or package.module:function that makes a PyTorch module",
    )
    verb.add_argument("-o", "--output", type=Path, metavar="NET.safetensors", help="the network")
    verb.add_argument("--name", help="of the network (default: that of the file)")
    verb.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="of a PyTorch module: its state_dict, .safetensors",
    )
    verb.add_argument(
        "--check",
        type=Path,
        metavar="DATA",
        help=".npy, batch first, as the model takes them, or the folder of a data set: run the "
        "model itself beside the network",
    )


def import_verb(args: argparse.Namespace) -> int:
    """Make a network of a model of another tool, exactly; check it against the model itself."""
    options = options_of(args)
    if args.name is not None:
        options["name"] = args.name
    if ":" in args.model and not Path(args.model).exists():
        sys.path.insert(0, str(Path.cwd()))
        network, notes, checked = torch_model(args, options), [], None
    else:
        if args.weights is not None:
            raise ConfigError(f"{args.model}: --weights goes with package.module:function")
        model = read_model(args.model, options)
        network, notes, checked = model.network, list(model.notes), None
        if args.check is not None:
            images = check_images(network, args.check)
            with progress_bar() as tell:
                checked = model.check(images, lambda done, total: tell("check", done, total))
    out = args.output or Path(f"{network.name}.safetensors")
    network.save(out)
    if args.json:
        facts = {
            "network": network.name,
            "file": str(out),
            "input": str(network.input),
            "output": str(network.output),
            "layers": [
                {"name": name, "kind": type(layer).__name__, "output": str(network.tensors[name])}
                for layer in network.layers
                for name in (layer.name,)
            ],
            "weight_bits": network.weight_bits,
            "notes": notes,
            "check": None if checked is None else asdict(checked),
        }  # fmt: skip
        print(json.dumps(facts, indent=2))
        return 0
    print(network)
    for note in notes:
        print(f"note: {note}")
    if checked is not None:
        print(f"check: {checked}")
    print(out)
    return 0


def check_images(network: Network, data: Path) -> NDArray:
    """Return the images of a file, or a data set's test images in the model's layout."""
    from brambling.cli import read_array

    if not data.is_dir():
        return read_array(data)
    origin = origin_of(network)
    images, _ = zoo.read_test_set(zoo.dataset_of(network), data)
    if origin is None:
        return images
    if origin.input.quantiser.kind != "grid":
        raise ConfigError(
            f"{network.name} takes what its model takes, not pixels: give an .npy file, or "
            "--input-scale"
        )
    return origin.input.layout.to_model(images.reshape(len(images), -1))


def torch_model(args: argparse.Namespace, options: dict[str, Any]) -> Network:
    """Make a network of a PyTorch module of the user's."""
    try:
        from brambling.quant.interchange import torch_models
    except ImportError as error:
        if error.name not in {"torch", "onnx"}:
            raise
        raise ConfigError(
            f"PyTorch modules need {error.name}, which is not installed: "
            "pip install 'brambling[train,import]'"
        ) from None
    if args.check is not None:
        raise ConfigError("--check goes with .onnx and .tflite files")
    return torch_models.import_named(args.model, args.weights, **options)


# export -------------------------------------------------------------------------------------------


def add_export(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of ``export``."""
    verb.add_argument("-o", "--output", type=Path, metavar="MODEL.onnx", help="the model")


def export_verb(args: argparse.Namespace) -> int:
    """Write a network as QONNX, which the qonnx package executes to the same integers."""
    network = load_model(args)
    try:
        from brambling.quant.interchange.exporter import export
    except ImportError as error:
        if error.name != "onnx":
            raise
        raise ConfigError(
            "exporting needs the package onnx, which is not installed: "
            "pip install 'brambling[import]'"
        ) from None
    out = args.output or Path(f"{network.name}.onnx")
    if out.suffix.lower() != ".onnx":
        raise FileProblem(f"{out}: the model is written as .onnx: name it so")
    export(network, out)
    print(out)
    return 0


# bisect -------------------------------------------------------------------------------------------


def add_bisect(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of ``bisect``."""
    verb.add_argument(
        "--network", metavar="NET", help="compare this network with the model, not a new import"
    )
    verb.add_argument("--frames", type=int, default=4, metavar="N", help="images (default 4)")


def bisect_verb(args: argparse.Namespace) -> int:
    """Name the first edge, channel and pixel where model, network and hardware differ."""
    from brambling.bisect import bisect
    from brambling.cli import best_engine, bisect_images, plan_of

    options = options_of(args)
    foreign = Path(args.model).suffix.lower() in SUFFIXES
    model = read_model(args.model, options) if foreign else None
    network = model.network if model is not None else load_model(args)
    if args.network is not None:
        if model is None:
            raise ConfigError("--network is compared with a model: give an .onnx or .tflite file")
        from brambling import api

        network = api.load(args.network)
    images = bisect_images(network if model is None else model.network, args)[: args.frames]
    engine = args.engine or best_engine(Console(stderr=True))
    made = plan_of(network, args)
    with progress_bar() as tell:
        result = bisect(model, network, images, made, engine, tell)
    if args.json:
        print(json.dumps(result.to_json(), indent=2))
    else:
        for line in result.lines():
            print(line)
    return 1 if result.differs else 0
