"""Operators that map each element by itself, or join two tensors element by element."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import inf

import numpy as np

from brambling.errors import UnsupportedLayer
from brambling.quant import joining
from brambling.quant.formats import Bipolar
from brambling.quant.interchange.graph import CHANNELS_LAST, Node
from brambling.quant.interchange.onnx_attributes import flag, real, refuse
from brambling.quant.interchange.onnx_lowering import Lowering, operator
from brambling.quant.interchange.placed import Codes, Placed, fractions
from brambling.quant.lowering import Grid
from brambling.quant.norms import Norm, clip, leak, ramp
from brambling.quant.values import Value

ZERO, ONE = Fraction(0), Fraction(1)


def each(self: Lowering, node: Node, place: int, x: Placed, what: str) -> list[Fraction]:
    """Constant of each channel of ``x``'s edge, or of all."""
    found = self.tensors.get(node.inputs[place])
    if isinstance(found, Codes):
        # Fractions are objects: their places are what is laid out.
        numbers = found.fractions()
        array = np.arange(len(numbers)).reshape(found.codes.shape)
        return [numbers[n] for n in self.channels(array, x, f"{node}: {what}").tolist()]
    array = self.constant(node, place, what)
    return fractions(self.channels(array, x, f"{node}: {what}"), f"{node}: {what}")


def meant(
    self: Lowering, x: Placed, gains: Sequence[Fraction], offsets: Sequence[Fraction], node: Node
) -> list[Placed]:
    """``gain * x + offset``: only the meaning changes."""
    return [replace(x, value=self.builder.moved(x.value, gains, offsets, str(node)))]


# Arithmetic ---------------------------------------------------------------------------------------


def joined(self: Lowering, node: Node, signs: Sequence[int]) -> list[Placed]:
    """Sum of tensors, each with a sign."""
    parts = [self.placed(node, place) for place in range(len(node.inputs))]
    if len({part.shape for part in parts}) > 1:
        shapes = " and ".join(str((1, *part.shape)) for part in parts)
        raise UnsupportedLayer(f"{node}: its inputs must have one shape, not {shapes}")
    if len({part.value.tensor.shape for part in parts}) > 1:
        parts = [self.vector(part) for part in parts]
    parts = [parts[0], *(self.like(part, parts[0].index, node) for part in parts[1:])]
    values = [
        part.value if sign > 0 else part.value.moved([Fraction(-1)], [ZERO])
        for part, sign in zip(parts, signs, strict=True)
    ]
    return [replace(parts[0], value=joining.add(self.builder, values, str(node)))]


@operator("Add", "Sum", text="of constants, and of branches with any scales")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    live = [n for n, name in enumerate(node.inputs) if not self.is_constant(name)]
    if len(live) == len(node.inputs):
        return joined(self, node, [1] * len(live))
    if len(node.inputs) != 2 or not live:
        raise UnsupportedLayer(f"{node}: adds several constants: fold them, or use two nodes")
    x = self.element(node, live[0])
    return meant(self, x, [ONE], each(self, node, 1 - live[0], x, "summand"), node)


@operator("Sub", text="as Add")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    first, second = (self.is_constant(name) for name in node.inputs)
    if not first and not second:
        return joined(self, node, (1, -1))
    x = self.element(node, 1 if first else 0)
    numbers = each(self, node, 0 if first else 1, x, "number")
    if first:
        return meant(self, x, [-ONE], numbers, node)
    return meant(self, x, [ONE], [-number for number in numbers], node)


@operator("Mul", text="by constants, per tensor or channel")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    found = scaled_weights(self, node)
    if found is not None:
        return [found]
    first, second = (self.is_constant(name) for name in node.inputs)
    if not first and not second:
        raise UnsupportedLayer(f"{node}: multiplies two branches: multiply by a constant")
    x = self.element(node, 1 if first else 0)
    return meant(self, x, each(self, node, 0 if first else 1, x, "factor"), [ZERO], node)


@operator("Div", text="by constants, per tensor or channel")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    found = scaled_weights(self, node)
    if found is not None:
        return [found]
    if not self.is_constant(node.inputs[1]):
        raise UnsupportedLayer(f"{node}: divides by a branch: divide by a constant")
    x = self.element(node)
    divisors = each(self, node, 1, x, "divisor")
    if not all(divisors):
        raise UnsupportedLayer(f"{node}: divides by 0: give another divisor")
    return meant(self, x, [1 / divisor for divisor in divisors], [ZERO], node)


def scaled_weights(self: Lowering, node: Node) -> Codes | None:
    """Return quantised weights times, or divided by, constants; else ``None``."""
    found = [self.tensors.get(name) for name in node.inputs]
    places = [n for n, x in enumerate(found) if isinstance(x, Codes)]
    others = [name for n, name in enumerate(node.inputs) if n not in places]
    if len(places) != 1 or others[0] not in self.graph.constants:
        return None
    weights = found[places[0]]
    assert isinstance(weights, Codes)
    array = self.graph.constants[others[0]]
    if np.ndim(array) > weights.codes.ndim or (node.op == "Div" and places[0] != 0):
        return None
    factors = np.array(fractions(array, f"{node}: factor"), dtype=object)
    shape = [1] * (weights.codes.ndim - np.ndim(array)) + list(np.shape(array))
    factors = factors.reshape(shape)
    if node.op == "Div" and not factors.all():
        return None
    return replace(
        weights, scale=weights.scale / factors if node.op == "Div" else weights.scale * factors
    )


@operator("Neg", text="")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    return meant(self, self.placed(node), [-ONE], [ZERO], node)


@operator("BatchNormalization", text="in inference; gains may be negative or 0")
@operator("BatchNormalization", domain=CHANNELS_LAST, text="the same")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    last = node.domain == CHANNELS_LAST
    x = self.element(node)
    if flag(node, "training_mode"):
        raise UnsupportedLayer(f"{node}: is in training mode: export the model in evaluation")
    shape = [1] * (x.index.ndim + 1)
    shape[-1 if last else 1] = -1
    gain, bias, mean, variance = (
        fractions(
            self.channels(self.constant(node, place, what).reshape(shape), x, f"{node}: {what}"),
            f"{node}: {what}",
        )
        for place, what in enumerate(("scale", "bias", "mean", "variance"), 1)
    )
    epsilon = real(node, "epsilon", 1e-5)
    count = x.value.channels
    rows = zip(
        *(list(part) * (count // len(part)) for part in (gain, bias, mean, variance)), strict=True
    )
    norms = [Norm(g, b, m, v + epsilon) for g, b, m, v in rows]
    if any(norm.variance <= 0 for norm in norms):
        raise UnsupportedLayer(f"{node}: its variance must be above 0: export it anew")
    return [replace(x, value=self.builder.norm(norms, x.value, str(node)))]


# Bends --------------------------------------------------------------------------------------------


@operator("Relu", text="")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    x = self.element(node)
    return clipped(self, node, x, ZERO, inf) or [replace(x, value=self.builder.bent(x.value, ramp))]


@operator("LeakyRelu", text="of any slope")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    return leaking(self, node, [real(node, "alpha", 0.01)])


@operator("PRelu", text="of any slopes, per tensor or channel")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    x = self.element(node)
    return leaking(self, node, each(self, node, 1, x, "slope"))


def leaking(self: Lowering, node: Node, slopes: Sequence[Fraction]) -> list[Placed]:
    x = self.element(node)
    if min(slopes) < 0 and joining.is_folded(x.value):
        raise UnsupportedLayer(f"{node}: its input turns back already: put a quantiser before it")
    return [replace(x, value=self.builder.bent(x.value, leak(*slopes)))]


@operator("Clip", text="")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    found = self.tensors.get(node.inputs[0])
    low, high = (
        end_of(self, node, place, key, beyond)
        for place, key, beyond in ((1, "min", -inf), (2, "max", inf))
    )
    if isinstance(found, Codes):
        return [clipped_codes(node, found, low, high)]
    x = self.element(node)
    if low > high:
        raise UnsupportedLayer(f"{node}: min must not be above max: give them in order")
    return clipped(self, node, x, low, high) or [
        replace(x, value=self.builder.bent(x.value, clip(low, high)))
    ]


def end_of(self: Lowering, node: Node, place: int, key: str, beyond: float) -> Fraction | float:
    """Bound of a clipping, an attribute up to operator set 10, then an input."""
    if key in node.attributes:
        value = node.attributes[key]
        if not isinstance(value, int | float):
            refuse(node, key, "a number", value)
        return value if abs(value) == inf else real(node, key, 0)
    if self.given(node, place):
        array = self.single(node, place, key)
    else:
        return beyond
    if np.isinf(array):
        return float(array)
    (number,) = fractions(array, f"{node}: {key}")
    return beyond if abs(number) > 3e38 else number


def clipped_codes(node: Node, found: Codes, low: Fraction | float, high: Fraction | float) -> Codes:
    """Integers of a quantiser, between two others."""
    if found.scale.size != 1 or found.scale.reshape(-1)[0] != 1:
        raise UnsupportedLayer(f"{node}: clips weights that are no integers: clip before rounding")
    codes = found.codes
    if not isinstance(low, float):
        codes = np.maximum(codes, int(low))
    if not isinstance(high, float):
        codes = np.minimum(codes, int(high))
    return replace(found, codes=codes)


def clipped(
    self: Lowering, node: Node, x: Placed, low: Fraction | float, high: Fraction | float
) -> list[Placed] | None:
    """Clip a quantiser's codes by giving it fewer, where nothing else reads them."""
    edge = x.value.edge
    known = self.rounded.get(edge)
    single = len(self.graph.consumers(node.inputs[0])) == 1
    if known is None or not single or x.value.bends or len(x.value.norms) != 1:
        return None
    before, grid = known
    (norm,) = x.value.norms
    if norm.gain <= 0 or grid.fmt == Bipolar() or list(self.builder.layers)[-1] != edge:
        return None
    ends: list[int] = []
    for end, beyond in ((low, grid.least), (high, grid.most)):
        place = beyond if isinstance(end, float) else norm.mean + (end - norm.bias) / norm.gain
        if place != int(place):
            return None
        ends.append(min(max(int(place), grid.least), grid.most))
    if ends[0] >= ends[1] or norm.variance != 1:
        return None
    value = narrowed(self, edge, before, grid, (ends[0], ends[1]), node)
    return [replace(x, value=replace(value, norms=x.value.norms))]


def narrowed(
    self: Lowering, edge: str, before: Value, grid: Grid, ends: tuple[int, int], node: Node
) -> Value:
    """Quantise again, to the codes between two, under the same name."""
    least, most = ends
    places = [row[least - grid.least : most - grid.least] for row in grid.places]
    fewer = replace(grid, least=least, most=most, places=places)
    del self.builder.layers[edge], self.builder.tensors[edge]
    kind = edge.rstrip("0123456789")
    self.builder.counts[kind] -= 1
    value = self.builder.quantised(before, fewer, str(node), kind)
    self.rounded[value.edge] = before, fewer
    # What came before the clipping has more codes than the edge has now.
    for name, other in list(self.tensors.items()):
        if isinstance(other, Placed) and other.value.edge == edge:
            del self.tensors[name]
    return value
