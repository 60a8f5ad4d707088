"""Post-training quantisation: a float model in ONNX becomes one in QONNX with dynamic precision.

After Qiu et al., "Going Deeper with Embedded FPGA Platform for Convolutional Neural Network"
(2016): the weights of every layer and every activation have a power-of-two step of their own,
chosen from data. Batch-norm goes into the weights first. Rounded are the model's input, all
weights, biases (to the step of the sums that they are added to), and each result that enters
another product, a sum of branches, a concatenation or an average. What enters one sum or one
concatenation has one step.

The steps of rounding are QONNX's ``IntQuant``, so the model goes down the road of imported ones.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import frexp
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.files import write_atomically
from brambling.quant.interchange import executor
from brambling.quant.interchange.graph import Graph
from brambling.quant.interchange.quantise_build import Builder, Codes, round_product
from brambling.quant.interchange.quantise_check import PRODUCTS, front
from brambling.quant.interchange.quantise_fold import fold, with_proto
from brambling.quant.interchange.quantise_points import Points, ends, find_points, first_point
from brambling.quant.interchange.quantise_radix import (
    Errors,
    Format,
    Runs,
    activation_errors,
    decibels,
)
from brambling.quant.interchange.quantise_report import Report, Rounding, compare, watched

__all__ = ["Quantised", "Settings", "quantise"]

Tell = Callable[[str, int, int], None]

LEAST, MOST = 2, 16  #: Bits of a code.
ENDS = 8  #: Bits of the ends of a network, unless its other layers have more.
INPUT_BITS = (8, 16)  #: Widths of integers that a model takes.


@dataclass(frozen=True)
class Settings:
    """How many bits.

    Parameters
    ----------
    weight_bits, activation_bits
        Of all layers, and of the results between them.
    ends
        Of the weights of the first and of the last layers, and of the input; the wider of 8 and
        the others' where not given.
    per_channel
        Whether each output of a layer has its own radix point of weights.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    ends: int | None = None
    per_channel: bool = False

    def __post_init__(self) -> None:
        for key in ("weight_bits", "activation_bits", "ends"):
            bits = getattr(self, key)
            if key == "ends" and bits is None:
                continue
            if type(bits) is not int or not LEAST <= bits <= MOST:
                raise ConfigError(f"{key}: must be {LEAST} to {MOST} bits, not {bits!r}")

    def at_end(self, bits: int) -> int:
        """Bits of what is at an end of the network, where others have ``bits``."""
        return max(ENDS, bits) if self.ends is None else self.ends


@dataclass(frozen=True, eq=False)
class Quantised:
    """A quantised model that can be executed, and how near to the float model it is."""

    graph: Graph
    report: Report

    def save(self, path: Path) -> None:
        """Write the model as ONNX; equal models give equal bytes."""
        write_atomically(path, self.graph.proto.SerializeToString(deterministic=True))


def silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def quantise(
    graph: Graph,
    images: NDArray,
    settings: Settings | None = None,
    *,
    input_scale: float | None = None,
    labels: NDArray | None = None,
    progress: Tell = silent,
) -> Quantised:
    """Round a float model's weights and activations, with radix points chosen from images.

    Parameters
    ----------
    graph
        A float model, from :func:`~brambling.quant.interchange.reader.read`.
    images
        Some hundred, batch first, as the model takes them; integers if ``input_scale`` is given.
    settings
        How many bits; 8 by default.
    input_scale
        Real value of one step of the images: the model's input is ``images * input_scale``. If
        the model has no constants of its own to do that, its input's codes have this step.
    labels
        Class of each image, for the accuracy.
    progress
        Told what is being done, how much, of how much.
    """
    settings = settings or Settings()
    exact = fold(graph)
    x, known = inputs_of(graph, images, input_scale)
    labels = None if labels is None else labels_of(graph, labels, len(x))
    first = first_point(exact)
    known = known if first == exact.input else None
    points = find_points(exact, known.format.signed if known else negative(exact, first, x))
    names = watched(exact, points)
    runs = Runs(with_proto(exact), x, names, lambda done: progress("float model", done, len(x)))
    data = choose(exact, points, runs, settings, known)
    outer = ends(exact)
    weights = {
        node.name: round_product(
            exact,
            node,
            data[points.source[node.inputs[0]]].step,
            Format(width(settings, node.name in outer), signed=True),
            settings.per_channel,
        )
        for node in exact.nodes
        if node.op in PRODUCTS
    }
    made = with_proto(Builder(exact, data, weights).graph)
    report = compare(
        runs,
        made,
        points,
        {name: codes.rounding for name, codes in data.items()},
        {name: product.rounding for name, product in weights.items()},
        labels,
        lambda done: progress("quantised model", done, len(x)),
    )
    return Quantised(made, report)


def width(settings: Settings, outer: bool) -> int:
    """Bits of a product's weights."""
    return settings.at_end(settings.weight_bits) if outer else settings.weight_bits


def negative(graph: Graph, first: str, x: NDArray) -> bool:
    """Whether what is rounded first is negative for some image."""
    nodes = front(graph)
    if nodes:
        x = executor.execute(with_proto(replace(graph, nodes=tuple(nodes), output=first)), x)[first]
    return bool(x.min() < 0)


# Images -------------------------------------------------------------------------------------------


def inputs_of(
    graph: Graph, images: NDArray, input_scale: float | None
) -> tuple[NDArray[np.float32], Codes | None]:
    """Return the model's inputs, and their codes if they are integers."""
    shape = graph.shapes[graph.input][1:]
    if images.dtype.kind not in "iuf":
        raise ConfigError(f"calibration: must be integers or floats, not {images.dtype}")
    if not images.size or not images.ndim:
        raise ConfigError(f"calibration: must be one or more images, not an array {images.shape}")
    if plain(images.shape[1:]) != plain(shape):
        raise ConfigError(
            f"calibration: images must be {shape}, as {graph.name} takes them, "
            f"not {images.shape[1:]}; the first dimension is the image"
        )
    images = images.reshape(len(images), *shape)
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise ConfigError("calibration: images must be finite, not NaN or infinity")
    if (images == images.flat[0]).all():
        raise ConfigError(f"calibration: images must differ, but all is {images.flat[0]:g}")
    if images.dtype.kind == "f":
        if input_scale is not None:
            raise ConfigError(
                f"--input-scale: belongs to images of integers, but these are {images.dtype}; "
                "leave it out"
            )
        return images.astype(np.float32), None
    return integers_of(images, input_scale)


def plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape without dimensions of one element."""
    return tuple(size for size in shape if size != 1)


def integers_of(images: NDArray, scale: float | None) -> tuple[NDArray[np.float32], Codes]:
    """Return the inputs that integers stand for, and their codes."""
    if scale is None:
        raise ConfigError(
            "calibration: images of integers need --input-scale, the real value of one step "
            "(1 if the model takes the integers as they are)"
        )
    step = float(np.float32(scale))
    if not 0 < step < np.inf:
        raise ConfigError(f"--input-scale: must be positive and finite, not {scale!r}")
    low, high = int(images.min()), int(images.max())
    for bits in INPUT_BITS:
        fmt = Format(bits, signed=low < 0)
        if fmt.low <= low and high <= fmt.high:
            fraction, exponent = frexp(step)
            frac = (1 - exponent,) if fraction == 0.5 else ()
            rounding = Rounding(bits, fmt.signed, frac, step, 0.0, None)
            return images.astype(np.float32) * np.float32(step), Codes(fmt, step, rounding)
    raise ConfigError(
        f"calibration: integers must have at most {INPUT_BITS[-1]} bits, not {low} to {high}"
    )


def labels_of(graph: Graph, labels: NDArray, images: int) -> NDArray:
    """Return labels if they are classes of the model, one for each image."""
    output = graph.shapes[graph.output]
    if len(output) != 2 or output[1] < 2:
        raise ConfigError(f"labels: {graph.name} gives {output}, not a number for each class")
    if labels.dtype.kind not in "iu" or labels.shape != (images,):
        raise ConfigError(
            f"labels: must be one integer for each of {images} images, "
            f"not {labels.dtype} {labels.shape}"
        )
    wrong = labels[(labels < 0) | (labels >= output[1])]
    if len(wrong):
        raise ConfigError(f"labels: must be 0 to {output[1] - 1}, not {wrong[0]}")
    return labels


# Codes --------------------------------------------------------------------------------------------


def choose(
    graph: Graph, points: Points, runs: Runs, settings: Settings, known: Codes | None
) -> dict[str, Codes]:
    """Choose the radix point of each activation; the input's is known if it is of integers."""
    formats = {
        name: Format(
            settings.at_end(settings.activation_bits)
            if name == points.first
            else settings.activation_bits,
            signed,
        )
        for name, signed in points.signed.items()
        if known is None or name != graph.input
    }
    fixed = {} if known is None else fixed_points(graph, points, known)
    errors = activation_errors(runs, formats, points.group, fixed)
    totals: dict[str, dict[int, float]] = {}
    for name, cost in errors.items():
        total = totals.setdefault(points.group[name], dict.fromkeys(cost.squared, 0.0))
        for frac, error in cost.squared.items():
            total[frac] += error
    best = {root: min(total, key=total.__getitem__) for root, total in totals.items()}
    chosen = {
        name: coded(formats[name], best[points.group[name]], cost) for name, cost in errors.items()
    }
    return chosen if known is None else {graph.input: known, **chosen}


def fixed_points(graph: Graph, points: Points, known: Codes) -> dict[str, int]:
    """Return the radix point of what is added to the input or joined with it, if anything is."""
    root = points.group[graph.input]
    others = [name for name, other in points.group.items() if other == root and name != graph.input]
    if others and not known.rounding.frac:
        raise ConfigError(
            f"--input-scale: must be a power of two, since {others[0]} is added to the input or "
            f"joined with it, not {known.step:g}; give images of floats"
        )
    return {root: known.rounding.frac[0]} if others else {}


def coded(fmt: Format, frac: int, cost: Errors) -> Codes:
    """Return an activation's codes with the radix point that was chosen."""
    step = float(np.ldexp(1.0, -frac))
    sqnr = decibels(cost.signal, cost.squared[frac])
    clipped = cost.clipped[frac] / cost.elements
    return Codes(fmt, step, Rounding(fmt.bits, fmt.signed, (frac,), step, clipped, sqnr))
