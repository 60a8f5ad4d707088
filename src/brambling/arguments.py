"""Arguments that several verbs have, and how numbers among them are read."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from brambling.verbs_import import add_options

__all__ = ["BOARD", "Shared", "number", "positive", "shared"]

BOARD = "ulx3s-85f"  #: Planned for where none is named.


def positive(text: str) -> float:
    """Read a finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def number(text: str) -> int:
    """Read a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Parents of the verbs' parsers.

    Parameters
    ----------
    model
        A network.
    folded
        A plan, or what to make one for, but for the clock.
    planned
        The same with a clock.
    data
        Images and labels.
    machine
        Output as JSON.
    """

    model: argparse.ArgumentParser
    folded: argparse.ArgumentParser
    planned: argparse.ArgumentParser
    data: argparse.ArgumentParser
    machine: argparse.ArgumentParser


def shared() -> Shared:
    """Make the parents."""
    folded = _folded()
    planned = argparse.ArgumentParser(add_help=False, parents=[folded])
    planned.add_argument("--clock-mhz", type=positive, metavar="F", help="default: the board's")
    machine = argparse.ArgumentParser(add_help=False)
    machine.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return Shared(model=_model(), folded=folded, planned=planned, data=_data(), machine=machine)


def _model() -> argparse.ArgumentParser:
    model = argparse.ArgumentParser(add_help=False)
    model.add_argument(
        "model", help="a network of the zoo, or a .safetensors, .onnx or .tflite file"
    )
    add_options(model)
    return model


def _folded() -> argparse.ArgumentParser:
    folded = argparse.ArgumentParser(add_help=False)
    folded.add_argument("--board", metavar="B", help=f"board or part to plan for (default {BOARD})")
    folded.add_argument(
        "--goal",
        metavar="G",
        help="max-fps (default), min-latency, min-area, fps=N, or power=N: N frames a second with "
        "the slowest clock",
    )
    folded.add_argument(
        "--fill", type=positive, metavar="S", help="share of the LUTs to take at most (0.7)"
    )
    folded.add_argument("--plan", type=Path, metavar="FILE", help="use this plan instead")
    return folded


def _data() -> argparse.ArgumentParser:
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument(
        "--images",
        type=Path,
        metavar="FILE",
        help=".npy or idx (default: the package's test images)",
    )
    data.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of the data set: use all its test images"
    )
    data.add_argument("--labels", type=Path, metavar="FILE", help="idx; for the accuracy")
    return data
