"""Clean a model up as QONNX's users do, and execute it: a program of the isolated environment.

``run_cleanup.py MODEL INPUTS.npy OUTPUTS.npz`` writes ``output``, and ``operators``, those that are
left, one a node.
"""
# pyright: reportMissingImports=false

import sys

import numpy as np
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_datatypes import InferDataTypes
from qonnx.util.cleanup import cleanup_model


def main():
    """Clean up, infer data types, and execute frame by frame."""
    file, given, found = sys.argv[1:]
    model = cleanup_model(ModelWrapper(file)).transform(InferDataTypes())
    name = model.graph.input[0].name
    output = model.graph.output[0].name
    frames = np.load(given)
    results = [execute_onnx(model, {name: frame[None]})[output] for frame in frames]
    operators = np.array([node.op_type for node in model.graph.node])
    np.savez(found, output=np.concatenate(results), operators=operators)


main()
