"""Images a second of QONNX's executor; called by golden.py, in an environment that has qonnx.

    python bench/qonnx_speed.py GIVEN.npz GOT.npz

GIVEN has ``images``, integers ``(n, elements)``, channels last, and the network: ``layers``, the
JSON of a list, one entry for the input and one a node, and the arrays that they name. MatMul, Conv,
MaxPool and Flatten are ONNX's, MultiThreshold (domain ``qonnx.custom_op.general``) is QONNX's.
Images are laid out anew, channels first, before the clock starts. GOT gets the logits by batch; the
last line printed is JSON.
"""

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.util.basic import qonnx_make_model

BATCHES = (1, 100)
REPEATS = {1: 30, 100: 15}  #: Executions of a batch, after a first one; the fastest counts.
DOMAINS = {"MultiThreshold": "qonnx.custom_op.general"}


def model_of(given: dict[str, np.ndarray], batch: int) -> ModelWrapper:
    """Build the model; shapes are given everywhere, so nothing is left to be inferred."""
    first, *layers = json.loads(str(given["layers"]))

    def tensor(name: str, shape: list[int]):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape])

    nodes, between = [], []
    source = "x"
    for n, layer in enumerate(layers):
        operands = [source] + ([layer["array"]] if layer["array"] else [])
        source = f"y{n}"
        domain = {"domain": DOMAINS[layer["op"]]} if layer["op"] in DOMAINS else {}
        attributes = layer["attributes"] | domain
        nodes.append(helper.make_node(layer["op"], operands, [source], **attributes))
        between.append(tensor(source, layer["shape"]))
    inputs = [tensor("x", first["shape"])]
    graph = helper.make_graph(nodes, "network", inputs, between[-1:], value_info=between[:-1])
    model = ModelWrapper(qonnx_make_model(graph))
    for layer in layers:
        if layer["array"]:
            values = np.ascontiguousarray(given[layer["array"]], np.float32)
            model.set_initializer(layer["array"], values)
    return model


def channels_first(images: np.ndarray, shape: list[int]) -> np.ndarray:
    """Lay images ``(n, elements)`` out as ONNX has them, ``(n, *shape)``, float32."""
    if len(shape) == 3:
        channels, rows, columns = shape
        images = images.reshape(-1, rows, columns, channels).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images, np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("given", type=Path)
    parser.add_argument("got", type=Path)
    args = parser.parse_args()

    given = dict(np.load(args.given, allow_pickle=False))
    shape = json.loads(str(given["layers"]))[0]["shape"]
    images = channels_first(given["images"], shape)
    logits, rates = {}, {}
    for batch in BATCHES:
        model = model_of(given, batch)
        outputs, seconds = [], []
        # Past the last image it starts again at the first; those results are not kept.
        for n in range(REPEATS[batch] + 1):
            x = images[np.arange(n * batch, (n + 1) * batch) % len(images)]
            start = time.perf_counter()
            (result,) = execute_onnx(model, {"x": x}).values()
            seconds.append(time.perf_counter() - start)
            outputs.append(result)
        logits[str(batch)] = np.concatenate(outputs)[: len(images)]
        rates[batch] = batch / min(seconds[1:])
    np.savez(args.got, allow_pickle=False, **logits)
    versions = {package: version(package) for package in ("qonnx", "onnx", "onnxruntime")}
    print(json.dumps({"images_per_s": rates, "versions": versions}))


if __name__ == "__main__":
    main()
