"""One image of zeros through a graph: what cannot be executed is not a network."""

from math import prod

import numpy as np
from onnx import defs

from brambling.errors import ConfigError
from brambling.quant.interchange.executor import execute, supported
from brambling.quant.interchange.graph import Graph, Node
from brambling.quant.interchange.limits import MAX_ELEMENTS, MAX_PRODUCTS

__all__ = ["HEAVY", "try_out"]

#: What may take longer than its results are large.
HEAVY = frozenset({
    "Conv",
    "ConvTranspose",
    "ConvInteger",
    "QLinearConv",
    "DeformConv",
    "MatMul",
    "Gemm",
})
HEAVY |= {"MatMulInteger", "QLinearMatMul", "Einsum", "AveragePool", "MaxPool", "LpPool", "LRN"}
HEAVY |= {"RNN", "LSTM", "GRU", "DFT", "STFT", "Det", "GridSample", "RoiAlign", "MaxRoiPool"}
HEAVY |= {"NonMaxSuppression", "Attention", "QuantAvgPool2d", "MaxPoolNHWC", "MultiThreshold"}


def try_out(graph: Graph) -> None:
    """Execute a graph once, if all of it is known, and compare the shapes.

    Inference of shapes is lenient: it lets a convolution pass whose weights have other channels
    than its input. What comes after may rely on what has been executed.
    """
    names = {name for node in graph.nodes for name in node.outputs if name}
    if names - graph.shapes.keys() or not all(_executable(node) for node in graph.nodes):
        return
    elements = sum(prod(graph.shapes[name]) for name in names)
    if elements > MAX_ELEMENTS:
        raise ConfigError(
            f"{graph.name}: {elements:,} elements in all its tensors: at most {MAX_ELEMENTS:,}; "
            "use smaller images"
        )
    products = sum(_products(graph, node) for node in graph.nodes)
    if products > MAX_PRODUCTS:
        raise ConfigError(
            f"{graph.name}: {products:,} products for one image: at most {MAX_PRODUCTS:,}; use "
            "smaller images"
        )
    zeros = np.zeros(graph.shapes[graph.input], np.float32)
    for name, value in execute(graph, zeros, names).items():
        if value.size != prod(graph.shapes[name]):
            raise ConfigError(
                f"{graph.name}: {name!r}: is of shape {value.shape}, not {graph.shapes[name]} as "
                "the operators say; export it anew"
            )


def _executable(node: Node) -> bool:
    if node.domain:
        return (node.domain, node.op) in supported()
    if node.op in {"If", "Loop", "Scan", "SequenceMap"}:
        return False  # what is inside is not part of the graph
    try:
        return not defs.get_schema(node.op, node.version, "").deprecated
    except defs.SchemaError:
        return False


def _products(graph: Graph, node: Node) -> int:
    """Return an upper bound of the multiplications, or comparisons, of a node."""
    if node.op not in HEAVY:
        return 0
    results = sum(prod(graph.shapes[name]) for name in node.outputs if name)
    inputs = [graph.shapes[name] for name in node.inputs if name]
    if node.op in {"Conv", "MultiThreshold"} and len(inputs) > 1 and inputs[1]:
        return results * prod(inputs[1][1:])
    if node.op == "MatMul" and inputs[0]:
        return results * inputs[0][-1]
    if node.op == "Gemm" and len(inputs[0]) == 2:
        return results * inputs[0][0 if node.attributes.get("transA", 0) else 1]
    if node.op in {"AveragePool", "MaxPool", "LpPool", "MaxPoolNHWC"}:
        return results * prod(node.attributes.get("kernel_shape", ()))
    if node.op == "QuantAvgPool2d":
        return results * node.attributes["kernel"] ** 2
    return results * max(map(prod, inputs), default=1)
