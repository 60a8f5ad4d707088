"""Random valid QONNX graphs, from a seed or for Hypothesis, small enough to execute thousands."""

from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from .qonnx_build import GENERAL, Builder, Choices, Style, Value, seeded
from .qonnx_layers import conv, dense, image_layers, vector_layers
from .qonnx_quantisers import quantise

__all__ = ["Case", "cases", "contents", "graph"]

OPSETS = (13, 8, 9, 10, 11, 12, 14, 15, 17, 18, 19, 20, 21, 23, 25)
DOMAINS = (GENERAL, GENERAL, "onnx.brevitas", "finn.custom_op.general")
IMAGES = 6


@dataclass(frozen=True, eq=False)
class Case:
    """A model and what to feed it.

    Parameters
    ----------
    model
        Random valid model with one input and one output.
    inputs
        ``(images, ...)`` float32, in the model's own domain.
    input_scale
        Of the 8-bit unsigned codes that the inputs stand for, where the model has no quantiser in
        front; otherwise ``None``.
    exact
        Whether float32 arithmetic makes no rounding error: then nothing excuses a difference.
    """

    model: ModelProto
    inputs: NDArray
    input_scale: Fraction | None
    exact: bool


def graph(seed: int) -> Case:
    """Make a random model from a seed."""
    return build(seeded(seed))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Random models that shrink to small ones."""
    return build(Choices(lambda low, high: draw(st.integers(low, high))))


def build(choices: Choices) -> Case:
    """Make a random model of decisions."""
    b = Builder(choices, style(choices))
    shape = choices.pick([(6,), (2, 6, 6), (3, 8), (1, 8, 5), (3, 4, 4), (4, 5, 7), (9,)])
    source = Value("input" if choices.chance(70) else "x:0", (1, *shape), 1.0)
    front, inputs, scale = entrance(b, source)
    x = body(b, front)
    name, kind, out = head(b, last(b, x))
    return Case(b.model(source, name, kind, out), inputs, scale, b.style.exact)


def style(choices: Choices) -> Style:
    """What is the same in a whole graph."""
    exact = choices.chance(25)
    dialect = choices.pick(["qonnx"] * 7 + ["finn", "qcdq", "qcdq"])
    opset = choices.pick(OPSETS)
    if dialect == "qcdq":
        opset = max(opset, 13 if exact else 10)
    domain = choices.pick(DOMAINS)
    return Style(
        opset=opset,
        domain=domain if dialect != "finn" or domain != "onnx.brevitas" else GENERAL,
        trunc=choices.pick([1, 2]) if domain == GENERAL else 1,
        dialect=dialect,
        exact=exact,
        named=not choices.chance(30),
        shared=choices.chance(50),
        constants=choices.chance(20) and opset >= 9,
        listed=opset < 9 and choices.chance(60),
    )


def entrance(b: Builder, source: Value) -> tuple[Value, NDArray, Fraction | None]:
    """Add what makes codes of the input: the value, inputs, and a scale if it is declared."""
    size = (IMAGES, *source.shape[1:])
    if b.choices.chance(25):
        codes = b.rng.integers(0, 256, size).astype(np.float32)
        scale = Fraction(1, 256 if b.style.exact else b.choices.pick([255, 1, 256]))
        spread = float(scale) * 128
        inputs = codes / np.float32(scale.denominator)
        x = replace(source, spread=spread, bits=8, positive=True)
        return (quantise(b, x) if b.choices.chance(30) else x), inputs, scale
    inputs = b.rng.normal(size=size).astype(np.float32)
    x = quantise(b, source)
    if x.scale is not None and (b.style.exact or b.choices.chance(10)):
        halves = np.round(inputs / x.scale.max() * 2) / 2 * x.scale.max()
        inputs = np.where(b.rng.uniform(size=size) < 0.5, halves, inputs).astype(np.float32)
    return x, inputs, None


def body(b: Builder, x: Value) -> Value:
    """Add layers."""
    if len(x.shape) > 2:
        for _ in range(b.choices.integer(1, 4)):
            x = b.choices.pick(image_layers)(b, x)
        if not b.choices.chance(85):
            return x
        x = flat(b, x)
    for _ in range(b.choices.integer(0, 2)):
        x = b.choices.pick(vector_layers)(b, x)
    return x


def flat(b: Builder, x: Value) -> Value:
    """Make a vector of an image."""
    choices = b.choices
    shape = (1, int(np.prod(x.shape[1:])))
    if choices.chance(15):
        order = [0, *range(2, len(x.shape)), 1]
        moved = tuple(x.shape[axis] for axis in order)
        x = b.kept("Transpose", x, shape=moved, perm=order)
    if set(x.space) == {1} and choices.chance(40):
        return b.with_axes("Squeeze", x, list(range(2, len(x.shape))), shape)
    form = choices.pick(["Flatten", "fixed", "computed"])
    if form == "Flatten":
        return b.kept("Flatten", x, shape=shape, **({"axis": 1} if choices.chance(50) else {}))
    if form == "fixed":
        sizes = choices.pick([[1, -1], [0, -1], [-1, shape[1]], [1, shape[1]]])
        return b.kept("Reshape", x, b.constant(sizes, np.int64), shape=shape)
    return b.kept("Reshape", x, computed_shape(b, x), shape=shape)


def computed_shape(b: Builder, x: Value) -> str:
    """Add nodes that compute the shape of a vector from that of an image."""
    (name,) = b.add("Shape", [x.name])
    (name,) = b.add("Gather", [name, b.constant(0, np.int64)], axis=0)
    if b.style.opset < 13:
        (name,) = b.add("Unsqueeze", [name], axes=[0])
    else:
        (name,) = b.add("Unsqueeze", [name, b.constant([0], np.int64)])
    (name,) = b.add("Concat", [name, b.constant([-1], np.int64)], axis=0)
    return name


def last(b: Builder, x: Value) -> Value:
    """Add the last product."""
    if len(x.shape) > 2:
        return conv(b, x)
    return dense(b, x, b.choices.pick([4, 2, 5]))


def head(b: Builder, x: Value) -> tuple[str, int, tuple[int, ...]]:
    """Add the end: name, type and shape of the output."""
    kind = b.choices.pick([""] * 5 + ["quantise", "largest", "Softmax"])
    if kind == "quantise":
        x = quantise(b, x)
    elif kind == "largest" and len(x.shape) == 2:
        return b.largest(x)
    elif kind == "Softmax" and len(x.shape) == 2:
        x = b.apply("Softmax", x, axis=b.axis(1, 2))
    return x.name, TensorProto.FLOAT, x.shape


def contents(model: ModelProto) -> Counter[str]:
    """What a model holds: operators, rounding modes, operator sets and forms, counted."""
    found = Counter(f"opset {entry.domain}:{entry.version}" for entry in model.opset_import)
    for node in model.graph.node:
        found[f"{node.domain}:{node.op_type}"] += 1
        found["unnamed"] += not node.name
        for attribute in node.attribute:
            if attribute.name == "rounding_mode":
                found[f"{node.op_type} {attribute.s.decode().upper()}"] += 1
    readers = Counter(name for node in model.graph.node for name in node.input if name)
    found["shared"] = sum(readers[entry.name] > 1 for entry in model.graph.initializer)
    found["listed"] = len(model.graph.input) - 1
    return +found
