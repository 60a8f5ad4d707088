"""Steps of a float model as layers of integers: products, activations, poolings, joins.

Each function takes values with their exact meaning (:mod:`brambling.quant.values`), adds layers to
a :class:`Builder`, and returns the value that comes out.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from brambling.errors import ConfigError, UnsupportedLayer
from brambling.layers.product import Product
from brambling.network import (
    INPUT,
    Conv,
    Dense,
    Layer,
    Table,
    Tensor,
)
from brambling.quant.export import Norm
from brambling.quant.formats import Bipolar, Format
from brambling.quant.forms import TABLE_BITS, Steps, shifted, smallest
from brambling.quant.layers import QuantActivation, QuantConv2d, QuantLinear
from brambling.quant.quantiser import Quantiser
from brambling.quant.values import Bend, Value, linear, ramp

__all__ = ["Builder", "unsupported"]

FEW = 4  #: Levels from which a shift is sure to be smaller than comparisons.
Batchnorm = nn.BatchNorm1d | nn.BatchNorm2d


def unsupported(what: str, attribute: str, value: object, remedy: str) -> UnsupportedLayer:
    """Error for a step that has no layer; ``remedy`` is the nearest that has."""
    return UnsupportedLayer(f"{what}: {attribute} cannot be {value}: {remedy}")


def exact(numbers: torch.Tensor, what: str) -> list[Fraction]:
    """Floats as the rationals that they are; refuse what is not finite."""
    require_finite(numbers, what)
    return [Fraction(value) for value in numbers.detach().double().reshape(-1).tolist()]


def require_finite(numbers: torch.Tensor, what: str) -> None:
    """Refuse NaN and infinity, and name the first."""
    values = numbers.detach().reshape(-1)
    wrong = (~values.isfinite()).nonzero()
    if len(wrong):
        index = int(wrong[0])
        raise ConfigError(
            f"{what}: element {index} must be finite, not {values[index].item()}; "
            "train with a lower rate"
        )


def behind(norm: Norm, x: Norm, what: str) -> Norm:
    """Batch-norm of a value that is a scale times an integer plus an offset."""
    if not x.gain:
        raise unsupported(what, "input", "a constant", "drop one of the two layers")
    mean = x.mean + (norm.mean - x.bias) / x.gain
    return Norm(norm.gain * x.gain, norm.bias, mean, norm.variance)


def alike(norms: Sequence[Norm]) -> tuple[Norm, ...]:
    """One for all where all are the same."""
    return tuple(norms[:1] if all(norm == norms[0] for norm in norms) else norms)


class Builder:
    """Layers so far, by name, with the tensor that each makes.

    Names are a kind and a number, in the order of the model: ``conv1``, ``act1``, ``pool1``, ….
    """

    def __init__(self, frame: Tensor) -> None:
        self.layers: dict[str, Layer] = {}
        self.tensors = {INPUT: frame}
        self.counts: dict[str, int] = {}

    def input(self) -> Value:
        return Value.codes(INPUT, self.tensors[INPUT], [linear(Fraction(1))])

    def name(self, kind: str) -> str:
        """Return the next name of that kind."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return f"{kind}{self.counts[kind]}"

    def add(self, layer: Layer) -> Tensor:
        """Add a layer and infer its output."""
        self.tensors[layer.name] = layer.output(*(self.tensors[name] for name in layer.inputs))
        self.layers[layer.name] = layer
        return self.tensors[layer.name]

    # Products -------------------------------------------------------------------------------------

    def conv(self, module: QuantConv2d, x: Value, what: str) -> Value:
        """Convolution; zeros around it become the code that stands for 0."""
        if isinstance(module.padding, str) or module.padding_mode != "zeros":
            attribute, value = (
                ("padding", module.padding)
                if isinstance(module.padding, str)
                else ("padding_mode", module.padding_mode)
            )
            raise unsupported(what, attribute, repr(value), "use numbers and mode 'zeros'")
        down, across = module.padding
        zeros = self.zeros(x, what)
        pad_value = 0
        if down or across:
            pad_value = self.padded(x, zeros, what)
        layer = Conv(
            name=self.name("conv"),
            inputs=(x.edge,),
            weights=self.weights(module, what).transpose(0, 2, 3, 1),
            fmt=module.quantiser.fmt,
            stride=pair(module.stride),
            padding=(down, down, across, across),
            pad_value=pad_value,
            dilation=pair(module.dilation),
            groups=module.groups,
        )
        every = np.array(zeros, dtype=object)
        if len(every) > 1:
            # The channels that each output sees, in a row for each tap.
            outputs, rows, columns, channels = layer.weights.shape
            groups = np.repeat(every.reshape(module.groups, 1, channels), rows * columns, axis=1)
            every = np.repeat(groups.reshape(module.groups, -1), outputs // module.groups, axis=0)
        return self.product(module, layer, x, every, not (down or across), what)

    def dense(self, module: QuantLinear, x: Value, what: str) -> Value:
        """Dense layer; its columns follow the order of a flattened image."""
        if len(x.tensor.shape) != 1:
            raise unsupported(what, "input", x.tensor, "put a Flatten before it")
        weights = self.weights(module, what)
        if x.order is not None:
            weights = weights[:, x.order]
        layer = Dense(
            name=self.name("fc"), inputs=(x.edge,), weights=weights, fmt=module.quantiser.fmt
        )
        zeros = np.array(self.zeros(x, what), dtype=object)
        return self.product(module, layer, x, zeros, True, what)

    def weights(self, module: QuantConv2d | QuantLinear, what: str) -> NDArray[Any]:
        """Codes, after looking for numbers that are none."""
        require_finite(module.weight, f"{what}: weight")
        codes = module.quantiser.codes(module.weight.detach())
        return codes.numpy().astype(module.quantiser.fmt.dtype)

    def zeros(self, x: Value, what: str) -> list[Fraction]:
        """Integers that stand for 0, of each channel or one for all; refuse several scales."""
        if not x.plain or any(norm.gain != x.norms[0].gain for norm in x.norms):
            value = "unquantised" if not x.plain else "of a scale for each channel"
            raise unsupported(what, "input", value, "put a QuantActivation before it")
        if x.norms[0].gain <= 0:
            raise unsupported(what, "input", "negated", "put a QuantActivation before it")
        zeros = [norm.mean - norm.bias / norm.gain for norm in x.norms]
        return zeros[:1] if all(zero == zeros[0] for zero in zeros) else zeros

    def padded(self, x: Value, zeros: Sequence[Fraction], what: str) -> int:
        """Code that stands for the zeros around an image."""
        zero, fmt = zeros[0], x.tensor.fmt
        code = int(zero)
        inside = code == 0 or bool(fmt.holds(np.array(code)))
        if len(zeros) > 1 or code != zero or not inside:
            shown = "different codes" if len(zeros) > 1 else f"{float(zero):g}"
            raise unsupported(
                what, "padding", f"with zeros, which are {shown} of {fmt}",
                "use padding 0, or an offset that is a code",
            )  # fmt: skip
        return code

    def product(
        self,
        module: QuantConv2d | QuantLinear,
        layer: Conv | Dense,
        x: Value,
        zeros: NDArray,
        parity: bool,
        what: str,
    ) -> Value:
        """Add the layer; offsets of the input add a constant for each output."""
        tensor = self.add(layer)
        matrix = layer.matrix.astype(np.int64)
        means = [Fraction(0)] * len(matrix)
        if zeros.any():
            means = [Fraction(mean) for mean in (matrix * zeros).sum(axis=1).tolist()]
        scales = exact(module.quantiser.scale, f"{what}: scale")
        rounded = module.rounded_bias()
        biases = [Fraction(0)] if rounded is None else exact(rounded, f"{what}: bias")
        count, gain = len(matrix), x.norms[0].gain
        norms = [
            linear(scale * gain, mean, bias)
            for scale, mean, bias in zip(
                scales * (count // len(scales)),
                means,
                biases * (count // len(biases)),
                strict=True,
            )
        ]
        low, high = layer.bounds(x.tensor)
        stride = 2 if parity and layer.fmt == x.tensor.fmt == Bipolar() else 1
        return Value(layer.name, tensor, alike(norms), low, high, stride)

    # Elements -------------------------------------------------------------------------------------

    def norm(self, module: Batchnorm, x: Value, what: str) -> Value:
        """Batch-norm in evaluation: only the meaning changes."""
        if module.running_mean is None or module.running_var is None:
            raise unsupported(what, "track_running_stats", False, "use True")
        if not x.plain:
            raise unsupported(what, "input", "unquantised", "put a QuantActivation before it")
        full = module
        if not module.affine:
            full = type(module)(module.num_features, module.eps)
            full.running_mean, full.running_var = module.running_mean, module.running_var
        norms = ordered(Norm.of(full, what), x)
        pairs = zip(norms, x.each(), strict=True)
        return replace(x, norms=alike([behind(norm, old, what) for norm, old in pairs]))

    def scaled(self, x: Value, factor: Fraction, offset: Fraction, what: str) -> Value:
        """``(x - offset) * factor``, with a factor above 0: only the meaning changes."""
        if not x.plain:
            raise unsupported(what, "input", "unquantised", "put a QuantActivation before it")
        norms = [replace(n, gain=n.gain * factor, bias=(n.bias - offset) * factor) for n in x.norms]
        return replace(x, norms=tuple(norms))

    def bent(self, x: Value, bend: Bend, module: nn.Module) -> Value:
        """Rising function, exact: only the meaning changes."""
        return self.curved(x, module) if x.curve else replace(x, bends=(*x.bends, bend))

    def curved(self, x: Value, module: nn.Module, what: str = "") -> Value:
        """Any function of a code: a table, which the next activation makes."""
        fmt = x.tensor.fmt
        single = x.plain and len(x.norms) == 1 and fmt.width <= TABLE_BITS
        if not x.curve and not single:
            raise unsupported(
                what, "input", fmt, f"put a QuantActivation of at most {TABLE_BITS} bits before it"
            )
        return replace(x, curve=(*x.curve, module))

    def activation(self, module: QuantActivation, x: Value, what: str) -> Value:
        """Round to codes by the smallest exact layer; see :mod:`brambling.quant.forms`."""
        quantiser = module.quantiser
        signed_dorefa = quantiser.method == "dorefa" and quantiser.signed
        if quantiser.method == "ternary" or signed_dorefa:
            raise unsupported(what, "method", quantiser.method, "use lsq or radix")
        if quantiser.channels is not None:
            raise unsupported(what, "channels", quantiser.channels, "use one scale")
        (scale,) = exact(quantiser.scale, f"{what}: scale")
        least, fmt = quantiser.low, quantiser.fmt
        if x.curve:
            layer: Layer = self.table(module, x, what)
        else:
            if module.relu:
                x = replace(x, bends=(*x.bends, ramp))
                least = max(least, 0) if fmt != Bipolar() else least
            layer = self.rounding(self.turned(x), scale, least, quantiser)
        value = Value.codes(layer.name, self.add(layer), [linear(scale)])
        if fmt != Bipolar():
            low, high = np.array([least]), np.array([quantiser.high])
            value = replace(value, low=low, high=high)
        return replace(value, order=x.order)

    def rounding(self, x: Value, scale: Fraction, least: int, quantiser: Quantiser) -> Layer:
        """Smallest layer that rounds to codes of a quantiser."""
        name, fmt, most = self.name("act"), quantiser.fmt, quantiser.high
        if fmt == Bipolar():
            return smallest(name, x.edge, self.steps(x, [Fraction(0)], scale, least, fmt))
        ramps = all(bend is ramp for bend in x.bends)
        if most - least >= FEW and ramps and all(norm.variance == 1 for norm in x.norms):
            lines = [(n.gain / scale, (n.bias - n.gain * n.mean) / scale) for n in x.norms]
            low = max(least, 0) if x.bends else least
            found = shifted(name, x.edge, lines, (low, most), fmt)
            if found is not None:
                return found
        places = [scale * Fraction(2 * code - 1, 2) for code in range(least + 1, most + 1)]
        return smallest(name, x.edge, self.steps(x, places, scale, least, fmt))

    def steps(
        self, x: Value, places: Sequence[Fraction], scale: Fraction, least: int, fmt: Format
    ) -> Steps:
        """Levels of a rounding that passes to the next code at each of ``places``."""
        levels, falling = x.levels(places)
        slopes = np.array([float(n.gain / scale) / float(n.variance) ** 0.5 for n in x.each()])
        low, high = (np.broadcast_to(part, len(levels)) for part in (x.low, x.high))
        return Steps(x.tensor, low, high, levels, falling, slopes, least, fmt, x.stride)

    def table(self, module: QuantActivation, x: Value, what: str) -> Table:
        """Compute the result for every code, in double precision."""
        fmt, norm = x.tensor.fmt, x.norms[0]
        codes = np.arange(fmt.min, fmt.max + 1)
        reals = [float(norm.gain * (code - norm.mean) + norm.bias) for code in codes.tolist()]
        values = torch.tensor(reals, dtype=torch.float64)
        with torch.no_grad():
            for curve in x.curve:
                values = curve(values)
        if module.relu:
            values = values.relu()
        entries = module.quantiser.codes(values).numpy()
        return Table(
            name=self.name("act"), inputs=(x.edge,), entries=entries, fmt=module.quantiser.fmt
        )

    def turned(self, x: Value) -> Value:
        """Move the sign of falling channels into the product's weights; the value is the same.

        As :func:`brambling.quant.export.fold_falling`, where nothing else reads the product, and
        the negative of every weight is a code.
        """
        layer = self.layers.get(x.edge)
        falling = np.array([norm.gain < 0 for norm in x.each()])
        if not falling.any() or not x.alone or not isinstance(layer, Product):
            return x
        weights = layer.weights.astype(np.int64)
        rows = weights.reshape(len(weights), -1)
        chosen = (
            falling & (-rows >= layer.fmt.min).all(axis=1) & (-rows <= layer.fmt.max).all(axis=1)
        )
        weights[chosen] *= -1
        self.layers[x.edge] = replace(layer, weights=weights)
        tensor = self.layers[x.edge].output(self.tensors[layer.inputs[0]])
        self.tensors[x.edge] = tensor
        return replace(x.negated(chosen), tensor=tensor)


def ordered(parameters: Sequence[Norm], x: Value) -> list[Norm]:
    """Parameters of PyTorch's channels in the order of ours."""
    if x.order is None:
        return list(parameters)
    return [parameters[index] for index in x.order.tolist()]


def pair(numbers: int | tuple[int, ...]) -> tuple[int, int]:
    """One number for both directions, or one for each."""
    return (numbers, numbers) if isinstance(numbers, int) else (numbers[0], numbers[-1])
