"""The golden model: the one definition of what every layer computes.

Integers in, integers out, exactly. Where a matrix product in floating point is provably exact it
is used, since it is many times faster than NumPy's integer product: every partial sum is an integer
below 2**24 (float32) or 2**53 (float64).
"""

from collections.abc import Callable, Iterator, Mapping
from functools import singledispatch
from math import prod

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError, UnsupportedLayer
from brambling.layers import (
    Add,
    ArgMax,
    Concat,
    Conv,
    Dense,
    DepthToSpace,
    Flatten,
    Layer,
    Pool,
    Requantise,
    Slice,
    Table,
    Tensor,
    Thresholds,
    Upsample,
)
from brambling.layers.product import Product
from brambling.network import INPUT, Network
from brambling.quant.formats import Bipolar, Fixed
from brambling.sim.golden_window import convolve, pool

__all__ = ["accuracy", "evaluate", "frames", "run"]

BATCH = 1024  #: Most frames evaluated at a time.
ELEMENTS = 1 << 20  #: Most elements of an edge at a time; bounds the memory of a long run.
FEW = 8  #: Most levels of a channel that are compared one by one; more are searched.


def frames(network: Network, images: NDArray) -> NDArray:
    """Check images and shape them as frames of ``network``: ``(n, *input.shape)``.

    Takes any array of ``n`` images of the right number of elements, ``(n, 28, 28)`` for
    ``(784,)``.
    """
    tensor = network.input
    if images.ndim < 2 or images[:1].size != tensor.size:
        shape = "x".join(map(str, images.shape[1:]))
        if images.size == 0:
            raise ConfigError(f"{network.name} needs at least one image, not an empty batch")
        raise ConfigError(
            f"{network.name} takes images of {tensor.size} values ({tensor}), "
            f"not {shape or 'a single number'}"
        )
    if len(images) == 0:
        raise ConfigError(f"{network.name} needs at least one image, not an empty batch")
    if images.dtype.kind not in "iu":
        raise ConfigError(
            f"{network.name} takes images of integers ({tensor.fmt}), not {images.dtype}"
        )
    if not tensor.fmt.holds(images):
        raise ConfigError(
            f"{network.name} takes values from {tensor.fmt.min} to {tensor.fmt.max}, "
            f"not {int(images.min())} to {int(images.max())}"
        )
    return images.reshape(len(images), *tensor.shape)


@singledispatch
def evaluate(layer: Layer, tensors: tuple[Tensor, ...], *values: NDArray) -> NDArray:
    """Compute ``layer`` on arrays ``(n, *shape)`` of codes; ``tensors`` describe its inputs.

    Exact, in any type that holds the result.
    """
    known = ", ".join(t.__name__ for t in evaluate.registry if t is not object)
    raise UnsupportedLayer(
        f"{layer.name}: {type(layer).__name__} has no golden model; {known} have"
    )


def exact_float(layer: Product, x: Tensor) -> type[np.floating] | None:
    """Narrowest float type in which every partial sum of the product is exact, if any."""
    largest = max(-x.fmt.min, x.fmt.max)
    bound = layer.matrix.shape[1] * max(-layer.fmt.min, layer.fmt.max) * largest
    if bound >= 1 << 24:  # Else there is no need to look at the weights, which takes long.
        bound = int(np.abs(layer.matrix.astype(np.int64)).sum(axis=1).max()) * largest
    if bound < 1 << 24:
        return np.float32
    return np.float64 if bound < 1 << 53 else None


@evaluate.register
def _(layer: Dense, tensors: tuple[Tensor, ...], values: NDArray) -> NDArray:
    exact = exact_float(layer, tensors[0]) or np.int64
    return values.reshape(len(values), -1).astype(exact) @ layer.weights.T.astype(exact)


@evaluate.register
def _(layer: Conv, tensors: tuple[Tensor, ...], values: NDArray) -> NDArray:
    return convolve(layer, values, exact_float(layer, tensors[0]) or np.int64)


@evaluate.register
def _(layer: Pool, tensors: tuple[Tensor, ...], values: NDArray) -> NDArray:
    return pool(layer, tensors[0], values, layer.output(*tensors).fmt.dtype)


@evaluate.register
def _(layer: Thresholds, tensors: tuple[Tensor, ...], values: NDArray) -> NDArray:
    low, high = tensors[0].fmt.min - 1, tensors[0].fmt.max
    # Every comparison as x > limit: T <= x is x > T - 1, and x <= T is its opposite for T.
    limits = np.where(layer.falling[:, None], layer.levels, np.maximum(layer.levels, low + 1) - 1)
    near = Fixed.spanning(low, high).dtype
    limits = np.clip(limits, low, high).astype(near)
    n = limits.shape[1]
    counts = (compare if n <= FEW else look_up)(limits, values.astype(near, copy=False))
    # Codes by count: up from the smallest, or down from what n levels give.
    bipolar, dtype = layer.fmt == Bipolar(), layer.fmt.dtype
    step = np.where(layer.falling, -1, 1) * (2 if bipolar else 1)
    zero = np.where(layer.falling, 1 if bipolar else layer.fmt.min + n, layer.fmt.min)
    # On its way a code may wrap around, in the end it fits.
    return counts.astype(dtype) * step.astype(dtype) + zero.astype(dtype)


def compare(limits: NDArray, values: NDArray) -> NDArray[np.unsignedinteger]:
    """Count the limits of its channel that each value exceeds: one limit after the other."""
    counts = np.zeros(values.shape, np.min_scalar_type(limits.shape[1]))
    for limit in limits.T:
        counts += values > limit
    return counts


def look_up(limits: NDArray, values: NDArray) -> NDArray[np.unsignedinteger]:
    """Count as :func:`compare`, from a table of all results where that is worth while."""
    low, high = int(limits.min()), min(int(limits.max()) + 1, (1 << 63) - 1)
    shape = high - low + 1, len(limits)
    if prod(shape) > values.size:
        return search(limits, values)
    table = search(limits, np.broadcast_to(low + np.arange(shape[0])[:, None], shape))
    places = np.clip(values.astype(np.intp), low, high)
    places -= low
    places *= len(limits)
    places += np.arange(len(limits))
    return table.reshape(-1)[places]


def search(limits: NDArray, values: NDArray) -> NDArray[np.unsignedinteger]:
    """Count as :func:`compare`, by a binary search in each channel."""
    counts = np.empty(values.shape, np.min_scalar_type(limits.shape[1]))
    for channel, row in enumerate(limits):
        here = (..., channel) if len(limits) > 1 else ...
        counts[here] = np.searchsorted(row, values[here])
    return counts


@evaluate.register
def _(layer: Requantise, tensors: tuple[Tensor, ...], values: NDArray) -> NDArray:
    low, high = layer.limits
    largest = max(layer.largest(tensors[0]), -low, high + 1)
    exact = np.int32 if largest < 1 << 31 else np.int64
    x = values.astype(exact) * layer.multiplier.astype(exact) + layer.bias.astype(exact)
    if layer.slope != (1, 1):
        x *= np.where(x >= 0, *(np.asarray(n, exact) for n in layer.slope))
    if layer.shift:
        half = 1 << layer.shift - 1
        match layer.rounding:
            case "half_up":
                x += half
            case "half_even":  # A half goes up where what is below it is odd.
                x += (half - 1) + ((x >> layer.shift) & 1)
            case "half_away":
                x += half - (x < 0)
    x >>= layer.shift
    return np.clip(x, low, high).astype(layer.fmt.dtype)


@evaluate.register
def _(layer: Table, tensors: tuple[Tensor, ...], values: NDArray) -> NDArray:
    fmt = tensors[0].fmt
    places = values > 0 if fmt == Bipolar() else values.astype(np.int16) - fmt.min
    return layer.entries.astype(layer.fmt.dtype)[places.astype(np.intp)]


def aligned(layer: Add | Concat, tensors: tuple[Tensor, ...], values: tuple) -> list[NDArray]:
    """Return inputs with one radix point, in the type of the result."""
    dtype = layer.output(*tensors).fmt.dtype
    shifts = layer.shifts(*tensors)
    return [x.astype(dtype) << shift for x, shift in zip(values, shifts, strict=True)]


@evaluate.register
def _(layer: Add, tensors: tuple[Tensor, ...], *values: NDArray) -> NDArray:
    first, *others = aligned(layer, tensors, values)
    for x in others:
        first += x
    return first


@evaluate.register
def _(layer: Concat, tensors: tuple[Tensor, ...], *values: NDArray) -> NDArray:
    return np.concatenate(aligned(layer, tensors, values), axis=-1)


@evaluate.register
def _(layer: Slice, tensors: tuple[Tensor, ...], values: NDArray) -> NDArray:
    return values[..., layer.start : layer.stop]


@evaluate.register
def _(layer: Upsample, tensors: tuple[Tensor, ...], values: NDArray) -> NDArray:
    return values.repeat(layer.factor[0], axis=1).repeat(layer.factor[1], axis=2)


@evaluate.register
def _(layer: DepthToSpace, tensors: tuple[Tensor, ...], values: NDArray) -> NDArray:
    n, height, width, _ = values.shape
    pixels = values.reshape(n, height, width, *layer.block, -1).swapaxes(2, 3)
    return pixels.reshape(n, height * layer.block[0], width * layer.block[1], -1)


@evaluate.register
def _(layer: Flatten, tensors: tuple[Tensor, ...], values: NDArray) -> NDArray:
    return values.reshape(len(values), -1)


@evaluate.register
def _(layer: ArgMax, tensors: tuple[Tensor, ...], values: NDArray) -> NDArray:
    return values.argmax(axis=1)


def batches(network: Network, images: NDArray) -> Iterator[dict[str, NDArray]]:
    largest = max(tensor.size for tensor in network.tensors.values())
    step = max(1, min(BATCH, ELEMENTS // largest))
    for start in range(0, len(images), step):
        edges = {INPUT: images[start : start + step]}
        for layer in network.layers:
            values = (edges[name] for name in layer.inputs)
            found = evaluate(layer, network.inputs_of(layer), *values)
            edges[layer.name] = found.astype(network.tensors[layer.name].fmt.dtype, copy=False)
        yield edges


def run(
    network: Network,
    images: NDArray,
    *,
    edges: tuple[str, ...] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Mapping[str, NDArray]:
    """Run ``network`` on images ``(n, …)``; return the edges by name, each ``(n, *shape)``.

    Parameters
    ----------
    edges
        Which edges to keep; all where ``None``.
    progress
        Called with the number of frames after each batch.
    """
    images = frames(network, images)
    keep = tuple(network.tensors) if edges is None else edges
    parts: dict[str, list[NDArray]] = {name: [] for name in keep}
    for batch in batches(network, images):
        for name in keep:
            parts[name].append(batch[name])
        if progress:
            progress(len(batch[INPUT]))
    return {name: np.concatenate(part) for name, part in parts.items()}


def accuracy(network: Network, images: NDArray, labels: NDArray) -> float:
    """Fraction of images whose class the network finds."""
    if len(labels) != len(images):
        raise ConfigError(f"{len(images)} images need {len(images)} labels, not {len(labels)}")
    output = network.layers[-1].name
    return float(np.mean(run(network, images, edges=(output,))[output] == labels))
