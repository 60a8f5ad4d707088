"""The golden model: the one definition of what every layer computes.

Integers in, integers out, exactly. Where a matrix product in floating point is provably exact it
is used, since it is many times faster than NumPy's integer product: every partial sum is an integer
below 2**24 (float32) or 2**53 (float64).
"""

from collections.abc import Callable, Iterator, Mapping
from functools import singledispatch

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError, UnsupportedLayer
from brambling.network import INPUT, ArgMax, Dense, Layer, Network, Tensor, Thresholds
from brambling.quant.formats import Bipolar

__all__ = ["accuracy", "evaluate", "frames", "run"]

BATCH = 1024  #: Frames evaluated at a time; bounds the memory that a long run needs.


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
def evaluate(layer: Layer, x: Tensor, *inputs: NDArray) -> NDArray:
    """Compute ``layer`` on arrays ``(n, *shape)`` of codes; ``x`` describes its first input.

    Exact, in any type that holds the result.
    """
    known = ", ".join(t.__name__ for t in evaluate.registry if t is not object)
    raise UnsupportedLayer(
        f"{layer.name}: {type(layer).__name__} has no golden model; {known} have"
    )


def exact_float(layer: Dense, x: Tensor) -> type[np.floating] | None:
    """Narrowest float type in which every partial sum of the product is exact, if any."""
    largest = max(-x.fmt.min, x.fmt.max)
    bound = layer.weights.shape[1] * max(-layer.fmt.min, layer.fmt.max) * largest
    if bound >= 1 << 24:  # Else there is no need to look at the weights, which takes long.
        bound = int(np.abs(layer.weights.astype(np.int64)).sum(axis=1).max()) * largest
    if bound < 1 << 24:
        return np.float32
    return np.float64 if bound < 1 << 53 else None


@evaluate.register
def _(layer: Dense, x: Tensor, values: NDArray) -> NDArray:
    exact = exact_float(layer, x) or np.int64
    return values.reshape(len(values), -1).astype(exact) @ layer.weights.T.astype(exact)


@evaluate.register
def _(layer: Thresholds, x: Tensor, values: NDArray) -> NDArray:
    bipolar = layer.fmt == Bipolar()
    codes = np.full(values.shape, 0 if bipolar else layer.fmt.min, layer.fmt.dtype)
    for level in layer.levels.T:
        reached = values >= level
        if layer.falling.any():
            reached = np.where(layer.falling, values <= level, reached)
        codes += reached
    return 2 * codes - 1 if bipolar else codes


@evaluate.register
def _(layer: ArgMax, x: Tensor, values: NDArray) -> NDArray:
    return values.argmax(axis=1)


def batches(network: Network, images: NDArray) -> Iterator[dict[str, NDArray]]:
    for start in range(0, len(images), BATCH):
        edges = {INPUT: images[start : start + BATCH]}
        for layer in network.layers:
            tensor = network.tensors[layer.inputs[0]]
            values = evaluate(layer, tensor, *(edges[n] for n in layer.inputs))
            edges[layer.name] = values.astype(network.tensors[layer.name].fmt.dtype, copy=False)
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
