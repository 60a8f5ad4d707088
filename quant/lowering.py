"""Steps of a float model as layers of integers: products, activations; exact and without PyTorch.

Each function takes values with their exact meaning (:mod:`brambling.quant.values`), adds layers to
a :class:`Builder`, and returns the value that comes out. Poolings and joins are in
:mod:`brambling.quant.joining`. What reads a model, :mod:`brambling.quant.graph` for PyTorch and
:mod:`brambling.quant.interchange` for the formats of other tools, calls them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import cycle
from math import gcd, inf, lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError, UnsupportedLayer
from brambling.layers.product import Product
from brambling.network import INPUT, Conv, Dense, Layer, Requantise, Tensor, Thresholds
from brambling.quant.formats import Bipolar, Fixed, Format, Ternary
from brambling.quant.forms import Steps, shifted, smallest
from brambling.quant.norms import Bend, Clip, Level, Norm, Reach, linear, root
from brambling.quant.rounding import reach_of, rounded
from brambling.quant.values import Value

__all__ = ["Builder", "Grid", "Weights", "alike", "format_of", "unsupported"]

FEW = 4  #: Codes from which a shift is sure to be smaller than comparisons.
MANY = 1 << 16  #: Codes of which levels are made.
WIDEST = 1 << 61  #: Integers of an edge stay below.
LEVELS = 255  #: Most that thresholds have an engine for.
WEIGHT_BITS, ACTIVATION_BITS = 16, 16  #: Widest that have an engine.


def unsupported(what: str, attribute: str, value: object, remedy: str) -> UnsupportedLayer:
    """Error for a step that has no layer; ``remedy`` is the nearest that has."""
    return UnsupportedLayer(f"{what}: {attribute} cannot be {value}: {remedy}")


def behind(norm: Norm, x: Norm, what: str) -> Norm:
    """Batch-norm of a value that is a scale times an integer plus an offset."""
    if not x.gain:
        raise unsupported(what, "input", "a constant", "drop one of the two layers")
    mean = x.mean + (norm.mean - x.bias) / x.gain
    return Norm(norm.gain * x.gain, norm.bias, mean, norm.variance)


def alike(norms: Sequence[Norm]) -> tuple[Norm, ...]:
    """One for all where all are the same."""
    return tuple(norms[:1] if all(norm == norms[0] for norm in norms) else norms)


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights of a product: ``scale * code``.

    Parameters
    ----------
    codes
        Integers as the layer has them: ``(outputs, inputs)``, or for a convolution ``(outputs,
        kernel height, kernel width, channels of a group)``.
    fmt
        Their format.
    scales
        Of each output, or one for all.
    bias
        What is added to each output, or one for all.
    """

    codes: NDArray[Any]
    fmt: Format
    scales: Sequence[Fraction]
    bias: Sequence[Fraction] = (Fraction(0),)


@dataclass(frozen=True, eq=False, kw_only=True)
class Grid:
    """What an activation rounds to, and where it steps.

    Parameters
    ----------
    least, most, fmt
        Smallest and largest code, and the format of all; for ``Bipolar`` -1 and +1.
    norms
        What a code stands for, in each channel, or in all alike.
    places
        For each channel, or for all alike: the questions that are answered with yes from each code
        after ``least`` on. Where not given they are those of the rounding.
    slopes, offset, rounding
        Codes are ``round(slope * value + offset)``, clipped; a slope, above 0, for each channel, or
        one for all. With ``places`` the slope is a hint.
    """

    least: int
    most: int
    fmt: Format
    norms: Sequence[Norm]
    slopes: Sequence[Fraction]
    offset: Fraction = Fraction(0)
    rounding: str | None = None
    places: Sequence[Sequence[Reach]] = ()

    def asked(self) -> Sequence[Sequence[Reach]]:
        """Return the questions, of the rounding where no others are given."""
        if self.rounding is None:
            return self.places
        steps = [reach_of(code, self.rounding) for code in range(self.least + 1, self.most + 1)]
        return [
            [reach._replace(value=(reach.value - self.offset) / slope) for reach in steps]
            for slope in self.slopes
        ]

    def clipped(self, value: Level, slope: Fraction) -> int:
        """Return the code of a number."""
        assert self.rounding is not None
        if isinstance(value, float):
            return self.least if value < 0 else self.most
        code = rounded(slope * value + self.offset, self.rounding)
        return min(max(code, self.least), self.most)


class Builder:
    """Layers so far, by name, with the tensor that each makes.

    Names are a kind and a number, in the order of the model: ``conv1``, ``act1``, ``pool1``, ….

    Parameters
    ----------
    frame
        The network's input.
    quantiser
        What rounds activations in the model, for the remedies in errors.
    """

    def __init__(self, frame: Tensor, quantiser: str = "a quantiser") -> None:
        self.layers: dict[str, Layer] = {}
        self.tensors = {INPUT: frame}
        self.counts: dict[str, int] = {}
        #: By edge: the channels whose signs were moved into the weights.
        self.turns: dict[str, NDArray[np.bool_]] = {}
        self.remedy = f"put {quantiser} before it"

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

    # Integers as the next layer needs them --------------------------------------------------------

    def settled(self, x: Value, what: str) -> Value:
        """Value whose clippings are a layer of their own, if they act on whole integers."""
        if x.plain:
            return x
        bent = x.curve or any(n.variance != 1 or not n.gain for n in x.norms)
        if bent or not all(isinstance(bend, Clip) for bend in x.bends):
            raise unsupported(what, "input", "unquantised", self.remedy)
        low: Level = -inf
        high: Level = inf
        for bend in x.bends:
            assert isinstance(bend, Clip)
            low, high = (min(max(end, bend.low), bend.high) for end in (low, high))
        signs = [1 if norm.gain > 0 else -1 for norm in x.norms]
        places = [
            [
                place_of(norm, end) * sign if isinstance(end, Fraction) else end
                for end in (low, high)
            ]
            for norm, sign in zip(x.norms, signs, strict=True)
        ]
        if any(isinstance(end, Fraction) and end.denominator != 1 for row in places for end in row):
            raise unsupported(what, "input", "clipped between two codes", self.remedy)
        if any(abs(end) > WIDEST for row in places for end in row if isinstance(end, Fraction)):
            raise unsupported(what, "input", "clipped far from its codes", self.remedy)
        # Integers are moved, in each channel, to where all are clipped alike.
        end = 0 if isinstance(low, Fraction) else 1
        origin = [0 if isinstance(row[end], float) else int(row[end]) for row in places]
        if len(set(origin)) == 1 and signs[0] == 1:
            origin = [0] * len(origin)
        limits = {
            (whole(row[0], at), whole(row[1], at)) for row, at in zip(places, origin, strict=True)
        }
        if len(limits) > 1:
            raise unsupported(what, "input", "clipped at different codes", self.remedy)
        norms = [
            replace(norm, gain=abs(norm.gain), mean=sign * norm.mean - at)
            for norm, sign, at in zip(x.norms, signs, origin, strict=True)
        ]
        bias = [-at for at in origin]
        found = self.requantised(replace(x, bends=()), signs, bias, limits.pop())
        return replace(found, norms=tuple(norms))

    def requantised(
        self,
        x: Value,
        multiplier: Sequence[int],
        bias: Sequence[int] = (0,),
        limits: tuple[int | None, int | None] = (None, None),
        frac: int | None = None,
    ) -> Value:
        """Integers times a multiplier plus a bias for each channel, or for all, and clipped.

        The norms stay as they were: what the new integers mean the caller knows.
        """
        m, b = (
            np.array(row[:1] if len(set(row)) == 1 else row, dtype=np.int64)
            for row in (multiplier, bias)
        )
        ends = np.sort(np.stack([x.low * m + b, x.high * m + b]), axis=0)
        if limits != (None, None):
            ends = np.clip(ends, limits[0], limits[1])
        fmt = Fixed.spanning(
            int(ends.min()), int(ends.max()), x.tensor.fmt.frac if frac is None else frac
        )
        layer = Requantise(
            name=self.name("scale"),
            inputs=(x.edge,),
            multiplier=m,
            bias=b,
            fmt=fmt,
            low=None if limits == (None, None) else int(ends.min()),
            high=None if limits == (None, None) else int(ends.max()),
        )
        return replace(
            x,
            edge=layer.name,
            tensor=self.add(layer),
            low=ends[0],
            high=ends[1],
            stride=x.stride if (np.abs(m) == 1).all() and limits == (None, None) else 1,
            alone=False,
        )

    def common(self, x: Value, what: str, groups: int = 1) -> tuple[Value, list[int]]:
        """Plain value with one scale for all channels (of each group), and what that leaves.

        Returns a multiplier for each channel, or one for all: weights take them over.
        """
        x = self.settled(x, what)
        if len(x.norms) == 1 and x.norms[0].gain:
            return x, [1]
        size = x.channels // groups
        norms, multipliers = [], []
        for start in range(0, x.channels, size):
            group = x.each()[start : start + size]
            unit = unit_of([norm.gain for norm in group], what)
            multipliers += [int(norm.gain / unit) for norm in group]
            # A channel's constant must be that of its integer 0, for the multiplier may be 0.
            norms += [linear(unit, bias=norm.bias - norm.gain * norm.mean) for norm in group]
        return replace(x, norms=tuple(norms)), multipliers

    # Products -------------------------------------------------------------------------------------

    def conv(
        self,
        x: Value,
        weights: Weights,
        what: str,
        *,
        stride: tuple[int, int],
        padding: tuple[int, int, int, int],
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
        pad: Fraction = Fraction(0),
    ) -> Value:
        """Convolution; what is around the image, ``pad``, becomes the code that stands for it."""
        x, many = self.common(x, what, groups)
        weights = self.taken(weights, many, what, groups)
        weights, padding = stretched(weights, stride, padding, dilation)
        if any(padding):
            x = self.centred(x, pad)
        layer = Conv(
            name=self.name("conv"),
            inputs=(x.edge,),
            weights=weights.codes,
            fmt=weights.fmt,
            stride=stride,
            padding=padding,
            pad_value=self.padded(x, pad, what) if any(padding) else 0,
            dilation=dilation,
            groups=groups,
        )
        every = np.array(zeros_of(x), dtype=object)
        if len(every) > 1:
            # The channels that each output sees, in a row for each tap.
            outputs, rows, columns, channels = layer.weights.shape
            each = np.repeat(every.reshape(groups, 1, channels), rows * columns, axis=1)
            every = np.repeat(each.reshape(groups, -1), outputs // groups, axis=0)
        return self.product(layer, x, weights, every, not any(padding), groups)

    def dense(self, x: Value, weights: Weights, what: str) -> Value:
        """Dense layer."""
        x, many = self.common(x, what)
        weights = self.taken(weights, many, what)
        layer = Dense(
            name=self.name("fc"), inputs=(x.edge,), weights=weights.codes, fmt=weights.fmt
        )
        return self.product(layer, x, weights, np.array(zeros_of(x), dtype=object), True)

    def taken(self, weights: Weights, many: Sequence[int], what: str, groups: int = 1) -> Weights:
        """Weights that take over multipliers of the input's channels."""
        if set(many) == {1}:
            return weights
        if max(map(abs, many)) << weights.fmt.width >= 1 << WEIGHT_BITS:
            raise unsupported(what, "scales of the input's channels", "so different", self.remedy)
        rows = np.array(many, dtype=np.int64).reshape(groups, -1)
        outputs = len(weights.codes) // groups
        shape = len(weights.codes), *[1] * (weights.codes.ndim - 2), -1
        codes = weights.codes * np.repeat(rows, outputs, axis=0).reshape(shape)
        return replace(weights, codes=codes, fmt=format_of(codes))

    def centred(self, x: Value, pad: Fraction) -> Value:
        """Value with one code for ``pad`` in all channels, if some layer can make it so."""
        places = [place_of(norm, pad) for norm in x.norms]
        one = len(set(places)) == 1 and places[0].denominator == 1
        if one and (not places[0] or x.tensor.fmt.holds(np.array(int(places[0])))):
            return x
        times = lcm(*(place.denominator for place in places))
        width = x.tensor.fmt.width + times.bit_length()
        if width > ACTIVATION_BITS or max(map(abs, places)) >= 1 << ACTIVATION_BITS:
            return x
        bias = [-int(place * times) for place in places]
        norms = [
            replace(norm, gain=norm.gain / times, mean=norm.mean * times + b)
            for norm, b in zip(x.norms, bias, strict=True)
        ]
        # Of one bit the format has no 0, which is what padding then is.
        return replace(self.requantised(x, [times], bias), norms=tuple(norms))

    def padded(self, x: Value, pad: Fraction, what: str) -> int:
        """Code that stands for what is around an image."""
        places = {place_of(norm, pad) for norm in x.norms}
        place, fmt = min(places), x.tensor.fmt
        code = int(place)
        inside = code == 0 or bool(fmt.holds(np.array(code)))
        if len(places) > 1 or code != place or not inside:
            shown = "different codes" if len(places) > 1 else f"{float(place):g}"
            raise unsupported(
                what, "padding", f"with zeros, which are {shown} of {fmt}",
                "use padding 0, or an offset that is a code",
            )  # fmt: skip
        return code

    def product(
        self,
        layer: Conv | Dense,
        x: Value,
        weights: Weights,
        zeros: NDArray,
        parity: bool,
        groups: int = 1,
    ) -> Value:
        """Add the layer; offsets of the input add a constant for each output."""
        tensor = self.add(layer)
        matrix = layer.matrix.astype(np.int64)
        count = len(matrix)
        means = [Fraction(0)] * count
        if zeros.any():
            means = [Fraction(mean) for mean in (matrix * zeros).sum(axis=1).tolist()]
        gains = [norm.gain for norm in x.norms[:: -(-len(x.norms) // groups)]]
        norms = [
            linear(scale * gain, mean, bias)
            for scale, gain, mean, bias in zip(
                list(weights.scales) * (count // len(weights.scales)),
                np.repeat(np.array(gains, dtype=object), count // len(gains)),
                means,
                list(weights.bias) * (count // len(weights.bias)),
                strict=True,
            )
        ]
        low, high = layer.bounds(x.tensor)
        stride = 2 if parity and layer.fmt == x.tensor.fmt == Bipolar() else 1
        return Value(layer.name, tensor, alike(norms), low, high, stride)

    # Elements -------------------------------------------------------------------------------------

    def norm(self, norms: Sequence[Norm], x: Value, what: str) -> Value:
        """Batch-norm in evaluation: only the meaning changes."""
        if x.curve:
            raise unsupported(what, "input", "unquantised", self.remedy)
        if x.plain and all(norm.gain for norm in x.norms):
            pairs = zip(norms, x.each(), strict=True)
            return replace(x, norms=alike([behind(norm, old, what) for norm, old in pairs]))
        gains = [norm.gain / root(norm.variance) for norm in norms]
        offsets = [n.bias - n.mean * gain for n, gain in zip(norms, gains, strict=True)]
        return x.moved(gains, offsets)

    def moved(
        self, x: Value, gains: Sequence[Fraction], offsets: Sequence[Fraction], what: str
    ) -> Value:
        """``gain * value + offset``: only the meaning changes."""
        if x.curve:
            raise unsupported(what, "input", "unquantised", self.remedy)
        return x.moved(gains, offsets)

    def bent(self, x: Value, bend: Bend) -> Value:
        """Rising function, exact: only the meaning changes."""
        return replace(x, bends=(*x.bends, bend))

    def quantised(self, x: Value, grid: Grid, what: str, name: str = "act") -> Value:
        """Round to codes by the smallest exact layer; see :mod:`brambling.quant.forms`."""
        if x.curve:
            raise unsupported(what, "input", "unquantised", self.remedy)
        if grid.least == grid.most:  # One code only; a layer of thresholds has two.
            never = Reach(Fraction(0)).never
            fmt = Fixed.spanning(grid.least, grid.least + 1)
            grid = replace(grid, most=grid.least + 1, fmt=fmt, rounding=None, places=[[never]])
        x, name = self.turned(x), self.name(name)
        few = grid.most - grid.least < FEW or grid.fmt == Bipolar()
        layer = None if few else self.shifted(name, x, grid, single=True)
        if layer is None and grid.most - grid.least <= MANY:
            layer = smallest(name, x.edge, steps_of(x, grid))
        if layer is None or (isinstance(layer, Thresholds) and layer.levels.shape[1] > LEVELS):
            layer = self.shifted(name, x, grid, single=False) or layer
        if layer is None:
            raise unsupported(what, "codes", f"{grid.fmt} of these scales", "use fewer bits")
        return self.coded(x, grid, layer)

    @staticmethod
    def shifted(name: str, x: Value, grid: Grid, single: bool) -> Requantise | None:
        """Layer that rounds as the grid does by a shift, if there is one; see forms.shifted."""
        clips = all(isinstance(bend, Clip) for bend in x.bends)
        if grid.rounding is None or not clips or any(norm.variance != 1 for norm in x.norms):
            return None
        count = max(len(x.norms), len(grid.slopes))
        pairs = list(zip(x.norms * (count // len(x.norms)), cycle(grid.slopes), strict=False))
        ends = set()
        for slope in set(grid.slopes):
            # Rounding never turns back, so what is clipped may as well be clipped behind it.
            low, high = grid.least, grid.most
            for bend in x.bends:
                assert isinstance(bend, Clip)
                low = max(low, grid.clipped(bend.low, slope))
                high = max(low, min(high, grid.clipped(bend.high, slope)))
            ends.add((low, high))
        if len(ends) > 1:
            return None
        lines = [
            (slope * n.gain, slope * (n.bias - n.gain * n.mean) + grid.offset) for n, slope in pairs
        ]
        try:
            found = shifted(name, x.edge, lines, ends.pop(), grid.fmt, grid.rounding, single=single)
            return found if found is None or found.output(x.tensor) else None
        except ConfigError:  # Its numbers are too wide.
            return None

    def coded(self, x: Value, grid: Grid, layer: Layer) -> Value:
        """Add the layer that rounds; return what its codes stand for."""
        value = Value.codes(layer.name, self.add(layer), alike(grid.norms))
        if grid.fmt != Bipolar():
            low, high = np.array([grid.least]), np.array([grid.most])
            value = replace(value, low=low, high=high)
        return replace(value, order=x.order)

    def turned(self, x: Value) -> Value:
        """Move the sign of falling channels into the product's weights; the value is the same.

        As :func:`brambling.quant.export.fold_falling`, where nothing else reads the product, and
        the negative of every weight is a code.
        """
        layer = self.layers.get(x.edge)
        if not x.alone or not isinstance(layer, Product):
            return x
        falling = x.falling()
        if not falling.any():
            return x
        weights = layer.weights.astype(np.int64)
        rows = weights.reshape(len(weights), -1)
        chosen = (
            falling & (-rows >= layer.fmt.min).all(axis=1) & (-rows <= layer.fmt.max).all(axis=1)
        )
        if not chosen.any():
            return x
        weights[chosen] *= -1
        self.turns[x.edge] = self.turns.get(x.edge, np.zeros_like(chosen)) ^ chosen
        self.layers[x.edge] = replace(layer, weights=weights)
        tensor = self.layers[x.edge].output(self.tensors[layer.inputs[0]])
        self.tensors[x.edge] = tensor
        return replace(x.negated(chosen), tensor=tensor)


def stretched(
    weights: Weights,
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
) -> tuple[Weights, tuple[int, int, int, int]]:
    """Kernel with taps of weight 0 around it, where it else would skip pixels or see padding only.

    A tap more behind (in front) comes with as much more padding behind (in front).
    """
    ends, more = list(padding), []
    spans = [
        (size - 1) * gap + 1 for size, gap in zip(weights.codes.shape[1:3], dilation, strict=True)
    ]
    point = weights.codes.shape[1:3] == (1, 1) and not any(padding)
    for n, (span, step, gap) in enumerate(zip(spans, stride, dilation, strict=True)):
        before, after = padding[2 * n : 2 * n + 2]
        lack = [max(0, pad - span + 1) for pad in (after, before)]
        if step > span and not point:
            lack[1] = max(lack[1], step - span)
        taps = [-(-pixels // gap) for pixels in lack]
        more.append((taps[0], taps[1]))
        ends[2 * n] += taps[0] * gap
        ends[2 * n + 1] += taps[1] * gap
    if not any(map(any, more)):
        return weights, padding
    codes = np.pad(weights.codes.astype(np.int64), ((0, 0), *more, (0, 0)))
    return replace(weights, codes=codes, fmt=format_of(codes)), (
        ends[0],
        ends[1],
        ends[2],
        ends[3],
    )


def steps_of(x: Value, grid: Grid) -> Steps:
    """Levels of a rounding, as what looks for the smallest layer wants them."""
    levels, falling = x.levels(grid.asked())
    slopes = np.array([float(slope) for slope in grid.slopes] * (len(levels) // len(grid.slopes)))
    low, high = (np.broadcast_to(part, len(levels)) for part in (x.low, x.high))
    gains = x.slopes() * slopes
    return Steps(x.tensor, low, high, levels, falling, gains, grid.least, grid.fmt, x.stride)


def place_of(norm: Norm, value: Fraction) -> Fraction:
    """Where a channel without a root has a value."""
    return norm.mean + (value - norm.bias) / norm.gain


def whole(place: Level, origin: int) -> int | None:
    """Integer, counted from ``origin``; ``None`` for infinity."""
    return None if isinstance(place, float) else int(place) - origin


def format_of(codes: NDArray[Any]) -> Format:
    """Narrowest format that has all codes."""
    if not (np.abs(codes) != 1).any():
        return Bipolar()
    if not (np.abs(codes) > 1).any():
        return Ternary()
    return Fixed.spanning(int(codes.min()), int(codes.max()))


def zeros_of(x: Value) -> list[Fraction]:
    """Integers that stand for 0, of each channel or one for all."""
    zeros = [place_of(norm, Fraction(0)) for norm in x.norms]
    return zeros[:1] if all(zero == zeros[0] for zero in zeros) else zeros


def unit_of(gains: Sequence[Fraction], what: str) -> Fraction:
    """Return the largest number of which all are whole multiples."""
    if not gains:
        raise unsupported(what, "input", "a constant", "drop the layer")
    bottom = lcm(*(gain.denominator for gain in gains))
    return Fraction(gcd(*(int(gain * bottom) for gain in gains)), bottom)
