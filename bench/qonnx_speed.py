"""Images a second of QONNX's executor; called by golden.py, in an environment that has qonnx.

    python bench/qonnx_speed.py GIVEN.npz GOT.npz

GIVEN has ``images``, bytes ``(n, elements)``, and the arrays of a network of bipolar layers:
``levels0``, ``weights0``, ``levels1``, … The model is MultiThreshold (domain
``qonnx.custom_op.general``, onto -1 and +1) and MatMul in turn. GOT gets the logits by batch; the
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
GENERAL = "qonnx.custom_op.general"


def model_of(arrays: dict[str, np.ndarray], batch: int) -> ModelWrapper:
    """Build the model; shapes are given everywhere, so nothing is left to be inferred."""

    def tensor(name: str, size: int):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, size])

    nodes, between, parameters = [], [], {}
    source = "x"
    for n in range(sum(name.startswith("weights") for name in arrays)):
        weights, levels = arrays[f"weights{n}"], arrays[f"levels{n}"]
        bits, product = f"bits{n}", f"product{n}"
        threshold = helper.make_node(
            "MultiThreshold",
            [source, f"levels{n}"],
            [bits],
            domain=GENERAL,
            out_dtype="BIPOLAR",
            out_scale=2.0,
            out_bias=-1.0,
        )
        nodes += [threshold, helper.make_node("MatMul", [bits, f"weights{n}"], [product])]
        between += [tensor(bits, weights.shape[1]), tensor(product, weights.shape[0])]
        parameters[f"levels{n}"] = levels.reshape(-1, 1).astype(np.float32)
        parameters[f"weights{n}"] = np.ascontiguousarray(weights.T, np.float32)
        source = product
    inputs = [tensor("x", arrays["weights0"].shape[1])]
    graph = helper.make_graph(nodes, "network", inputs, between[-1:], value_info=between[:-1])
    model = ModelWrapper(qonnx_make_model(graph))
    for name, value in parameters.items():
        model.set_initializer(name, value)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("given", type=Path)
    parser.add_argument("got", type=Path)
    args = parser.parse_args()

    arrays = dict(np.load(args.given, allow_pickle=False))
    images = arrays.pop("images").astype(np.float32)
    logits, rates = {}, {}
    for batch in BATCHES:
        model = model_of(arrays, batch)
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
