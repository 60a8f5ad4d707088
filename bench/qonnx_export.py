"""A network as the nodes that QONNX executes; see qonnx_speed.py for the form."""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brambling.network import (
    ArgMax,
    Conv,
    Dense,
    Flatten,
    Layer,
    Network,
    Pool,
    Tensor,
    Thresholds,
)
from brambling.quant.formats import Bipolar

__all__ = ["nodes_of"]


def nodes_of(network: Network) -> dict[str, NDArray]:
    """Return ``layers``, JSON, and the arrays that it names, up to the arg-max.

    Of a chain of products, thresholds and poolings, without padding. MultiThreshold only rises: the
    weights in front of a falling threshold change their sign, and so does the level.
    """
    arrays: dict[str, NDArray] = {}
    layers: list[dict[str, Any]] = [{"shape": _shape(network.input)}]
    for n, layer in enumerate(network.layers):
        if isinstance(layer, ArgMax):
            break
        following = network.layers[n + 1]
        op, array, attributes = _node(layer, following, *network.inputs_of(layer))
        shape = _shape(network.tensors[layer.name])
        named = layer.name if array is not None else ""
        if array is not None:
            arrays[layer.name] = array
        layers.append({"op": op, "array": named, "attributes": attributes, "shape": shape})
    return arrays | {"layers": np.array(json.dumps(layers))}


def _shape(tensor: Tensor) -> list[int]:
    """Channels first."""
    return [tensor.shape[-1], *tensor.shape[:-1]]


def _signs(following: Layer, outputs: int) -> NDArray[np.int64]:
    falling = following.falling if isinstance(following, Thresholds) else np.zeros(outputs, bool)
    return np.broadcast_to(np.where(falling, -1, 1), (outputs,))


def _node(layer: Layer, following: Layer, x: Tensor) -> tuple[str, NDArray | None, dict[str, Any]]:
    """Operator, its array and its attributes."""
    match layer:
        case Dense():
            signed = layer.weights * _signs(following, len(layer.weights))[:, None]
            return "MatMul", signed.T, {}
        case Conv() if not any(layer.padding):
            signed = layer.weights * _signs(following, len(layer.weights))[:, None, None, None]
            attributes = {"kernel_shape": list(layer.window.kernel), "strides": list(layer.stride)}
            attributes |= {"dilations": list(layer.dilation), "group": layer.groups}
            return "Conv", signed.transpose(0, 3, 1, 2), attributes | {"pads": [0, 0, 0, 0]}
        case Thresholds():
            falling = layer.falling[:, None]
            levels = np.where(falling, -layer.levels[:, ::-1], layer.levels)
            if layer.fmt == Bipolar():
                kind, scale, bias = "BIPOLAR", 2.0, -1.0
            else:
                kind = f"{'INT' if layer.fmt.signed else 'UINT'}{layer.fmt.width}"
                scale, bias = 1.0, float(layer.fmt.min)
            return (
                "MultiThreshold",
                levels,
                {"out_dtype": kind, "out_scale": scale, "out_bias": bias},
            )
        case Pool() if layer.kind == "max" and not any(layer.padding):
            window = layer.window(x)
            attributes = {"kernel_shape": list(window.kernel), "strides": list(window.stride)}
            return "MaxPool", None, attributes
        case Flatten() if x.shape[:-1] == (1, 1):  # Else channels would have to move.
            return "Flatten", None, {"axis": 1}
    raise NotImplementedError(f"{layer.name}: {type(layer).__name__}")
