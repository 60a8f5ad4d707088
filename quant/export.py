"""From a trained float model to the integer network, by exact rational arithmetic.

Batch-norm, its gain and bias, and the sign that follows become one integer level for each channel
(Umuroglu et al., "FINN", 2017, section 4.2.2). Floats are rationals, so whether
``gain * (x - mean) / sqrt(variance) + bias >= 0`` is decided for an integer ``x`` without rounding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import isfinite
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from brambling.errors import ConfigError, Mismatch
from brambling.network import INPUT, ArgMax, Dense, Layer, Network, Tensor, Thresholds
from brambling.quant.formats import Bipolar, Fixed
from brambling.quant.layers import INK, BipolarLinear, BipolarMLP, sign
from brambling.quant.values import Norm

__all__ = ["ExportReport", "check_export", "evaluate", "export", "fold_falling", "norms_of"]

Edges = Mapping[str, NDArray[Any]]  #: Values of a network, ``(n, *shape)``, by edge.


def norms_of(norm: nn.BatchNorm1d | nn.BatchNorm2d, name: str) -> list[Norm]:
    """Channels of a trained batch-norm; ``name`` is for the error where a number is not finite."""
    parts = {
        "gain": norm.weight,
        "bias": norm.bias,
        "mean": norm.running_mean,
        "variance": norm.running_var,
    }
    numbers: dict[str, list[Fraction]] = {}
    for key, part in parts.items():
        assert part is not None  # affine and track_running_stats are BatchNorm1d's defaults
        values = part.detach().tolist()
        for channel, value in enumerate(values):
            if not isfinite(value):
                raise ConfigError(
                    f"{name}: {key} of channel {channel} must be finite, not {value}; "
                    "train with a lower rate"
                )
        numbers[key] = [Fraction(value) for value in values]
    numbers["variance"] = [value + Fraction(norm.eps) for value in numbers["variance"]]
    return [Norm(*values) for values in zip(*numbers.values(), strict=True)]


def levels(norms: Sequence[Norm], dense: Dense, x: Tensor) -> tuple[NDArray, NDArray]:
    """Levels ``(channels, 1)`` and falling ``(channels,)`` of the sums of ``dense`` over ``x``.

    A sum of products of -1 and +1 has the parity of their number: every second one can occur.
    """
    step = 2 if dense.fmt == x.fmt == Bipolar() else 1
    low, high = dense.bounds(x)
    spans = [range(int(a), int(b) + 1, step) for a, b in zip(low, high, strict=True)]
    rows = [norm.level(span) for norm, span in zip(norms, spans, strict=True)]
    return np.array([[level] for level, _ in rows]), np.array([falling for _, falling in rows])


def export(
    model: BipolarMLP,
    name: str,
    *,
    classes: Sequence[str] = (),
    normalisation: str = "",
    provenance: Mapping[str, Any] | None = None,
) -> Network:
    """Integer network of a trained model, bit for bit what the model computes without rounding.

    Its layers: ``binarise``, ``fc1``, ``act1``, … , the last dense layer, ``argmax``. No channel
    is falling: see :func:`fold_falling`.
    """
    x = Tensor((model.widths[0],), Bipolar())
    layers: list[Layer] = [binarise()]
    for index, dense in enumerate(model.dense, 1):
        assert isinstance(dense, BipolarLinear)
        weights = sign(dense.weight.detach()).numpy().astype(np.int8)
        fc = Dense(name=f"fc{index}", inputs=(layers[-1].name,), weights=weights, fmt=Bipolar())
        layers.append(fc)
        if index > len(model.norm):
            break
        norm = model.norm[index - 1]
        assert isinstance(norm, nn.BatchNorm1d)
        rows, falling = levels(norms_of(norm, f"act{index}"), fc, x)
        layers.append(
            Thresholds(
                name=f"act{index}", inputs=(fc.name,), levels=rows, falling=falling, fmt=Bipolar()
            )
        )
        x = Tensor((len(weights),), Bipolar())
    layers.append(ArgMax(name="argmax", inputs=(layers[-1].name,)))
    frame = Tensor((model.widths[0],), Fixed(8, 0, signed=False))
    return fold_falling(
        Network(name, frame, tuple(layers), tuple(classes), normalisation, provenance or {})
    )


def binarise() -> Thresholds:
    """First layer of every exported network: pixels of :data:`INK` and above are +1."""
    return Thresholds(
        name="binarise",
        inputs=(INPUT,),
        levels=np.array([[INK]]),
        falling=np.array([False]),
        fmt=Bipolar(),
    )


# Falling channels ---------------------------------------------------------------------------------


def fold_falling(network: Network) -> Network:
    """Equal network whose falling channels are rising, where a dense layer can take the sign.

    ``x <= T`` is ``-x >= -T``: the channel's row of weights and its levels are negated. Left as
    they are: channels whose input is not a dense layer's, or is read by another layer too or is the
    network's output, and channels with a weight whose negative is no code of the format.
    """
    new = {layer.name: layer for layer in network.layers}
    for layer in network.layers:
        if isinstance(layer, Thresholds) and layer.falling.any():
            source = new.get(layer.inputs[0])
            if isinstance(source, Dense) and len(network.consumers(source.name)) == 1:
                new[source.name], new[layer.name] = negated(source, layer)
    return replace(network, layers=tuple(new.values()))


def negated(dense: Dense, act: Thresholds) -> tuple[Dense, Thresholds]:
    """Both layers with the falling channels' signs moved from the levels into the weights."""
    weights = dense.weights.astype(np.int64)
    rows = np.broadcast_to(act.levels, (len(weights), act.levels.shape[1])).copy()
    falling = np.broadcast_to(act.falling, len(weights)).copy()
    least, most = dense.fmt.min, dense.fmt.max
    chosen = falling & (-weights >= least).all(axis=1) & (-weights <= most).all(axis=1)
    weights[chosen] *= -1
    rows[chosen] = -rows[chosen, ::-1]
    return replace(dense, weights=weights), replace(act, levels=rows, falling=falling & ~chosen)


# Checks -------------------------------------------------------------------------------------------


def evaluate(network: Network, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """Values at every edge, ``(n, *shape)``, of a network that :func:`export` made.

    Only for its kinds of layer, and exact for them: float32 holds sums of up to 2**24 signs.
    The meaning of a layer in general is the golden model's, :mod:`brambling.sim.golden`.
    """
    edges: dict[str, NDArray[Any]] = {INPUT: images.reshape(len(images), -1)}
    for layer in network.layers:
        x = edges[layer.inputs[0]]
        if isinstance(layer, Dense):
            sums = x.astype(np.float32) @ layer.weights.astype(np.float32).T
            edges[layer.name] = sums.astype(np.int32)
        elif isinstance(layer, Thresholds):
            level = layer.levels[:, 0]
            fires = np.where(layer.falling, x <= level, x >= level)
            edges[layer.name] = np.where(fires, np.int8(1), np.int8(-1))
        else:
            edges[layer.name] = x.argmax(axis=1)
    return edges


@dataclass(frozen=True)
class ExportReport:
    """What was compared, and what differed within rounding; anything else is a Mismatch.

    Parameters
    ----------
    images, bits
        Images, and hidden bits over all of them.
    ties
        By layer: bits that differ because the exact value is within float32's rounding of zero.
    carried
        Bits that differ further on in the float model because of ties in earlier layers.
    """

    images: int
    bits: int
    ties: Mapping[str, int]
    carried: int

    def __str__(self) -> str:
        ties = ", ".join(f"{name} {count}" for name, count in self.ties.items())
        return (
            f"{self.images:,} images: predictions equal; {self.bits:,} hidden bits equal "
            f"but for float ties ({ties}) and {self.carried} that follow from them"
        )


@torch.no_grad()
def check_export(
    model: BipolarMLP, network: Network, images: NDArray[np.uint8], edges: Edges
) -> ExportReport:
    """Compare the float model with the integer network on ``images``, uint8 ``(n, elements)``.

    Every layer of the float model is given the integer network's bits, so that each differing bit
    stands by itself and must be a provable tie (:meth:`Norm.is_tie`). Then the float model runs by
    itself from the pixels: its predictions must be equal, and so must every hidden bit of the
    images without a tie. The model is left in evaluation.

    Parameters
    ----------
    edges
        What the integer network gives for ``images``: the golden model's result.
    """
    model.eval()
    ties: dict[str, NDArray[np.bool_]] = {}
    x = edges["binarise"]
    for index, norm in enumerate(model.norm, 1):
        dense = model.dense[index - 1]
        assert isinstance(norm, nn.BatchNorm1d)
        sums = dense(floats(x))
        check_sums(network, f"fc{index}", dense, sums, edges)
        x = edges[f"act{index}"]
        ties[f"act{index}"] = find_ties(f"act{index}", norm, sums, x)
    tied = np.logical_or.reduce([found.any(axis=1) for found in ties.values()])
    differing = check_alone(model, images, edges, tied)
    counts = {name: int(found.sum()) for name, found in ties.items()}
    bits = sum(found.size for found in ties.values())
    return ExportReport(len(images), bits, counts, differing - sum(counts.values()))


def floats(x: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(x.astype(np.float32))


def check_sums(
    network: Network, name: str, dense: nn.Module, sums: torch.Tensor, edges: Edges
) -> None:
    """Require equal sums, but for the sign of the rows that :func:`fold_falling` negated."""
    layer = network.layer(name)
    assert isinstance(layer, Dense)
    assert isinstance(dense, BipolarLinear)
    weights = sign(dense.weight.detach()).numpy()
    flips = np.where(layer.weights[:, 0] == weights[:, 0], 1, -1)
    require_equal(f"{name}.weights", "row", layer.weights, weights * flips[:, np.newaxis])
    require_equal(name, "image", edges[name], sums.numpy() * flips)


def require_equal(what: str, row: str, actual: NDArray[Any], expected: NDArray[Any]) -> None:
    """Raise :class:`Mismatch` that names the first place where integer and float differ."""
    places = np.argwhere(actual != expected)
    if len(places):
        first = tuple(places[0])
        where = f"{row} {first[0]}" + (f", channel {first[1]}" if len(first) > 1 else "")
        raise Mismatch(
            f"{what}: {where} must be {expected[first]:g} as in the float model, "
            f"not {actual[first]} ({len(places)} differ)"
        )


def find_ties(
    name: str, norm: nn.BatchNorm1d, sums: torch.Tensor, bits: NDArray[Any]
) -> NDArray[np.bool_]:
    """Where the float model's bits differ; each is proved to be a tie, ``(n, channels)``."""
    differ = sign(norm(sums)).numpy() != bits
    exact = norms_of(norm, name)
    for image, channel in np.argwhere(differ):
        x = int(sums[image, channel])
        if not exact[channel].is_tie(x):
            raise Mismatch(
                f"{name}: image {image}, channel {channel} must be {-bits[image, channel]} as in "
                f"the float model, not {bits[image, channel]}, at the sum {x}, which is no tie"
            )
    return differ


def check_alone(
    model: BipolarMLP, images: NDArray[np.uint8], edges: Edges, tied: NDArray[np.bool_]
) -> int:
    """Run the float model from the pixels and compare; number of hidden bits that differ."""
    pixels = torch.from_numpy(images.reshape(len(images), -1).copy())
    sums = model.sums(model.binarise(pixels))
    require_equal("argmax", "image", edges["argmax"], sums[-1].argmax(dim=1).numpy())
    differing = 0
    for index, (norm, values) in enumerate(zip(model.norm, sums, strict=False), 1):
        bits = sign(norm(values)).numpy()
        differing += int((bits != edges[f"act{index}"]).sum())
        require_equal(f"act{index}", "untied image", edges[f"act{index}"][~tied], bits[~tied])
    return differing
