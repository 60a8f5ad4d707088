"""How many images a second the golden model computes, beside other exact ways to do it.

    python bench/golden.py [--qonnx PYTHON] [--threads N] [--json FILE]

All start from the shipped test images, bytes, and give classes; each is checked to be equal to the
golden model. ``float32``: one float32 matrix product a layer and nothing else around it.
``popcount``: 64 synapses a word, ``np.bitwise_count``. Both only for networks without convolutions.
``qonnx``: QONNX's own executor, in an environment of its own (bench/README.md), on a model without
annotations, which is its fastest. Best of several runs; QONNX best of several executions of one
batch.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
from numpy.typing import NDArray
from qonnx_export import nodes_of
from record import RESULTS, Record

from brambling.network import ArgMax, Dense, Network, Thresholds
from brambling.quant.formats import Bipolar
from brambling.sim import golden

BATCHES = (1, 100, 10_000)
MEASURED = ("tfc-w1a1", "sfc-w1a1", "lfc-w1a1", models.CNV)
BLOCK = 64  #: Images at a time for the packed popcount: intermediate results stay in the cache.
THREADS = "OPENBLAS_NUM_THREADS"
SECONDS = 1.0  #: Least time to repeat a measurement for.

Run = Callable[[NDArray[Any]], NDArray[Any]]


class Perceptron:
    """Arrays of a network of bipolar layers: a level, then weights and levels, then weights.

    Falling thresholds are folded into the signs of weights and levels.
    """

    weights: list[NDArray[np.integer]]
    levels: list[NDArray[np.int64]]

    def __init__(self, network: Network) -> None:
        binarise, *layers, last, argmax = network.layers
        assert isinstance(binarise, Thresholds)
        assert not binarise.falling.any()
        assert isinstance(last, Dense)
        assert isinstance(argmax, ArgMax)
        self.weights, self.levels = [], [binarise.levels[:, 0]]
        for dense, act in zip(layers[::2], layers[1::2], strict=True):
            assert isinstance(dense, Dense)
            assert dense.fmt == Bipolar()
            assert isinstance(act, Thresholds)
            assert act.fmt == Bipolar()
            sign = np.where(act.falling, -1, 1).astype(np.int8)
            self.weights.append(dense.weights * sign[:, None])
            self.levels.append(act.levels[:, 0] * sign)
        self.weights.append(last.weights)

    def float32(self) -> Run:
        """One matrix product a layer."""
        weights = [np.ascontiguousarray(w.T, np.float32) for w in self.weights]
        levels = [level.astype(np.float32) for level in self.levels]

        def run(images: NDArray[np.uint8]) -> NDArray[Any]:
            classes = []
            for start in range(0, len(images), golden.BATCH):
                x = images[start : start + golden.BATCH].astype(np.float32)
                for w, level in zip(weights, levels, strict=True):
                    x = (2 * (x >= level).astype(np.float32) - 1) @ w
                classes.append(x.argmax(axis=1))
            return np.concatenate(classes)

        return run

    def popcount(self) -> Run:
        """Packed bits; a product is the number of inputs less twice the number of mismatches."""
        weights = [np.ascontiguousarray(packed(w > 0).T) for w in self.weights]
        sizes = [w.shape[1] for w in self.weights]

        def run(images: NDArray[np.uint8]) -> NDArray[Any]:
            classes = []
            for start in range(0, len(images), BLOCK):
                x: NDArray[Any] = images[start : start + BLOCK]
                for w, size, level in zip(weights, sizes, self.levels, strict=True):
                    bits = packed(x >= level.astype(np.int16))
                    mismatches = np.zeros((len(x), w.shape[1]), np.int16)
                    for word, row in zip(bits.T, w, strict=True):
                        mismatches += np.bitwise_count(word[:, None] ^ row)
                    x = size - 2 * mismatches
                classes.append(x.argmax(axis=1))
            return np.concatenate(classes)

        return run


def packed(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Rows of bits as words; bits beyond the end are 0."""
    data = np.packbits(bits, axis=1, bitorder="little")
    return np.pad(data, ((0, 0), (0, -data.shape[1] % 8))).view(np.uint64)


def speed(run: Run, images: NDArray[Any]) -> float:
    """Images a second, best of several runs."""
    run(images)
    best = float("inf")
    end = time.perf_counter() + SECONDS
    for n in range(1_000_000):
        start = time.perf_counter()
        run(images)
        best = min(best, time.perf_counter() - start)
        if n >= 2 and time.perf_counter() > end:
            break
    return len(images) / best


def qonnx(
    python: Path, network: Network, images: NDArray[np.integer]
) -> tuple[dict[int, float], dict[str, str]]:
    """Images a second by batch, and versions; checks that the logits are equal."""
    with tempfile.TemporaryDirectory() as folder:
        given, got = Path(folder) / "given.npz", Path(folder) / "got.npz"
        np.savez(given, allow_pickle=False, images=images, **nodes_of(network))
        command = [python, Path(__file__).with_name("qonnx_speed.py"), given, got]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{python} failed:\n{done.stderr[-2000:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        logits = np.load(got, allow_pickle=False)
        edge = network.layers[-2].name
        wanted = golden.run(network, images, edges=(edge,))[edge]
        for batch in logits.values():
            assert np.array_equal(batch, wanted[: len(batch)]), "QONNX's logits differ"
    return {int(batch): rate for batch, rate in found["images_per_s"].items()}, found["versions"]


def measure(names: list[str], python: Path | None, record: Record) -> list[dict[str, Any]]:
    rows = []
    for name in names:
        network = models.load(name)
        images, _ = models.images(network)
        output = network.layers[-1].name

        def predict(
            x: NDArray[Any], network: Network = network, output: str = output
        ) -> NDArray[Any]:
            return golden.run(network, x, edges=(output,))[output]

        ways: dict[str, Run] = {"golden": predict}
        if isinstance(network.layers[0], Thresholds):
            model = Perceptron(network)
            ways |= {"float32": model.float32(), "popcount": model.popcount()}
        for way, run in ways.items():
            assert np.array_equal(run(images), predict(images)), way
        rates: dict[int, float] = {}
        if python:
            rates, versions = qonnx(python, network, images[:100])
            record.made["versions"] |= versions
        for batch in BATCHES:
            if batch > len(images):
                continue
            row = {"network": name, "batch": batch}
            row |= {way: round(speed(run, images[:batch]), 1) for way, run in ways.items()}
            if batch in rates:
                row["qonnx"] = round(rates[batch], 1)
            rows.append(row)
    return rows


def beside(way: str) -> Callable[[Any], str]:
    """Images a second, and how many times faster the golden model is."""

    def text(row: Any) -> str:
        return f"{row[way]:,.0f} (×{row['golden'] / row[way]:.2g})" if way in row else "–"

    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--networks", nargs="+", default=MEASURED, choices=models.names())
    parser.add_argument("--qonnx", type=Path, metavar="PYTHON", help="interpreter that has qonnx")
    parser.add_argument("--threads", type=int, default=1, help="of NumPy's matrix products")
    parser.add_argument("--json", type=Path, default=RESULTS / "golden.json")
    args = parser.parse_args()
    if os.environ.get(THREADS) != str(args.threads):  # It is read when NumPy is loaded.
        again = [sys.executable, *sys.argv]
        sys.exit(subprocess.call(again, env=os.environ | {THREADS: str(args.threads)}))

    record = Record(
        "Golden model: images per second",
        ("numpy",),
        [
            f"{args.threads} thread(s) in NumPy's matrix products; QONNX as it comes.",
            "float32 and popcount are plain NumPy. In brackets: how much faster golden is.",
        ],
    )
    record.write(
        args.json,
        measure(args.networks, args.qonnx, record),
        {
            "network": lambda row: row["network"],
            "batch": lambda row: f"{row['batch']:,}",
            "golden": lambda row: f"{row['golden']:,.0f}",
            "float32": beside("float32"),
            "popcount": beside("popcount"),
            "QONNX": beside("qonnx"),
        },
    )


if __name__ == "__main__":
    main()
