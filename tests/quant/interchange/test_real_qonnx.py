"""The oracles of the importer: the real qonnx, Brevitas' exports, random graphs."""

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings  # noqa: E402

from . import qonnx_graphs, real_qonnx  # noqa: E402
from .qonnx_quantisers import ROUNDINGS  # noqa: E402

SHARED = Path(__file__).resolve().parents[4] / "shared"
OPERATORS = """
Add ArgMax AveragePool BatchNormalization Clip Concat Constant Conv DepthToSpace DequantizeLinear
Div Flatten Gather Gemm GlobalAveragePool LeakyRelu MatMul MaxPool Mul PRelu Pad QuantizeLinear
ReduceMean Relu Reshape Resize Shape Slice Softmax Split Squeeze Sub TopK Transpose Unsqueeze
Upsample
"""
GENERAL, LAST = "qonnx.custom_op.general", "qonnx.custom_op.channels_last"
DOMAINS = (GENERAL, "onnx.brevitas", "finn.custom_op.general")
EXPECTED = {
    *(f":{op}" for op in OPERATORS.split()),
    *(f"{LAST}:{op}" for op in ("BatchNormalization", "Conv", "MaxPool")),
    *(f"{domain}:{op}" for domain in DOMAINS for op in ("Quant", "BipolarQuant", "Trunc")),
    *(f"{GENERAL}:IntQuant", f"{GENERAL}:MultiThreshold", "finn.custom_op.general:MultiThreshold"),
    *(f"{op} {mode}" for op in ("Quant", "IntQuant") for mode in ROUNDINGS),
    *(f"Trunc {mode}" for mode in ("FLOOR", "ROUND", "CEIL")),
    *(f"opset :{version}" for version in qonnx_graphs.OPSETS),
    *(f"opset {GENERAL}:{version}" for version in (1, 2)),
    *("unnamed", "shared", "listed", "exact True", "exact False", "declared True"),
}


def saved(folder, seeds):
    """Graphs of seeds as jobs for the executor."""
    jobs = []
    for seed in seeds:
        case = qonnx_graphs.graph(seed)
        onnx.save(case.model, folder / f"{seed}.onnx")
        jobs.append((folder / f"{seed}.onnx", case.inputs))
    return jobs


# The package --------------------------------------------------------------------------------------


def test_a_model_of_others_gives_its_published_results():
    model, images = SHARED / "models/TFC_1W1A.onnx", SHARED / "data/mnist/t10k-images-idx3-ubyte.gz"
    if not (model.exists() and images.exists()):
        pytest.skip(f"there is no {model} or no {images}")
    real_qonnx.require()
    pixels = np.frombuffer(gzip.decompress(images.read_bytes()), np.uint8, offset=16)
    inputs = pixels.reshape(-1, 1, 28, 28)[:500] / np.float32(255)
    (tensors,) = real_qonnx.execute([(model, inputs)])
    with np.load(SHARED / "models/TFC_1W1A_logits.npz") as stored:
        assert np.array_equal(
            tensors[onnx.load(model).graph.output[0].name], stored["logits"][:500]
        )


def test_what_fails_is_named(tmp_path):
    real_qonnx.require()
    job, *_ = saved(tmp_path, [0])
    (tmp_path / "bad.onnx").write_bytes(b"\xff")
    with pytest.raises(AssertionError, match=r"1 of 2 jobs failed\n.*bad.onnx: DecodeError"):
        real_qonnx.execute([job, (tmp_path / "bad.onnx", np.zeros((1, 2), np.float32))])


def test_a_batch_is_its_images(tmp_path):
    """Where the batch of one is part of the model as where it is not."""
    real_qonnx.require()
    jobs = saved(tmp_path, range(8))
    single = [(file, inputs[n : n + 1]) for file, inputs in jobs for n in range(len(inputs))]
    alone = iter(real_qonnx.execute(single))
    for (file, inputs), together in zip(jobs, real_qonnx.execute(jobs), strict=True):
        output = onnx.load(file).graph.output[0].name
        parts = [next(alone)[output] for _ in inputs]
        np.testing.assert_allclose(np.concatenate(parts), together[output], rtol=1e-5, atol=1e-5)


# Random graphs ------------------------------------------------------------------------------------


def test_a_seed_makes_one_graph():
    a, b, other = (qonnx_graphs.graph(seed) for seed in (5, 5, 6))
    assert a.model == b.model
    assert np.array_equal(a.inputs, b.inputs)
    assert a.model != other.model


def test_graphs_are_valid_and_various():
    found = Counter()
    for seed in range(600):
        case = qonnx_graphs.graph(seed)
        onnx.checker.check_model(case.model, full_check=True)
        found.update(qonnx_graphs.contents(case.model).keys())
        found.update([f"exact {case.exact}", f"declared {case.input_scale is not None}"])
    assert EXPECTED - set(found) == set()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(qonnx_graphs.cases())
def test_graphs_of_hypothesis_are_valid(case):
    onnx.checker.check_model(case.model, full_check=True)
    assert case.inputs.dtype == np.float32
    assert len(case.model.graph.node) > 0


@pytest.mark.parametrize(
    "count", [100, pytest.param(2000, marks=pytest.mark.slow)], ids=["100", "2000"]
)
def test_graphs_execute(tmp_path, count):
    real_qonnx.require()
    jobs = saved(tmp_path, range(count))
    for (file, inputs), tensors in zip(jobs, real_qonnx.execute(jobs), strict=True):
        graph = onnx.load(file).graph
        products = [node for node in graph.node if node.op_type in {"Conv", "Gemm", "MatMul"}]
        assert {node.output[0] for node in products} <= set(tensors), file
        output = tensors[graph.output[0].name]
        assert len(output) == len(inputs), file
        assert np.isfinite(output).all(), file
        assert np.dtype(np.float64) not in {array.dtype for array in tensors.values()}, file


# Brevitas -----------------------------------------------------------------------------------------

QUICK = ("lenet", "residual-alike", "perceptron", "qcdq")


@pytest.mark.parametrize(
    "names", [QUICK, pytest.param(real_qonnx.MODELS, marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_exports_are_what_brevitas_computes(tmp_path, names):
    real_qonnx.require()
    for made in real_qonnx.models(tmp_path, names):
        assert len(np.unique(made.outputs.round(3), axis=0)) > len(made.inputs) / 2, made.file
        np.testing.assert_allclose(made.qonnx, made.outputs, rtol=0, atol=1e-6, err_msg=made.file)
