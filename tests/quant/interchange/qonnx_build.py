"""Parts of random QONNX graphs: decisions, values, and nodes in the forms of each operator set."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

__all__ = ["CHANNELS_LAST", "GENERAL", "Builder", "Choices", "Style", "Value", "seeded"]

T = TypeVar("T")
GENERAL = "qonnx.custom_op.general"
CHANNELS_LAST = "qonnx.custom_op.channels_last"


class Choices:
    """Decisions; the smaller a number, the simpler what it stands for, so that they can shrink.

    Parameters
    ----------
    integer
        Draws a whole number between two, both included.
    """

    def __init__(self, integer: Callable[[int, int], int]):
        self.integer = integer

    def pick(self, options: Sequence[T]) -> T:
        """One of several; the first is the simplest."""
        return options[self.integer(0, len(options) - 1)]

    def chance(self, percent: int) -> bool:
        """Whether something less simple is done."""
        return self.integer(0, 99) >= 100 - percent

    def generator(self) -> np.random.Generator:
        """Make a generator of numbers that have no structure."""
        return np.random.default_rng(self.integer(0, 2**32 - 1))


def seeded(seed: int) -> Choices:
    """Decisions that follow from a number."""
    return Choices(random.Random(seed).randint)


@dataclass(frozen=True)
class Style:
    """What is the same in a whole graph.

    Parameters
    ----------
    opset
        Version of ONNX' own operators.
    domain
        Name that the file uses for QONNX's operators.
    trunc
        Version of QONNX's operators.
    dialect
        What quantises: ``"qonnx"``, ``"qcdq"`` or ``"finn"`` (thresholds, integer weights).
    exact
        Whether every number is dyadic and short, so that float32 arithmetic is exact.
    named, shared, constants, listed
        Whether nodes have names, equal initialisers are one, constants are nodes, and initialisers
        are listed as inputs.
    """

    opset: int
    domain: str
    trunc: int
    dialect: str
    exact: bool
    named: bool
    shared: bool
    constants: bool
    listed: bool


@dataclass(frozen=True)
class Value:
    """A tensor of the graph.

    Parameters
    ----------
    name
        Of the tensor.
    shape
        With a batch of one; channels second.
    spread
        Roughly the standard deviation of its elements.
    bits
        Width of its codes if it has been quantised, otherwise 0.
    scale
        Of its codes, as the quantiser has it; ``None`` if it has not been quantised.
    positive
        Whether no element is below zero.
    """

    name: str
    shape: tuple[int, ...]
    spread: float
    bits: int = 0
    scale: NDArray | None = None
    positive: bool = False

    @property
    def channels(self) -> int:
        return self.shape[1]

    @property
    def space(self) -> tuple[int, ...]:
        return self.shape[2:]


class Builder:
    """Collects nodes and constants."""

    def __init__(self, choices: Choices, style: Style):
        self.choices, self.style = choices, style
        self.rng = choices.generator()
        self.nodes: list[NodeProto] = []
        self.initialisers: list[TensorProto] = []
        self.shapes: dict[str, tuple[int, ...]] = {}  # of what wrappers read: qonnx needs them
        self.count = 0

    # Numbers --------------------------------------------------------------------------------------

    def scale(self, about: ArrayLike) -> NDArray:
        """Positive float32 near a number: a power of two, always if the style is exact."""
        about = np.asarray(about)
        if self.style.exact or self.choices.chance(15):
            return np.exp2(np.round(np.log2(about))).astype(np.float32)
        return (about * self.rng.uniform(0.75, 1.3, about.shape)).astype(np.float32)

    def numbers(self, shape: tuple[int, ...], spread: float) -> NDArray:
        """Random float32 around zero: of few bits if the style is exact."""
        values = self.rng.normal(size=shape) * spread
        if self.style.exact:
            step = 2.0 ** (round(np.log2(spread)) - 2)
            values = np.round(values / step) * step
        return values.astype(np.float32)

    def factors(self, shape: tuple[int, ...]) -> NDArray:
        """Random float32 around one or minus one, none of them zero."""
        signs = self.rng.choice([-1, 1, 1], shape)
        sizes = self.rng.uniform(0.5, 2, shape)
        sizes = np.exp2(np.round(np.log2(sizes))) if self.style.exact else sizes
        return np.asarray(signs * sizes, np.float32)

    # Graph ----------------------------------------------------------------------------------------

    def fresh(self, kind: str) -> str:
        """Make up a name."""
        self.count += 1
        return f"{kind}_{self.count}"

    def constant(self, values: ArrayLike, dtype: Any = np.float32) -> str:
        """Add a constant; an equal one may be used again."""
        made = numpy_helper.from_array(np.array(values, dtype))
        for known in self.initialisers if self.style.shared else ():
            if replace_name(known, "") == made:
                return known.name
        name = self.fresh("constant")
        self.initialisers.append(replace_name(made, name))
        return name

    def add(
        self, op: str, inputs: Sequence[str], outputs: int = 1, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node; the names of what it computes."""
        names = [self.fresh(op.lower()) for _ in range(outputs)]
        title = self.fresh(op) if self.style.named else ""
        self.nodes.append(
            helper.make_node(op, inputs, names, name=title, domain=domain, **attributes)
        )
        return names

    def apply(
        self,
        op: str,
        x: Value,
        *constants: str,
        shape: tuple[int, ...] | None = None,
        spread: float | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> Value:
        """Add a node with one output that reads a value; it is not quantised any more."""
        (name,) = self.add(op, [x.name, *constants], domain=domain, **attributes)
        return Value(name, shape or x.shape, x.spread if spread is None else spread)

    def kept(self, op: str, x: Value, *constants: str, shape=None, **attributes: Any) -> Value:
        """Add a node that only moves elements."""
        made = self.apply(op, x, *constants, shape=shape, **attributes)
        return replace(x, name=made.name, shape=made.shape)

    def model(self, source: Value, output: str, kind: int, shape: tuple[int, ...]) -> ModelProto:
        """Finish the model."""
        initialisers, nodes = list(self.initialisers), list(self.nodes)
        if self.style.constants:
            nodes[:0] = [
                helper.make_node("Constant", [], [tensor.name], value=tensor)
                for tensor in initialisers
            ]
            initialisers = []
        batch = 1 if self.shapes else self.choices.pick([1, "batch"])
        inputs = [info(source.name, TensorProto.FLOAT, (batch, *source.shape[1:]))]
        if self.style.listed:
            inputs += [info(tensor.name, tensor.data_type, tensor.dims) for tensor in initialisers]
        graph = helper.make_graph(
            nodes,
            "random",
            inputs,
            [info(output, kind, (batch, *shape[1:]))],
            initialisers,
            value_info=[
                info(name, TensorProto.FLOAT, known)
                for name, known in self.shapes.items()
                if all(name != tensor.name for tensor in self.initialisers)
            ],
        )
        return helper.make_model(
            graph, opset_imports=self.imports(), ir_version=3 if self.style.listed else 8
        )

    def imports(self) -> list[onnx.OperatorSetIdProto]:
        """Operator sets of the model."""
        found = {node.domain for node in self.nodes} - {""}
        versions = {"": self.style.opset, self.style.domain: self.style.trunc, CHANNELS_LAST: 14}
        return [
            helper.make_opsetid(domain, version)
            for domain, version in versions.items()
            if not domain or domain in found
        ]

    # Forms that depend on the operator set --------------------------------------------------------

    def axis(self, axis: int, rank: int) -> int:
        """Number of a dimension: from the end as well, where that is allowed."""
        return axis - rank if self.style.opset >= 11 and self.choices.chance(40) else axis

    def with_axes(self, op: str, x: Value, axes: list[int], shape: tuple[int, ...]) -> Value:
        """Add ``Squeeze`` or ``Unsqueeze``."""
        if self.style.opset < 13:
            return self.kept(op, x, shape=shape, axes=axes)
        return self.kept(op, x, self.constant(axes, np.int64), shape=shape)

    def clip(self, x: Value, low: float | None, high: float | None) -> Value:
        """Add ``Clip``; either limit may be missing."""
        if self.style.opset < 11:
            limits = {"min": low, "max": high}
            given: dict = {name: limit for name, limit in limits.items() if limit is not None}
            return self.apply("Clip", x, **given)
        names = ["" if limit is None else self.constant(limit) for limit in (low, high)]
        return self.apply("Clip", x, *(names[:1] if names[1] == "" else names))

    def pad(self, x: Value, pads: list[int]) -> Value:
        """Add ``Pad`` with zeros: all dimensions' begins, then their ends."""
        rank = len(x.shape)
        shape = tuple(n + pads[i] + pads[i + rank] for i, n in enumerate(x.shape))
        if self.style.opset < 11:
            return self.kept("Pad", x, shape=shape, pads=pads, mode="constant", value=0.0)
        value = [self.constant(0)] if self.choices.chance(50) else []
        return self.kept("Pad", x, self.constant(pads, np.int64), *value, shape=shape)

    def split(self, x: Value, sizes: list[int]) -> list[Value]:
        """Add ``Split`` of the channels."""
        opset, inputs = self.style.opset, [x.name]
        attributes: dict = {"axis": 1}
        if opset < 13:
            attributes["split"] = sizes
        elif opset >= 18 and len(set(sizes)) == 1:
            attributes["num_outputs"] = len(sizes)
        else:
            inputs.append(self.constant(sizes, np.int64))
        names = self.add("Split", inputs, len(sizes), **attributes)
        return [
            replace(x, name=name, shape=(1, size, *x.space))
            for name, size in zip(names, sizes, strict=True)
        ]

    def slice(self, x: Value, start: int, stop: int, step: int) -> Value:
        """Add ``Slice`` of the channels."""
        shape = (1, len(range(start, stop, step)), *x.space)
        if self.style.opset < 10:
            return self.kept("Slice", x, shape=shape, starts=[start], ends=[stop], axes=[1])
        names = [self.constant([n], np.int64) for n in (start, stop, 1, step)]
        return self.kept("Slice", x, *names, shape=shape)

    def resize(self, x: Value, factors: list[int]) -> Value:
        """Add enlargement by repetition."""
        shape = (*x.shape[:2], *(n * f for n, f in zip(x.space, factors, strict=True)))
        scales = self.constant([1, 1, *factors])
        opset = self.style.opset
        if opset < 10:
            if opset < 9:
                scales = [1.0, 1.0, *(float(f) for f in factors)]
                return self.kept("Upsample", x, shape=shape, mode="nearest", scales=scales)
            return self.kept("Upsample", x, scales, shape=shape, mode="nearest")
        if opset < 11:
            return self.kept("Resize", x, scales, shape=shape, mode="nearest")
        mode = {"mode": "nearest"}
        if self.choices.chance(60):
            mode |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        roi = "" if opset >= 13 else self.constant(np.zeros(0))
        if opset >= 13 and self.choices.chance(40):
            return self.kept(
                "Resize", x, "", "", self.constant(shape, np.int64), shape=shape, **mode
            )
        return self.kept("Resize", x, roi, scales, shape=shape, **mode)

    def largest(self, x: Value) -> tuple[str, int, tuple[int, ...]]:
        """Add the place of the largest: name, type and shape of the result."""
        if self.choices.chance(50):
            keep = self.choices.integer(0, 1)
            name = self.apply("ArgMax", x, axis=self.axis(1, 2), keepdims=keep).name
            return name, TensorProto.INT64, (1, 1) if keep else (1,)
        if self.style.opset < 10:
            _, name = self.add("TopK", [x.name], 2, k=1, axis=1)
        else:
            _, name = self.add("TopK", [x.name, self.constant([1], np.int64)], 2, axis=-1)
        return name, TensorProto.INT64, (1, 1)


def info(name: str, kind: int, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    """Name, type and shape of a tensor."""
    return helper.make_tensor_value_info(name, kind, list(shape))


def replace_name(tensor: TensorProto, name: str) -> TensorProto:
    """The same constant by another name."""
    made = TensorProto()
    made.CopyFrom(tensor)
    made.name = name
    return made
