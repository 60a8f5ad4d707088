"""A network out of the model that :mod:`brambling.quant.interchange.exporter` made of it."""

import base64
import json
from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, ValueInfoProto, helper
from onnx import numpy_helper as arrays
from safetensors import SafetensorError
from safetensors.numpy import load

from brambling.errors import BramblingError
from brambling.network import VERSION, Network
from brambling.quant.interchange.exporter import (
    ARRAYS,
    DESCRIPTION,
    DIGEST,
    VERSION_KEY,
    model_of,
)
from brambling.quant.interchange.parameters import recovered

__all__ = ["described", "restore", "signature"]

#: What a damaged description or a changed graph may lead to.
DAMAGE = (
    BramblingError,
    SafetensorError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


def restore(model: ModelProto) -> Network | None:
    """Return the network that was exported as ``model``; ``None`` where it is anything else.

    The description in the file and the graph's constants make a network. It must be the one whose
    hash is in the file, and exported again it must give the same graph: else someone has changed
    the model, and what the description says (its accuracy, say) is out of date.
    """
    notes = {entry.key: entry.value for entry in model.metadata_props}
    if notes.get(VERSION_KEY) != VERSION or DESCRIPTION not in notes:
        return None
    try:
        network = described(model)
        same = network.digest == notes.get(DIGEST) and exported_again(network, model)
    except DAMAGE:
        return None
    return network if same else None


def described(model: ModelProto) -> Network:
    """Return the network of the description and the graph's constants, whatever the nodes are."""
    notes = {entry.key: entry.value for entry in model.metadata_props}
    meta = json.loads(notes[DESCRIPTION])
    constants = {tensor.name: array_of(tensor) for tensor in model.graph.initializer}
    hidden = load(base64.b64decode(notes[ARRAYS], validate=True)) if ARRAYS in notes else {}
    return Network._parse(meta, parameters(meta["layers"], constants) | hidden)


def exported_again(network: Network, model: ModelProto) -> bool:
    """Whether exporting the network gives the model's graph; never makes anything larger."""
    (given,) = model.graph.input
    batch = given.type.tensor_type.shape.dim[0].dim_value
    sizes = (prod(tensor.dims) for tensor in model.graph.initializer)
    again = model_of(network, batch, room=len(model.graph.node) + sum(sizes))
    return batch > 0 and signature(model) == signature(again)


def array_of(tensor: TensorProto) -> NDArray:
    """Return a tensor that lies in the file itself."""
    if tensor.data_location == TensorProto.EXTERNAL:
        raise ValueError(tensor.name)
    return arrays.to_array(tensor)


def parameters(rows: Iterable[dict[str, Any]], constants: dict[str, NDArray]) -> dict[str, NDArray]:
    """Return the arrays of all layers, by the names of a network's file."""
    by_layer: dict[str, dict[str, NDArray]] = {}
    for name, array in constants.items():
        layer, _, what = name.partition(".")
        by_layer.setdefault(layer, {})[what] = array
    return {
        f"{row['name']}.{key}": np.ascontiguousarray(array)
        for row in rows
        for key, array in recovered(row, by_layer.get(row["name"], {})).items()
    }


# Comparison ----------------------------------------------------------------------------------


def signature(model: ModelProto) -> Any:
    """Return all that a model computes; order, names of nodes and notes are not part of it."""
    graph = model.graph
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    return opsets, len(model.functions), _signature(graph)


def _signature(graph: GraphProto) -> Any:
    nodes = {
        tuple(node.output): (
            node.op_type,
            node.domain,
            tuple(node.input),
            {entry.name: _plain(entry) for entry in node.attribute},
        )
        for node in graph.node
    }
    constants = {}
    for tensor in graph.initializer:
        array = array_of(tensor)
        constants[tensor.name] = array.dtype.str, array.shape, array.tobytes()
    counts = len(graph.node), len(graph.initializer), len(graph.sparse_initializer)
    ends = [_end(value) for value in graph.input], [_end(value) for value in graph.output]
    return counts, nodes, constants, ends


def _plain(attribute: AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    plain = value if isinstance(value, bytes | int | float | str) else tuple(value)
    return attribute.type, plain


def _end(value: ValueInfoProto) -> Any:
    tensor = value.type.tensor_type
    dims = tuple((entry.dim_value, entry.dim_param) for entry in tensor.shape.dim)
    return value.name, tensor.elem_type, dims
