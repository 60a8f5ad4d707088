"""A network as QONNX: every edge is a tensor of that name, which holds the same integers.

Tensors are the codes, batch first and channels second; what they stand for, a power of two apart,
is in the description that the file carries (:mod:`brambling.quant.interchange.restore`). Integers
are float32, as everywhere in QONNX, but where they could exceed 2**24: there they are float64, or
int64 from 2**53. An arg-max is int64.
"""

import base64
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper
from safetensors.numpy import save

from brambling.errors import ConfigError
from brambling.files import write_atomically
from brambling.layers import Layer, Tensor
from brambling.network import INPUT, VERSION, Network
from brambling.quant.interchange import exporter_windows  # noqa: F401  Registers its layers.
from brambling.quant.interchange.exporter_graph import DOMAIN, Builder, Value, holding, reach
from brambling.quant.interchange.exporter_layers import emit
from brambling.quant.interchange.parameters import recovered

__all__ = ["ARRAYS", "DESCRIPTION", "DIGEST", "VERSION_KEY", "export", "model_of", "to_onnx"]

VERSION_KEY = "brambling"  #: In the file's metadata, the version of the description.
DESCRIPTION = "brambling_network"  #: The description: the network but for its arrays.
DIGEST = "brambling_digest"  #: Hash of the whole network.
ARRAYS = "brambling_arrays"  #: Those that cannot be read off the graph, where there are any.
OPSETS = {"": 13, DOMAIN: 1}
IR_VERSION = 8
LARGEST = (1 << 31) - (1 << 20)  #: Bytes of all constants; a protobuf message has less than 2 GiB.


def export(network: Network, path: str | os.PathLike[str]) -> None:
    """Write ``network`` to ``path`` as QONNX; an interrupted write leaves the old file."""
    write_atomically(Path(path), to_onnx(network).SerializeToString())


def to_onnx(network: Network, batch: int = 1) -> ModelProto:
    """Return ``network`` as a QONNX model that takes ``batch`` frames at a time."""
    if type(batch) is not int or batch < 1:
        raise ConfigError(f"batch must be an integer of at least 1, not {batch!r}")
    return model_of(network, batch)


def model_of(network: Network, batch: int, room: int | None = None) -> ModelProto:
    """Return the model; refuse more than ``room`` nodes and elements of constants."""
    builder = Builder(room)
    given = value_of(INPUT, network.input, batch)
    builder.annotate(INPUT, network.input.fmt)
    values, result = {INPUT: given}, given
    for layer in network.layers:
        tensors = network.inputs_of(layer)
        result = emit_layer(layer, builder, tensors, [values[name] for name in layer.inputs])
        values[layer.name] = result
        builder.annotate(layer.name, network.tensors[layer.name].fmt)
    check_size(network, builder)
    model = helper.make_model(
        builder.graph(network.name, given, result),
        opset_imports=[helper.make_opsetid(*opset) for opset in OPSETS.items()],
        ir_version=IR_VERSION,
        producer_name="brambling",
    )
    helper.set_model_props(model, metadata(network, builder))
    return model


def value_of(name: str, tensor: Tensor, batch: int) -> Value:
    """Return a tensor as ONNX has it: channels move to the front."""
    shape = (batch, *tensor.shape[-1:], *tensor.shape[:-1])
    return Value(name, holding(reach(tensor.fmt)), shape)


def emit_layer(
    layer: Layer, builder: Builder, tensors: tuple[Tensor, ...], values: list[Value]
) -> Value:
    builder.layer = layer.name
    kinds = (holding(reach(tensor.fmt)) for tensor in tensors)
    # Only an arg-max is of another type than its format needs.
    given = [builder.cast(value, kind) for value, kind in zip(values, kinds, strict=True)]
    return builder.finish(emit(layer, builder, tensors, *given))


def check_size(network: Network, builder: Builder) -> None:
    size = sum(array.nbytes for array in builder.constants.values())
    if size > LARGEST:
        raise ConfigError(
            f"{network.name}: an ONNX file holds constants of at most {LARGEST:,} bytes, "
            f"not {size:,}: export a smaller network"
        )


def metadata(network: Network, builder: Builder) -> dict[str, str]:
    """Return all of the network that is not arithmetic."""
    text = description(network)
    found = {VERSION_KEY: VERSION, DESCRIPTION: text, DIGEST: network.digest}
    hidden = unseen(network, json.loads(text)["layers"], builder)
    if hidden:
        found[ARRAYS] = base64.b64encode(save(hidden)).decode()
    return found


def description(network: Network) -> str:
    """Return the JSON that the network's own file has."""
    contents = network.to_bytes()
    end = 8 + int.from_bytes(contents[:8], "little")
    return json.loads(contents[8:end])["__metadata__"]["network"]


def unseen(
    network: Network, rows: list[dict[str, Any]], builder: Builder
) -> dict[str, NDArray[Any]]:
    """Return the parameters that cannot be read off the graph: a factor of 1, a level never met."""
    hidden = {}
    for layer, row in zip(network.layers, rows, strict=True):
        found = recovered(row, builder.constants_of(layer.name))
        for key, array in layer.arrays().items():
            known = found.get(key)
            if known is None or known.dtype != array.dtype or not np.array_equal(known, array):
                hidden[f"{layer.name}.{key}"] = np.ascontiguousarray(array)
    return hidden
