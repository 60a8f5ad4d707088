"""Codes of a layer's weights, and the model with the rounding in it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import frexp

import numpy as np
from numpy.typing import NDArray

from brambling.quant.interchange.graph import QONNX, Graph, Node
from brambling.quant.interchange.quantise_fold import unused
from brambling.quant.interchange.quantise_radix import Format, best_weights, decibels, round_rows
from brambling.quant.interchange.quantise_report import Rounding

__all__ = ["Builder", "Codes", "Product", "round_product"]

BIAS_BITS = 32  #: Of a bias at the step of the sums, at most.
FINEST = 64  #: Radix point that any bias of 0 allows.


@dataclass(frozen=True)
class Codes:
    """Codes of an activation and what they stand for."""

    format: Format
    step: float
    rounding: Rounding


@dataclass(frozen=True, eq=False)
class Product:
    """Weights and bias of a layer, rounded.

    Parameters
    ----------
    format, codes, steps
        Of the weights; one step, or one for each output.
    bias
        Codes at ``bias_steps``, the steps of the sums; ``None`` where there is none.
    rounding
        What it costs.
    """

    format: Format
    codes: NDArray[np.int64]
    steps: NDArray[np.float64]
    bias: NDArray[np.int64] | None
    bias_steps: NDArray[np.float64]
    rounding: Rounding


def round_product(
    graph: Graph, node: Node, data_step: float, fmt: Format, per_channel: bool
) -> Product:
    """Round a layer whose input has steps of ``data_step``."""
    weights = graph.constants[node.inputs[1]]
    bias = graph.constants[node.inputs[2]] if len(node.inputs) > 2 else None
    rows = weights.reshape(len(weights) if per_channel else 1, -1)
    fracs = best_weights(rows, fmt)
    if bias is not None and not bias.any():
        bias = None
    if bias is not None:
        # Sums are not finer than a bias needs: a tiny weight beside it has no say.
        most = np.abs(bias) if per_channel else np.abs(bias).max(keepdims=True)
        room = [finest_step(data_step, float(size)) for size in most]
        fracs = np.minimum(fracs, room)
    steps = np.ldexp(1.0, -fracs)
    codes, noise, clipped = round_rows(rows, fmt, steps)
    sums = data_step * steps
    rounding = Rounding(
        fmt.bits,
        fmt.signed,
        tuple(fracs.tolist()),
        float(steps.max()),
        float(clipped.sum() / weights.size),
        decibels(float(np.square(rows).sum()), float(noise.sum())),
    )
    integers = None if bias is None else np.rint(bias / sums).astype(np.int64)
    return Product(fmt, codes.reshape(weights.shape), steps, integers, sums, rounding)


def finest_step(data_step: float, bias: float) -> int:
    """Return the largest radix point of weights with which a bias has a code."""
    if not bias:
        return FINEST
    return frexp(((1 << BIAS_BITS - 1) - 1) * data_step / bias)[1] - 1


# The model ----------------------------------------------------------------------------------------


class Builder:
    """Puts rounding into a model."""

    def __init__(
        self, graph: Graph, data: Mapping[str, Codes], weights: Mapping[str, Product]
    ) -> None:
        self.nodes: list[Node] = []
        self.constants = dict(graph.constants)
        self.shapes = dict(graph.shapes)
        self.names = {node.name: node for node in graph.nodes}
        codes = graph.input
        if graph.input in data:
            codes = self.name(f"{graph.input}_quantised", graph.input)
            self.quantiser(graph.input, codes, data[graph.input].format, data[graph.input].step)
        for node in graph.nodes:
            inputs = tuple(codes if name == graph.input else name for name in node.inputs)
            node = replace(node, inputs=inputs)
            if node.name in weights:
                node = self.product(node, weights[node.name])
            result = node.outputs[0]
            if result in data:
                # The rounded tensor keeps the name: it takes the other's place.
                before = self.name(f"{result}_exact", result)
                self.nodes.append(replace(node, outputs=(before,)))
                self.quantiser(before, result, data[result].format, data[result].step)
            else:
                self.nodes.append(node)
        self.graph = replace(
            graph, nodes=tuple(self.nodes), constants=self.constants, shapes=self.shapes
        )

    def name(self, name: str, like: str) -> str:
        """Return an unused name for a tensor that is shaped as another."""
        name = unused(name, self.constants, self.shapes)
        self.shapes[name] = self.shapes[like]
        return name

    def constant(self, name: str, values: NDArray) -> str:
        """Add a constant, and return its name."""
        name = unused(name, self.constants, self.shapes)
        self.constants[name] = values
        self.shapes[name] = values.shape
        return name

    def quantiser(
        self, source: str, result: str, fmt: Format, step: float | NDArray[np.float64]
    ) -> None:
        """Add a node that rounds to codes."""
        scalars = {"scale": step, "zero": 0.0, "bits": float(fmt.bits)}
        inputs = [self.constant(f"{result}.{key}", np.asarray(v)) for key, v in scalars.items()]
        name = unused(f"{result}.quantiser", self.names)
        attributes = {"signed": int(fmt.signed), "narrow": 0, "rounding_mode": "ROUND"}
        node = Node("IntQuant", QONNX, name, (source, *inputs), (result,), attributes, 1)
        self.names[name] = node
        self.nodes.append(node)

    def product(self, node: Node, made: Product) -> Node:
        """Return a product that reads rounded weights and bias."""
        rank = made.codes.ndim
        several = len(made.steps) > 1
        steps = made.steps.reshape(-1, *[1] * (rank - 1)) if several else made.steps[0]
        inputs = [node.inputs[0], self.parameter(node, "weight", made.codes, made.format, steps)]
        if made.bias is not None:
            most = int(np.abs(made.bias).max()).bit_length() + 1
            fmt = Format(max(2, most), signed=True)
            steps = made.bias_steps if several else made.bias_steps[0]
            inputs.append(self.parameter(node, "bias", made.bias, fmt, steps))
        return replace(node, inputs=tuple(inputs))

    def parameter(
        self, node: Node, kind: str, codes: NDArray, fmt: Format, steps: NDArray[np.float64]
    ) -> str:
        """Add codes as the reals that they stand for, and the node that says so."""
        source = self.constant(f"{node.name}.{kind}_values", codes * steps)
        result = self.name(f"{node.name}.{kind}_codes", source)
        self.quantiser(source, result, fmt, steps)
        return result
