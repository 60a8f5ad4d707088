"""Dynamic-precision fixed point: a radix point for each layer, chosen from data.

After Qiu et al., "Going Deeper with Embedded FPGA Platform for Convolutional Neural Network"
(2016), section 5: every layer's weights get the radix point with the smallest error; then, layer by
layer, every activation gets the one with which the fixed-point network, rounded up to there, is
nearest to the float network. *Static* precision, for comparison, is one radix point for all weights
and one for all activations.

Codes are those of :class:`~brambling.quant.quantiser.Quantiser` by method ``radix``. Activations
lie behind a ReLU and are unsigned; pixels keep their 8 bits; sums are exact; biases are rounded to
the step of the sums.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from math import floor, log2

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brambling.errors import ConfigError
from brambling.quant.layers import QuantActivation, QuantConv2d, QuantLinear
from brambling.quant.models import bind_biases
from brambling.quant.quantiser import Quantiser

__all__ = ["Bits", "Choice", "Point", "Precision", "Row", "apply", "search", "static", "table"]

CALIBRATION = 256  #: Images that choose the radix points.
BATCH = 250  #: Images evaluated at a time.
BEFORE = 2  #: Radix points tried left of the one that leaves no code unused,
TRIALS = 10  #: and in all.
WIDTHS = (16, 8, 6, 4)


@dataclass(frozen=True, slots=True)
class Bits:
    """Bits of a code: weights of convolutions, weights of dense layers, activations."""

    conv: int
    dense: int
    data: int

    def __post_init__(self) -> None:
        for key, least in (("conv", 2), ("dense", 2), ("data", 1)):
            value = getattr(self, key)
            if type(value) is not int or not least <= value <= 16:
                raise ConfigError(f"{key}: bits must be {least} to 16, not {value!r}")

    @property
    def weights(self) -> str:
        """As in the paper's tables: ``"8"``, or ``"8 or 4"`` for convolutions and dense layers."""
        return str(self.conv) if self.conv == self.dense else f"{self.conv} or {self.dense}"


@dataclass(frozen=True, slots=True)
class Point:
    """Codes of ``bits`` bits; a code ``n`` stands for ``n * 2**-frac``."""

    bits: int
    frac: int


@dataclass(frozen=True)
class Choice:
    """Radix points by the names of a model's modules: of weights, and of activations (data)."""

    weights: Mapping[str, Point]
    data: Mapping[str, Point] = field(default_factory=dict)


# Models -------------------------------------------------------------------------------------------


def products(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Convolutions and dense layers by name; refuse weights that are not finite."""
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    if not found:
        raise ConfigError(f"{type(model).__name__}: has no Conv2d and no Linear to round")
    for name, module in found.items():
        if isinstance(module, QuantConv2d | QuantLinear):
            raise ConfigError(f"{name}: must be a float layer, not {type(module).__name__}")
        for key, part in module.named_parameters(recurse=False):
            wrong = part.detach()[~part.detach().isfinite()]
            if len(wrong):
                raise ConfigError(
                    f"{name}.{key}: must be finite, not {wrong[0].item()}; train with a lower rate"
                )
    return found


def apply(model: nn.Module, choice: Choice) -> nn.Module:
    """Copy of a float model with quantised layers, to evaluate, to export or to train further.

    Every ``Conv2d`` and ``Linear`` becomes a :class:`~brambling.quant.layers.QuantConv2d` or
    :class:`~brambling.quant.layers.QuantLinear` with the same weights, every ``ReLU`` that the
    choice names a :class:`~brambling.quant.layers.QuantActivation`. Biases are rounded to the step
    of the sums where the model is an ``nn.Sequential``; else they stay as they are.
    """
    made = copy.deepcopy(model)
    for name, point in choice.weights.items():
        made.set_submodule(name, rounded(made.get_submodule(name), point))
    for name, point in choice.data.items():
        quantiser = Quantiser(point.bits, signed=False, method="radix", frac=point.frac)
        made.set_submodule(name, QuantActivation(quantiser, relu=True))
    if isinstance(made, nn.Sequential):
        bind_biases(made)
    return made.train(model.training)


def rounded(module: nn.Module, point: Point) -> nn.Module:
    """Convolution or dense layer with rounded weights in place of a float one."""
    quantiser = Quantiser(point.bits, signed=True, method="radix", frac=point.frac)
    made: nn.Module
    if isinstance(module, nn.Conv2d):
        made = QuantConv2d(1, 1, 1, quantiser=quantiser)
    else:
        made = QuantLinear(1, 1, quantiser=quantiser)
    # All but what the quantised layer has of its own: the shape, and the parameters themselves.
    own = {"_buffers", "_modules"}
    made.__dict__.update({key: value for key, value in vars(module).items() if key not in own})
    return made


def pixels_of(images: NDArray, what: str) -> Tensor:
    """Images ``(n, rows, columns[, channels])`` as ``(n, channels, rows, columns)``."""
    if images.ndim not in {3, 4} or not len(images):
        raise ConfigError(
            f"{what}: must be one or more images (n, rows, columns, channels), not {images.shape}"
        )
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise ConfigError(f"{what}: pixels must be finite, not NaN or infinity")
    images = images[..., np.newaxis] if images.ndim == 3 else images
    return torch.from_numpy(np.moveaxis(images, -1, 1).copy())


def batches(x: Tensor) -> Iterator[Tensor]:
    return iter(x.split(BATCH))


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    """Logits of all images, float ``(n, classes)``."""
    return torch.cat([model(part) for part in batches(x)])


def results(model: nn.Module, names: set[str], x: Tensor) -> dict[str, Tensor]:
    """Return what the named modules give for all images, in the order in which they are called."""
    found: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        return lambda module, inputs, result: found.setdefault(name, []).append(result.clone())

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    outputs(model, x)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(parts) for name, parts in found.items()}


def float_data(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Float activations behind each ReLU, in order; refuse those in which nothing happens."""
    if bool((x == x[:1]).all()) and bool((x == x.flatten()[0]).all()):
        raise ConfigError(
            f"calibration: images must differ, but every pixel is {x.flatten()[0].item():g}"
        )
    names = {name for name, module in model.named_modules() if isinstance(module, nn.ReLU)}
    if not names:
        raise ConfigError(f"{type(model).__name__}: has no nn.ReLU, behind which data is rounded")
    found = results(model, names, x)
    for name, values in found.items():
        if not bool(values.isfinite().all()):
            raise ConfigError(f"{name}: activations must be finite, not NaN or infinity")
        if not bool((values > 0).any()):
            raise ConfigError(
                f"{name}: no calibration image makes this activation positive; "
                "use other images, or train the model"
            )
    return found


# Radix points -------------------------------------------------------------------------------------


def trials(values: Tensor, bits: int, signed: bool) -> range:
    """Radix points worth trying: around the last that clips nothing, most to its right."""
    largest = float(values.abs().max())
    high = (1 << bits - signed) - 1
    first = floor(log2(high / largest)) - BEFORE if largest else 0
    return range(first, first + TRIALS)


def best(target: Tensor, values: Tensor, bits: int, signed: bool) -> Point:
    """Radix point with which rounded ``values`` have the smallest summed distance to ``target``."""

    def error(frac: int) -> float:
        quantiser = Quantiser(bits, signed=signed, method="radix", frac=frac)
        return float((quantiser(values) - target).abs().sum(dtype=torch.float64))

    return Point(bits, min(trials(values, bits, signed), key=error))


def widths(found: Mapping[str, nn.Module], bits: Bits) -> dict[str, int]:
    """Bits of each product's weights."""
    return {
        name: bits.conv if isinstance(module, nn.Conv2d) else bits.dense
        for name, module in found.items()
    }


@torch.no_grad()
def search(model: nn.Module, images: NDArray, bits: Bits) -> Choice:
    """Choose a radix point for each layer's weights and for each activation.

    Parameters
    ----------
    model
        A float model; activations are its ``nn.ReLU`` modules. Used in evaluation.
    images
        Some hundred images, ``(n, rows, columns[, channels])``; labels are not needed.
    """
    model = copy.deepcopy(model).eval()
    found, x = products(model), pixels_of(images, "calibration")
    known = float_data(model, x)
    return greedy(model, x, known, widths(found, bits), bits.data)


def greedy(
    model: nn.Module, x: Tensor, known: Mapping[str, Tensor], wide: Mapping[str, int], data: int
) -> Choice:
    """Search layer by layer, with the float activations known."""
    found = products(model)
    weights = {
        name: best(module.weight, module.weight, wide[name], signed=True)
        for name, module in found.items()
    }
    choice = Choice(weights)
    for name, target in known.items():
        # Rounded up to here, float from here on.
        values = results(apply(model, choice), {name}, x)[name]
        choice = replace(
            choice, data={**choice.data, name: best(target, values, data, signed=False)}
        )
    return choice


@torch.no_grad()
def static(model: nn.Module, images: NDArray, bits: Bits) -> Choice:
    """Choose one radix point for all weights, and one for all activations.

    Both are those with the smallest squared error of the logits: first the weights', with float
    activations, then the activations'. Layers of different width share the place of the point.
    """
    model = copy.deepcopy(model).eval()
    found, x = products(model), pixels_of(images, "calibration")
    return uniform(model, x, float_data(model, x), widths(found, bits), bits.data)


def uniform(
    model: nn.Module, x: Tensor, known: Mapping[str, Tensor], wide: Mapping[str, int], data: int
) -> Choice:
    """Search statically, with the float activations known."""
    found, logits = products(model), outputs(model, x)

    def error(choice: Choice) -> float:
        difference = outputs(apply(model, choice), x) - logits
        return float(difference.square().sum(dtype=torch.float64))

    ranges = [trials(module.weight, wide[name], True) for name, module in found.items()]
    weights = [
        Choice({name: Point(wide[name], frac) for name in found})
        for frac in range(min(r[0] for r in ranges), max(r[0] for r in ranges) + TRIALS // 2)
    ]
    chosen = min(weights, key=error)
    ranges = [trials(values, data, False) for values in known.values()]
    places = range(min(r[0] for r in ranges), max(r[0] for r in ranges) + TRIALS // 2)
    return min(
        (replace(chosen, data=dict.fromkeys(known, Point(data, frac))) for frac in places),
        key=error,
    )


# Table --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A line of the table; ``bits`` and ``choice`` are ``None`` for the float model."""

    method: str
    bits: Bits | None
    accuracy: float
    choice: Choice | None

    @property
    def precision(self) -> tuple[str, str]:
        """Steps of data and of weights, as in the paper's table: ``2^-n`` or ``dynamic``."""
        if self.choice is None:
            return "-", "-"
        if self.method == "dynamic":
            return "dynamic", "dynamic"
        data, weights = (next(iter(p.values())) for p in (self.choice.data, self.choice.weights))
        return f"2^{-data.frac}", f"2^{-weights.frac}"


@dataclass(frozen=True)
class Precision:
    """Accuracy of a model by the precision of its numbers.

    Parameters
    ----------
    images, calibration
        Images that the accuracies are fractions of, and images that chose the radix points.
    rows
        Float; static and dynamic at each width; dynamic with 8 bits in convolutions, 4 in dense
        layers.
    """

    images: int
    calibration: int
    rows: tuple[Row, ...]


@torch.no_grad()
def table(
    model: nn.Module,
    images: NDArray,
    labels: NDArray,
    *,
    calibration: NDArray | None = None,
    widths_tried: tuple[int, ...] = WIDTHS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Precision:
    """Measure float, static and dynamic precision at several widths.

    Parameters
    ----------
    model
        A float model that takes pixels ``(n, channels, rows, columns)``; see :func:`search`.
    images, labels
        Test images ``(n, rows, columns[, channels])`` and their classes ``(n,)``.
    calibration
        Images that choose the radix points; the first 256 of ``images`` where ``None``.
    widths_tried
        Bits of data and weights; 8-bit data with weights of 8 or 4 bits comes besides.
    progress
        Called with rows done and rows in all.
    """
    if len(labels) != len(images):
        raise ConfigError(f"{len(images)} images need {len(images)} labels, not {len(labels)}")
    model = copy.deepcopy(model).eval()
    x, truth = pixels_of(images, "images"), torch.from_numpy(np.asarray(labels).astype(np.int64))
    samples = images[:CALIBRATION] if calibration is None else calibration
    found, seen = products(model), pixels_of(samples, "calibration")
    known = float_data(model, seen)

    def accuracy(made: nn.Module) -> float:
        return float((outputs(made, x).argmax(dim=1) == truth).double().mean())

    plans = [
        *((kind, Bits(n, n, n)) for n, kind in pairs(widths_tried)),
        ("dynamic", Bits(8, 4, 8)),
    ]
    rows = [Row("float", None, accuracy(model), None)]
    for kind, bits in plans:
        progress(len(rows), len(plans) + 1)
        choose = uniform if kind == "static" else greedy
        choice = choose(model, seen, known, widths(found, bits), bits.data)
        rows.append(Row(kind, bits, accuracy(apply(model, choice)), choice))
    progress(len(rows), len(plans) + 1)
    return Precision(len(x), len(seen), tuple(rows))


def pairs(numbers: tuple[int, ...]) -> Iterator[tuple[int, str]]:
    """Each number with both methods."""
    return chain.from_iterable(((n, "static"), (n, "dynamic")) for n in numbers)
