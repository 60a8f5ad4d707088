"""How near a quantised model is to the float model, layer by layer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brambling.quant.interchange import executor
from brambling.quant.interchange.graph import Graph
from brambling.quant.interchange.quantise_check import ACTIVATIONS, PRODUCTS
from brambling.quant.interchange.quantise_points import Points
from brambling.quant.interchange.quantise_radix import BATCH, Runs, decibels

__all__ = ["Layer", "Report", "Rounding", "compare", "watched"]


@dataclass(frozen=True)
class Rounding:
    """Codes of one tensor, and what they cost by themselves.

    Parameters
    ----------
    bits, signed
        Of a code.
    frac
        Radix points: one, or one for each output; a code ``n`` stands for ``n * 2**-frac``. Empty
        where the step is no power of two, which only the input's can be.
    step
        What a code of 1 stands for; the largest of several.
    clipped
        Share of the elements that lie beyond the outermost codes.
    sqnr
        Decibels; ``None`` where nothing is lost.
    """

    bits: int
    signed: bool
    frac: tuple[int, ...]
    step: float
    clipped: float
    sqnr: float | None

    def __str__(self) -> str:
        kind = f"{'s' if self.signed else 'u'}{self.bits}"
        if not self.frac:
            return kind
        low, high = min(self.frac), max(self.frac)
        return f"{kind}.{low}" if low == high else f"{kind}.{low}…{high}"


@dataclass(frozen=True)
class Layer:
    """A product, or another operation whose result is rounded, or the model's input.

    ``sqnr`` is that of its result in the quantised model against the float model, in decibels, with
    all that was lost before it; ``None`` where the two are equal.
    """

    name: str
    op: str
    weights: Rounding | None
    data: Rounding | None
    sqnr: float | None


@dataclass(frozen=True)
class Report:
    """A quantised model against its float model.

    Parameters
    ----------
    images
        How many: those that calibrated.
    agreement
        Share of them with the same class from both; ``None`` if the output is not classes.
    sqnr
        Of the output, in decibels.
    float_accuracy, accuracy
        Of the two models, where labels are known.
    layers
        In the order of the model.
    """

    images: int
    agreement: float | None
    sqnr: float | None
    float_accuracy: float | None
    accuracy: float | None
    layers: tuple[Layer, ...]


def rows_of(graph: Graph, points: Points) -> dict[str, tuple[str, str]]:
    """Return by row (a node, or the input) its operation and the tensor that tells of it.

    A product's tensor is the rounded one behind its activation, if there is one.
    """
    rows = {graph.input: ("input", points.first)}
    claimed = {points.first}
    for node in graph.nodes:
        tensor = node.outputs[0]
        if node.op in PRODUCTS:
            tensor = behind(graph, points, tensor)
        elif tensor not in points.group or tensor in claimed:
            continue
        claimed.add(tensor)
        rows[node.name] = (node.op, tensor)
    return rows


def behind(graph: Graph, points: Points, tensor: str) -> str:
    """Return the rounded tensor behind a product, or its result if there is none."""
    found = tensor
    while found not in points.group:
        readers = graph.consumers(found)
        if len(readers) != 1 or readers[0].op not in ACTIVATIONS:
            return tensor
        found = readers[0].outputs[0]
    return found


def watched(graph: Graph, points: Points) -> list[str]:
    """Return the tensors that are compared."""
    found = [*points.group, *(tensor for _, tensor in rows_of(graph, points).values())]
    return list(dict.fromkeys([*found, graph.output]))


class Comparison:
    """Sums over images, of tensors of both models."""

    def __init__(self) -> None:
        self.signal: dict[str, float] = {}
        self.noise: dict[str, float] = {}
        self.classes: list[tuple[NDArray, NDArray]] = []

    def add(self, floats: Mapping[str, NDArray], codes: Mapping[str, NDArray], output: str) -> None:
        for name, exact in floats.items():
            wide = exact.astype(np.float64)
            difference = wide - codes[name]
            self.signal[name] = self.signal.get(name, 0.0) + float(np.square(wide).sum())
            self.noise[name] = self.noise.get(name, 0.0) + float(np.square(difference).sum())
        if classified(floats[output]):
            self.classes.append((floats[output].argmax(axis=1), codes[output].argmax(axis=1)))

    def sqnr(self, name: str) -> float | None:
        return decibels(self.signal[name], self.noise[name])


def classified(output: NDArray) -> bool:
    """Whether an output, batch first, has a number for each of several classes."""
    return output.ndim == 2 and output.shape[1] > 1


def compare(
    runs: Runs,
    quantised: Graph,
    points: Points,
    data: Mapping[str, Rounding],
    weights: Mapping[str, Rounding],
    labels: NDArray | None,
    tell: Callable[[int], None],
) -> Report:
    """Execute the quantised model beside the float model.

    Parameters
    ----------
    runs
        The float model, with :func:`watched` tensors.
    quantised
        The same with rounding, and the same names of tensors.
    points
        What is rounded.
    data, weights
        How, by tensor and by product.
    labels
        Class of each image, if known.
    tell
        Told of how many images are done.
    """
    found, done = Comparison(), 0
    # What is rounded of the input has another name there: the input itself is not.
    renamed = {name: quantised_name(quantised, name) for name in runs.names}
    for floats in runs:
        part = runs.images[done : done + BATCH]
        codes = executor.execute(quantised, part, set(renamed.values()))
        found.add(floats, {name: codes[renamed[name]] for name in floats}, runs.graph.output)
        done += len(part)
        tell(done)
    layers = tuple(
        Layer(name, op, weights.get(name), data.get(tensor), found.sqnr(tensor))
        for name, (op, tensor) in rows_of(runs.graph, points).items()
    )
    agreement, before, after = shares(found.classes, labels)
    return Report(done, agreement, found.sqnr(runs.graph.output), before, after, layers)


def quantised_name(quantised: Graph, tensor: str) -> str:
    """Name of a tensor in the quantised model; of the input, that of its codes."""
    return quantised.consumers(tensor)[0].outputs[0] if tensor == quantised.input else tensor


def shares(
    classes: list[tuple[NDArray, NDArray]], labels: NDArray | None
) -> tuple[float | None, float | None, float | None]:
    """Return agreement, and both accuracies if there are labels."""
    if not classes:
        return None, None, None
    first, second = (np.concatenate(part) for part in zip(*classes, strict=True))
    agreement = float((first == second).mean())
    if labels is None:
        return agreement, None, None
    return agreement, float((first == labels).mean()), float((second == labels).mean())
