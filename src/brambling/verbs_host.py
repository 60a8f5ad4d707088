"""The verb ``host``: images to a device on a serial port, and what comes back."""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from brambling.arguments import number, positive
from brambling.errors import ConfigError
from brambling.network import Network
from brambling.plan import Plan
from brambling.sim.progress import Progress, progress_bar

if TYPE_CHECKING:
    from brambling.host import Device, Transport

__all__ = ["add_parser", "host_verb"]

BAUD = 115_200
TIMEOUT = 1.0


def add_parser(add: Callable[..., argparse.ArgumentParser], *parents: Any) -> None:
    """Add the verb; ``parents`` have the arguments for model, plan, images and output."""
    verb = add("host", host_verb, *parents)
    verb.add_argument("--port", metavar="P", help="serial port (default: the only one on USB)")
    verb.add_argument(
        "--baud",
        type=number,
        metavar="N",
        help=f"bits a second (default: those of the board that is named, else {BAUD})",
    )
    verb.add_argument("--frames", type=number, metavar="N", help="how many images (default: all)")
    verb.add_argument(
        "--timeout",
        type=positive,
        default=TIMEOUT,
        metavar="S",
        help=f"seconds to wait for an answer (default {TIMEOUT:g})",
    )
    verb.add_argument("--selftest", action="store_true", help="run the vectors inside the device")
    verb.add_argument("--registers", action="store_true", help="read all registers")
    verb.add_argument(
        "--load", action="store_true", help="load the weights first; give --plan of the build"
    )
    verb.add_argument(
        "--simulate", action="store_true", help="no board: a device in Python behind the protocol"
    )


@dataclass(kw_only=True)
class Report:
    """What the device was asked, and what it said; ``None`` where it was not asked.

    ``seconds`` is of the line's own clock: for a simulated device, what the line would take.
    """

    model: str
    port: str
    simulated: bool
    clock_hz: int
    loaded: int | None = None
    selftest: bool | None = None
    frames: int | None = None
    seconds: float | None = None
    frames_per_second: float | None = None
    latency_cycles: int | None = None
    classes: dict[str, int] = field(default_factory=dict)
    accuracy: float | None = None
    registers: dict[str, int] | None = None
    losses: dict[str, int] = field(default_factory=dict)


def host_verb(args: argparse.Namespace) -> int:
    """Send images to a device, and print their classes, frames a second, and what was lost."""
    from brambling.cli import images_of
    from brambling.host import Device
    from brambling.verbs_import import load_model

    if args.load and args.plan is None:
        raise ConfigError("--load needs the plan that the device was built from: give --plan")
    if args.simulate and args.port is not None:
        raise ConfigError("--simulate needs no port: give --port or --simulate, not both")
    network = load_model(args)
    wanted = any(value is not None for value in (args.images, args.data, args.frames))
    wanted = wanted or not (args.selftest or args.registers or args.load)
    images, labels = images_of(network, args) if wanted else (None, None)
    # First what is wrong with the images, then the device.
    words = words_of(network, args) if args.load else None
    with (
        progress_bar() as tell,
        Device(line_of(network, args, words), network, timeout=args.timeout) as device,
    ):
        report = ask(device, args, words, images, labels, tell)
    if args.json:
        print(json.dumps(vars(report), indent=2))
    else:
        show(Console(), report)
    return 1 if report.selftest is False else 0


def words_of(network: Network, args: argparse.Namespace) -> NDArray:
    """Return what the device must be loaded with, by the plan that it was built from."""
    from brambling.cli import plan_of
    from brambling.hw.accelerator import pipeline
    from brambling.hw.load import load_words

    return load_words(pipeline(network, plan_of(network, args)))


def baud_of(args: argparse.Namespace) -> int:
    """Return the rate of the line: as asked for, or of the board that is named, by a plan too."""
    from brambling.boards.parts import find_board

    if args.baud is not None:
        return args.baud
    name = args.board if args.plan is None else Plan.load(args.plan).board
    board = None if name is None else find_board(name)
    return BAUD if board is None or board.platform is None else board.link("uart").baud


def line_of(network: Network, args: argparse.Namespace, words: NDArray | None) -> "Transport":
    """Open the port, or make the device in Python."""
    from brambling.cli import plan_of
    from brambling.host import ModelDevice, SerialTransport, find_port

    if not args.simulate:
        return SerialTransport(args.port or find_port(), baud_of(args))
    plan = plan_of(network, args)
    return ModelDevice.of(network, plan, baud=baud_of(args), selftest=True, words=words)


def ask(
    device: "Device",
    args: argparse.Namespace,
    words: NDArray | None,
    images: NDArray | None,
    labels: NDArray | None,
    tell: Progress,
) -> Report:
    """Ask the device all that the arguments want to know."""
    network = device.network
    report = Report(
        model=network.name,
        port=device.port,
        simulated=args.simulate,
        clock_hz=device.ident.clock_hz,
    )
    if words is not None:
        device.load(words, tell)
        report.loaded = len(words)
    if args.selftest:
        report.selftest = device.selftest()
    if images is not None:
        classify(device, report, images[: args.frames], labels, tell)
    if args.registers:
        report.registers = {
            register.name.lower(): value for register, value in device.registers().items()
        }
    report.losses = device.losses.to_json()
    return report


def classify(
    device: "Device", report: Report, images: NDArray, labels: NDArray | None, tell: Progress
) -> None:
    """Send the images; note classes, and how many are right where labels are known."""
    begin, world = device.now(), time.monotonic()
    found = device.classify(images, tell)
    took = device.now() - begin if report.simulated else time.monotonic() - world
    report.frames = len(found)
    report.seconds = took
    report.frames_per_second = len(found) / took
    report.latency_cycles = int(np.median(device.cycles))
    names = device.network.classes
    for index, count in zip(*np.unique(found, return_counts=True), strict=True):
        known = index < len(names)
        report.classes[names[index] if known else str(index)] = int(count)
    if labels is not None:
        report.accuracy = float(np.mean(found == labels[: len(found)]))


def show(console: Console, report: Report) -> None:
    """Print it."""
    clock = report.clock_hz / 1e6
    console.print(escape(f"{report.model} on {report.port}, {clock:g} MHz"), highlight=False)
    if report.loaded is not None:
        console.print(f"loaded: {report.loaded:,} words of 16 bits", highlight=False)
    if report.selftest is not None:
        console.print(f"self-test: {'passed' if report.selftest else 'FAILED'}", highlight=False)
    if report.frames is not None:
        show_frames(console, report)
    if report.registers is not None:
        table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
        table.add_column("register")
        table.add_column("value", justify="right")
        for name, value in report.registers.items():
            table.add_row(name.replace("_", " "), f"{value:,}")
        console.print(table)
    lost = [f"{count:,} {name.replace('_', ' ')}" for name, count in report.losses.items() if count]
    console.print(f"lost on the line: {', '.join(lost) or 'nothing'}", highlight=False)


def show_frames(console: Console, report: Report) -> None:
    """Print classes, accuracy and times."""
    assert report.latency_cycles is not None
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("class")
    table.add_column("images", justify="right")
    for name, count in report.classes.items():
        table.add_row(escape(name), f"{count:,}")
    console.print(table)
    if report.accuracy is not None:
        console.print(f"accuracy: {report.accuracy:.2%}", highlight=False)
    whose = "as the line would take" if report.simulated else "line included"
    console.print(
        f"{report.frames:,} frames in {report.seconds:.3g} s, {report.frames_per_second:,.4g} "
        f"frames/s, {whose}",
        highlight=False,
    )
    pace = "as if the frame came at once" if report.simulated else "at the line's pace"
    latency = report.latency_cycles / report.clock_hz * 1e6
    console.print(
        f"first beat in to last beat out: {report.latency_cycles:,} cycles, {latency:.3g} µs, "
        f"{pace}",
        highlight=False,
    )
