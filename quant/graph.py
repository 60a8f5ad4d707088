"""From a trained PyTorch module to the integer network, bit for bit, by exact arithmetic.

The module is traced; every step gets the integers that it computes on and their exact meaning
(:mod:`brambling.quant.values`). Products stay integers; scales, offsets, biases, batch-norms and
ReLUs fold into the next :class:`~brambling.quant.layers.QuantActivation`, which becomes the
smallest layer that is exactly the same function of the integer sums (:mod:`brambling.quant.forms`).
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_arg
from torch.fx.proxy import TraceError
from torch.nn import functional

from brambling.errors import ConfigError
from brambling.network import Network, Tensor
from brambling.quant import joining
from brambling.quant.formats import Fixed, Format
from brambling.quant.layers import PixelInput, QuantActivation, QuantConv2d, QuantLinear
from brambling.quant.lowering import Builder, unsupported
from brambling.quant.models import Scale
from brambling.quant.modules import lower
from brambling.quant.quantiser import Quantiser
from brambling.quant.values import Value

__all__ = ["Graph", "export_graph"]

PIXEL = Fixed(8, 0, signed=False)
LEAVES = (PixelInput, QuantActivation, QuantConv2d, QuantLinear, Quantiser, Scale)
#: Functions and methods that are modules too.
MODULES: dict[Any, type[nn.Module]] = {
    functional.relu: nn.ReLU,
    torch.relu: nn.ReLU,
    "relu": nn.ReLU,
    torch.sigmoid: nn.Sigmoid,
    "sigmoid": nn.Sigmoid,
    torch.tanh: nn.Tanh,
    "tanh": nn.Tanh,
    functional.silu: nn.SiLU,
}


# Functions ----------------------------------------------------------------------------------------


def arguments(node: fx.Node, *names: str) -> Any:
    """Arguments of a call after the first, by name or place; ``None`` where not given."""
    rest = node.args[1:]
    return [
        rest[place] if place < len(rest) else node.kwargs.get(name)
        for place, name in enumerate(names)
    ]


def channels_only(dimension: Any, what: str) -> None:
    """Refuse another dimension than that of the channels."""
    if dimension not in {1, -3}:
        raise unsupported(what, "dimension", dimension, "use 1, the channels")


def parts_of(builder: Builder, node: fx.Node, x: Value, what: str) -> list[Value]:
    """Results of ``chunk`` and ``split``."""
    chunked = node.target in {torch.chunk, "chunk"}
    size: Any
    size, dimension = arguments(node, "chunks" if chunked else "split_size", "dim")
    if size is None:
        size = node.kwargs["split_size_or_sections"]
    if chunked:
        size = -(-x.channels // size)
    channels_only(0 if dimension is None else dimension, what)
    if isinstance(size, int):
        size = [min(size, x.channels - start) for start in range(0, x.channels, size)]
    stops = accumulate(size)
    return [
        joining.cut(builder, x, stop - width, stop, what)
        for width, stop in zip(size, stops, strict=True)
    ]


def item(builder: Builder, x: Any, index: Any, what: str) -> Any:
    """``x[index]``: a part of a split, or a slice of channels."""
    if isinstance(x, list):
        return x[index]
    every = slice(None)
    if not isinstance(index, tuple) or not all(isinstance(part, slice) for part in index):
        raise unsupported(what, "index", index, "slice the channels, x[:, a:b]")
    if len(index) < 2 or any(part != every for part in (index[0], *index[2:])):
        raise unsupported(what, "index", index, "slice the channels, x[:, a:b]")
    start, stop, step = index[1].indices(x.channels)
    if step != 1:
        raise unsupported(what, "step of the slice", step, "use 1")
    return joining.cut(builder, x, start, stop, what)


def mean(builder: Builder, node: fx.Node, x: Value, what: str) -> Value:
    """``x.mean((2, 3))``: the global average."""
    dimensions, keep = arguments(node, "dim", "keepdim")
    if not isinstance(dimensions, tuple | list) or sorted(d % 4 for d in dimensions) != [2, 3]:
        raise unsupported(what, "dimensions", dimensions, "use (2, 3), rows and columns")
    value = joining.average(builder, x, None, None, what)
    return value if keep else joining.flatten(builder, value)


def call(builder: Builder, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    """Add what a function or a method computes."""
    what = f"{node.name} ({getattr(node.target, '__name__', node.target)})"
    inputs: Any = map_arg(node.args, lambda arg: values[arg])
    x = inputs[0]
    match node.target:
        case operator.add | operator.iadd | torch.add | "add" | "add_":
            if not all(isinstance(part, Value) for part in inputs) or node.kwargs:
                raise unsupported(what, "inputs", "numbers", "add two tensors")
            return joining.add(builder, inputs, what)
        case torch.cat | torch.concat:
            (dimension,) = arguments(node, "dim")
            channels_only(0 if dimension is None else dimension, what)
            return joining.concat(builder, x, what)
        case torch.flatten | "flatten":
            start, stop = arguments(node, "start_dim", "end_dim")
            if start != 1 or stop not in {None, -1, 3}:
                raise unsupported(what, "dimensions", (start, stop), "flatten from 1 to -1")
            return joining.flatten(builder, x)
        case torch.chunk | "chunk" | torch.split | "split":
            return parts_of(builder, node, x, what)
        case operator.getitem:
            return item(builder, x, inputs[1], what)
        case torch.mean | "mean":
            return mean(builder, node, x, what)
        case _ if node.target in MODULES:
            return lower(MODULES[node.target](), builder, x, what)
    raise unsupported(what, "kind", "a function", "use a module of torch.nn, or of quant.layers")


# The whole ----------------------------------------------------------------------------------------


class Tracer(fx.Tracer):
    """Stops at the modules that have a meaning here."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, LEAVES) or super().is_leaf_module(m, module_qualified_name)


class Graph:
    """A traced model, its layers, and the value of every step.

    Parameters
    ----------
    model
        The trained model; takes images ``(n, channels, rows, columns)``, returns logits.
    frame
        Shape ``(rows, columns, channels)`` and format of an image.
    argmax
        Whether the last layer is to be the arg-max.

    Members
    -------
    steps
        Steps of the traced model that became a value, in order, with their values.
    """

    def __init__(self, model: nn.Module, frame: Tensor, argmax: bool = True) -> None:
        self.model, self.builder = model, Builder(frame, "a QuantActivation")
        try:
            self.traced = Tracer().trace(model)
        except (TraceError, TypeError) as error:
            raise unsupported(
                type(model).__name__, "forward", f"traced ({error})", "branch on no values"
            ) from None
        self.steps: dict[fx.Node, Any] = {}
        for node in self.traced.nodes:
            self.steps[node] = self._step(node)
        self.logits = joining.end(self.builder, self.steps[self.traced.output_node()], argmax)

    def _step(self, node: fx.Node) -> Any:
        match node.op:
            case "placeholder":
                value: Any = self.builder.input()
            case "call_module":
                module = self.model.get_submodule(str(node.target))
                what = f"{node.target} ({type(module).__name__})"
                if len(node.args) != 1 or not isinstance(node.args[0], fx.Node):
                    raise unsupported(what, "inputs", len(node.args), "use modules of one input")
                value = lower(module, self.builder, self.steps[node.args[0]], what)
            case "call_function" | "call_method":
                value = call(self.builder, node, self.steps)
            case "output":
                return self.steps[one(node)]
            case _:
                raise unsupported(node.name, "kind", "a parameter", "use a QuantLinear")
        if isinstance(value, Value):
            before = [x for n in node.all_input_nodes if isinstance(x := self.steps[n], Value)]
            product = node.op == "call_module" and value.edge not in {x.edge for x in before}
            alone = product or (bool(before) and all(x.alone for x in before))
            value = replace(value, alone=alone and len(node.users) == 1)
        return value

    def network(self, name: str, **facts: Any) -> Network:
        """Return the network; ``facts`` are those of :class:`~brambling.network.Network`."""
        builder = self.builder
        return Network(name, builder.tensors["input"], tuple(builder.layers.values()), **facts)


def one(node: fx.Node) -> fx.Node:
    """Return the single result of the model."""
    (result,) = node.args
    if not isinstance(result, fx.Node):
        raise unsupported("output", "number of results", len(node.all_input_nodes), "return one")
    return result


def export_graph(
    model: nn.Module,
    name: str,
    input_shape: Sequence[int],
    *,
    classes: Sequence[str] = (),
    normalisation: str = "",
    provenance: Mapping[str, Any] | None = None,
    fmt: Format = PIXEL,
    argmax: bool = True,
) -> Network:
    """Integer network of a trained model, bit for bit what it computes without rounding.

    Parameters
    ----------
    model
        Built of the modules that :func:`lower` knows; see the page "From PyTorch to a network".
    input_shape
        ``(rows, columns, channels)``.
    fmt
        Format of the pixels.
    argmax
        Whether the last layer is to be the arg-max of the logits.
    """
    if len(input_shape) != 3:
        raise ConfigError(f"{name}: input_shape must be (rows, columns, channels), not "
                          f"{tuple(input_shape)}")  # fmt: skip
    graph = Graph(model, Tensor(tuple(input_shape), fmt), argmax)
    return graph.network(
        name, classes=tuple(classes), normalisation=normalisation, provenance=provenance or {}
    )
