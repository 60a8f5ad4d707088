"""Execute models with the ``qonnx`` package: a program of the isolated environment.

``run_qonnx.py FOLDER`` reads ``FOLDER/jobs.json``, a list of model files, and the inputs
``FOLDER/N.npy`` of the N-th. It writes ``FOLDER/N.npz`` with ``names`` and the tensors ``0``, ``1``
and so on, or ``FOLDER/N.txt`` with what went wrong.

The package executes node by node and makes a session for each at every call, so all inputs go
through at once as one batch where the model allows it. The arithmetic is the package's own.
"""
# pyright: reportMissingImports=false

import functools
import json
import os
import sys
import warnings
from copy import deepcopy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.fold_constants import FoldConstantsFiltered
from qonnx.transformation.infer_shapes import InferShapes

GENERAL = "qonnx.custom_op.general"
SEEN = ("Quant", "IntQuant", "BipolarQuant", "Trunc", "QuantizeLinear", "DequantizeLinear")


class NotBatched(Exception):
    """The model's own batch of one is part of what it computes."""


def main():
    """Execute the jobs of the folder that is named on the command line."""
    one_thread()
    folder = Path(sys.argv[1])
    for n, file in enumerate(json.loads((folder / "jobs.json").read_text())):
        try:
            save(folder / f"{n}.npz", execute(file, np.load(folder / f"{n}.npy")))
        except Exception as why:
            (folder / f"{n}.txt").write_text(f"{type(why).__name__}: {why}")


def one_thread():
    """Make sessions without a pool of threads each, and without their warnings."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    onnxruntime.InferenceSession = functools.partial(
        onnxruntime.InferenceSession, sess_options=options, providers=["CPUExecutionProvider"]
    )


def save(file, tensors):
    """Write tensors by number: their names may be anything."""
    arrays = {str(n): array for n, array in enumerate(tensors.values())}
    np.savez(file, names=np.array(json.dumps(list(tensors))), **arrays)


def execute(file, inputs):
    """All tensors of a model that nodes compute, those that depend on the input for a batch."""
    model = prepared(file)
    moving = dependents(model)
    try:
        tensors = together(model, moving, inputs)
    except Exception:
        tensors = one_by_one(model, moving, inputs)
    computed = {name for node in model.graph.node for name in node.output}
    return {name: tensors[name] for name in tensors if name in moving or name in computed}


def prepared(file):
    """Read a model and give every tensor a shape, for a batch of one; names stay."""
    proto = onnx.load(os.fspath(file))
    for node in proto.graph.node:
        if node.domain == "onnx.brevitas":  # as the package's clean-up does
            node.domain = GENERAL
    batch = variable(proto.graph)[0].type.tensor_type.shape.dim[0]
    if batch.dim_value > 1:
        raise ValueError(f"the model has a fixed batch of {batch.dim_value}")
    fix_batch(proto.graph, batch)
    # The package takes the first for ONNX' own when it folds constants.
    ordered = sorted(proto.opset_import, key=lambda entry: entry.domain not in {"", "ai.onnx"})
    del proto.opset_import[:]
    proto.opset_import.extend(ordered)
    constants_as_initialisers(proto)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Some old-style domain attributes were converted"
        model = ModelWrapper(proto).transform(InferShapes())
    return model.transform(FoldConstantsFiltered(lambda _, node: node.op_type not in SEEN))


def variable(graph):
    """Inputs of a graph that are not initialisers."""
    known = {tensor.name for tensor in graph.initializer}
    return [info for info in graph.input if info.name not in known]


def fix_batch(graph, batch):
    """Make the batch one wherever it is named."""
    name = batch.dim_param
    batch.dim_value = 1
    for info in [*graph.output, *graph.value_info]:
        for dim in info.type.tensor_type.shape.dim:
            if name and dim.dim_param == name:
                dim.dim_value = 1


def constants_as_initialisers(proto):
    """Replace nodes without inputs, which the package folds one at a time."""
    for node in [node for node in proto.graph.node if node.op_type == "Constant"]:
        array = constant(node.attribute[0])
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, node.output[0]))
        proto.graph.node.remove(node)


def constant(attribute):
    """Value of a node without inputs."""
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return onnx.numpy_helper.to_array(value)
    return np.array(value, np.float32 if "float" in attribute.name else np.int64)


def dependents(model):
    """Names of the tensors that depend on the input."""
    names = {info.name for info in variable(model.graph)}
    for node in model.graph.node:
        if names.intersection(node.input):
            names.update(node.output)
    return names


def together(model, moving, inputs):
    """Execute a batch at once.

    Raises
    ------
    NotBatched
        If a tensor's first dimension is not the batch.
    """
    shapes = {name: model.get_tensor_shape(name) for name in moving}
    if any(not shape or shape[0] != 1 for shape in shapes.values()):
        raise NotBatched
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "Output shapes disagree"
        context = run(rebatched(model, moving, len(inputs)), inputs)
    if any(context[name].shape != (len(inputs), *shapes[name][1:]) for name in moving):
        raise NotBatched
    return context


def rebatched(model, moving, count):
    """Copy a model for another batch."""
    model = deepcopy(model)
    graph = model.graph
    for info in [*graph.input, *graph.output, *graph.value_info]:
        if info.name in moving:
            info.type.tensor_type.shape.dim[0].dim_value = count
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[0] in moving:
            shape = model.get_initializer(node.input[1]).copy()
            if shape[0] == 1:
                shape[0] = count
            model.set_initializer(node.input[1], shape)
    return model


def one_by_one(model, moving, inputs):
    """Execute image by image."""
    contexts = [run(model, image[None]) for image in inputs]
    return {
        name: stacked([context[name] for context in contexts]) if name in moving else array
        for name, array in contexts[0].items()
    }


def stacked(tensors):
    """Results of a batch of one, beside each other."""
    if tensors[0].ndim and tensors[0].shape[0] == 1:
        return np.concatenate(tensors)
    return np.stack(tensors)


def run(model, inputs):
    """Every tensor of one execution by the package."""
    return execute_onnx(model, {variable(model.graph)[0].name: inputs}, True)


if __name__ == "__main__":
    main()
