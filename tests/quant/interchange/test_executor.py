"""Execution in floats against the ``qonnx`` package's, and a batch against its images."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx import ModelProto, TensorProto, helper, numpy_helper

from brambling import zoo
from brambling.errors import ConfigError
from brambling.quant.interchange import executor, qonnx_ops, reader

from . import real_qonnx
from .mutations import models

GENERAL, LAST = "qonnx.custom_op.general", "qonnx.custom_op.channels_last"
MODELS = Path(__file__).parents[4] / "shared" / "models"


def one(op, shape, constants=(), *, domain="", version=1, opset=13, out=None, **attributes):
    """Make a model of one operator; constants come after the input."""
    tensors = [numpy_helper.from_array(np.asarray(c), f"c{k}") for k, c in enumerate(constants)]
    names = ["x", *(tensor.name for tensor in tensors)]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], domain=domain, **attributes)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        tensors,
    )
    opsets = [helper.make_opsetid("", opset)]
    if domain:
        opsets.append(helper.make_opsetid(domain, version))
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def f32(*values):
    return [np.float32(value) for value in values]


def i64(*values):
    return np.array(values, np.int64)


def row(*values):
    return np.array(values, np.float32)


def int_quants():
    """Every rounding mode, sign, range and kind of scale, and the quirk of one signed bit."""
    channels = row(0.3, 0.25, 1.5).reshape(1, 3, 1, 1)
    modes = ("ROUND", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "half_down", "HALF_EVEN")
    for mode, signed, narrow in product(modes, (0, 1), (0, 1)):
        for scale, zero, bits in ((0.25, 0, 3), (0.3, 1, 4), (channels, 0, 2), (0.25, 0, 1)):
            constants = [np.float32(scale), np.float32(zero), np.float32(bits)]
            attributes = {"rounding_mode": mode, "signed": signed, "narrow": narrow}
            yield one("IntQuant", (1, 3, 4, 4), constants, domain=GENERAL, **attributes)
    wide = [*f32(2**-20, 0), np.int64(26)]
    yield one("Quant", (1, 3, 4, 4), wide, domain=GENERAL, signed=0, narrow=1)


def truncs():
    for mode, zero in product(("ROUND", "CEIL", "FLOOR", "HALF_UP"), (0, 4)):
        constants = f32(0.25, zero, 8, 5)
        yield one("Trunc", (1, 3, 4, 4), constants, domain=GENERAL, rounding_mode=mode)
        for signed, narrow in product((0, 1), (0, 1)):
            attributes = {"rounding_mode": mode, "signed": signed, "narrow": narrow}
            constants = f32(0.25, zero, 8, 1, 3)
            model = one("Trunc", (1, 3, 4, 4), constants, domain=GENERAL, version=2, **attributes)
            yield model


def others():
    image = (1, 3, 4, 4)
    yield one("BipolarQuant", image, f32(0.5), domain=GENERAL)
    yield one("BipolarQuant", image, [row(1, 2, 3).reshape(1, 3, 1, 1)], domain=GENERAL)
    for flags in ({"saturation": 1}, {"saturation": 0, "has_inf": 1}):
        floats = dict.fromkeys(("has_inf", "has_nan", "has_subnormal"), 0) | flags
        for mode, scale in product(("ROUND", "FLOOR", "CEIL"), (1, 0.3)):
            constants = f32(scale, 4, 3, 7, 3)
            yield one("FloatQuant", image, constants, domain=GENERAL, rounding_mode=mode, **floats)
    steps = np.sort(np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32) * 2)
    for layout, count in (("NCHW", 3), ("", 3), ("NCHW", 1)):
        yield one("MultiThreshold", image, [steps[:count]], domain=GENERAL, out_dtype="INT4",
                  data_layout=layout, out_scale=2.0, out_bias=-7.0)  # fmt: skip
    yield one("MultiThreshold", (1, 4, 4, 3), [steps], domain=GENERAL, out_dtype="UINT3",
              data_layout="NHWC", out_scale=0.3)  # fmt: skip
    yield one("MultiThreshold", (1, 3), [steps], domain=GENERAL, out_dtype="UINT3")
    yield from windows()


def windows():
    for layout, shape in (("NCHW", (1, 3, 6, 6)), ("NHWC", (1, 6, 6, 3))):
        yield one("QuantAvgPool2d", shape, domain=GENERAL, data_layout=layout, stride=2, kernel=3,
                  ibits=3, obits=3, signed=1)  # fmt: skip
    yield one("MaxPoolNHWC", (1, 7, 6, 3), domain=GENERAL, kernel_shape=[3, 2], strides=[2, 1],
              pads=[1, 0, 1, 0], ceil_mode=1)  # fmt: skip
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(4, 3, 2, 3)).astype(np.float32)
    yield one("Conv", (1, 7, 6, 3), [weights], domain=LAST, kernel_shape=[3, 2], strides=[2, 1],
              pads=[1, 0, 1, 1], dilations=[1, 2], group=1)  # fmt: skip
    yield one("MaxPool", (1, 6, 6, 3), domain=LAST, kernel_shape=[2, 2], strides=[2, 2],
              pads=[0, 0, 0, 0])  # fmt: skip
    numbers = [np.abs(rng.normal(size=3)).astype(np.float32) for _ in range(4)]
    yield one("BatchNormalization", (1, 5, 5, 3), numbers, domain=LAST, version=9, epsilon=1e-3,
              momentum=0.9)  # fmt: skip


def images(model: ModelProto, count=1, seed=0):
    """Return images with ties, quarters, zeros and what is out of range."""
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    rng = np.random.default_rng(seed)
    x = rng.integers(-40, 41, (count, *shape[1:])) * np.float32(0.125)
    if model.graph.node[0].op_type == "QuantAvgPool2d":
        return np.round(x).astype(np.float32)
    noise = rng.normal(size=x.shape) * 2
    return np.where(rng.random(x.shape) < 0.6, x, noise).astype(np.float32)


def agree(tmp_path, cases):
    """Compare every tensor with the package's; all in one process of it."""
    jobs = []
    for n, (model, x) in enumerate(cases):
        jobs.append((tmp_path / f"{n}.onnx", x))
        jobs[-1][0].write_bytes(model.SerializeToString())
    for (path, x), real in zip(jobs, real_qonnx.execute(jobs), strict=True):
        graph = reader.read(path)
        names = {name for node in graph.nodes for name in node.outputs if name}
        ours = executor.execute(graph, x, names)
        for name in names & real.keys():
            np.testing.assert_array_equal(ours[name], real[name], f"{path.name}: {name}")
        assert names & real.keys()


@pytest.mark.parametrize("made", [int_quants, truncs, others])
def test_qonnx_operators_give_what_the_package_gives(made, tmp_path):
    agree(tmp_path, [(model, images(model, seed=n)) for n, model in enumerate(made())])


@pytest.mark.parametrize(
    "count", [40, pytest.param(1000, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_random_graphs_give_what_the_package_gives(count, tmp_path):
    pytest.importorskip("hypothesis")
    from .qonnx_graphs import graph

    cases = [graph(seed) for seed in range(count)]
    agree(tmp_path, [(case.model, case.inputs[:1]) for case in cases])


def test_real_model_gives_the_stored_logits():
    path = MODELS / "TFC_1W1A.onnx"
    if not path.exists():
        pytest.skip("the third-party model is not beside the repository")
    graph = reader.read(path)
    pixels, _ = zoo.evaluation_set()
    x = (pixels.astype(np.float32) / np.float32(255))[:, None]
    logits = np.load(MODELS / "TFC_1W1A_logits.npz")["logits"]
    np.testing.assert_array_equal(executor.execute(graph, x)[graph.output], logits)
    apart = executor.execute(graph, x[:100], one_by_one=True)
    np.testing.assert_array_equal(apart[graph.output], logits[:100])


AXES = {
    "softmax over the batch": one("Softmax", (1, 4), axis=0),
    "old softmax over all": one("Softmax", (1, 4), axis=0, opset=11),
    "softmax": one("Softmax", (1, 4), axis=-1),
    "batch turned round": one("Slice", (1, 4), [i64(v) for v in (-1, -(2**31), 0, -1)], out=(1, 4)),
    "batch moved away": one("Transpose", (1, 4, 3), perm=[1, 0, 2]),
    "one channel swapped with the batch": one("Transpose", (1, 1, 3), perm=[1, 0, 2]),
    "batch in a shape": one("Reshape", (1, 4, 2), [i64(1, 8)]),
    "no batch left": one("Reshape", (1, 4, 2), [i64(-1)]),
    "batch in a size": one("Resize", (1, 2, 3, 3), [row(), row(), i64(1, 2, 6, 6)]),
    "sum over the batch": one("ReduceSum", (1, 4), [i64(0)], keepdims=1),
    "sum over all": one("ReduceSum", (1, 4, 2), keepdims=1),
    "mean": one("ReduceMean", (1, 4, 2), axes=[1], keepdims=0),
    "constant with a batch": one("Add", (1, 4), [np.ones((1, 4), np.float32)]),
    "constant that makes more rows": one("Add", (1, 4), [np.ones((3, 4), np.float32)]),
    "constant with more dimensions": one("Add", (1, 4), [np.ones((1, 4, 4), np.float32)]),
    "running sum over the batch": one("CumSum", (1, 4), [np.int64(0)]),
    "batch on the right": one("Expand", (1, 4), [i64(3, 1, 4)]),
    "range of the whole tensor": one("LpNormalization", (1, 4), axis=0),
    "batch statistics": one("BatchNormalization", (1, 2, 3), [row(1, 2)] * 4, opset=14),
}


@pytest.mark.parametrize("name", AXES)
def test_a_batch_gives_what_its_images_give(name):
    model = AXES[name]
    graph = reader.parse(model, "m")
    x = images(model, 5)
    together = executor.execute(graph, x)[graph.output]
    apart = [executor.execute(graph, x[i : i + 1])[graph.output] for i in range(5)]
    np.testing.assert_array_equal(together, np.concatenate(apart))
    assert len(together) == 5


@pytest.mark.parametrize("name", models())
def test_small_models_in_parts(name, monkeypatch):
    graph = reader.parse(models()[name], name)
    rng = np.random.default_rng(0)
    x = rng.integers(-8, 8, (7, *graph.shapes[graph.input][1:])).astype(np.float32) / 4
    apart = executor.execute(graph, x, one_by_one=True)
    monkeypatch.setattr(executor, "CHUNK", 3 * max(map(np.prod, graph.shapes.values())))
    together = executor.execute(graph, x)
    np.testing.assert_allclose(together[graph.output], apart[graph.output], rtol=1e-5, atol=1e-6)


def test_without_a_runtime_the_reference_gives_the_same(monkeypatch):
    graph = reader.parse(models()["convolutional"], "m")
    x = np.random.default_rng(0).integers(-8, 8, (2, 3, 8, 8)).astype(np.float32)
    names = {name for node in graph.nodes for name in node.outputs}
    fast = executor.execute(graph, x, names)
    monkeypatch.setattr(executor, "onnxruntime", None)
    executor._runner.cache_clear()
    slow = executor.execute(graph, x, names)
    executor._runner.cache_clear()
    for name in names:
        np.testing.assert_allclose(slow[name], fast[name], rtol=1e-5, atol=1e-5)


def test_keeps_what_is_asked_for():
    graph = reader.parse(models()["dense"], "m")
    x = np.ones((3, 1, 4, 4), np.float32)
    weights = next(node for node in graph.nodes if node.op == "Transpose").inputs[0]
    constant = next(iter(graph.constants))
    kept = executor.execute(graph, x, {"x", weights, constant, graph.output})
    assert kept["x"].shape == (3, 1, 4, 4)
    assert kept[weights].shape == graph.shapes[weights]
    assert kept[constant] is graph.constants[constant]
    assert kept[graph.output].shape == (3, 3)


def test_what_cannot_be_executed_is_said_with_its_name():
    graph = reader.parse(models()["dense"], "m")
    x = np.ones((3, 1, 4, 4), np.float32)
    with pytest.raises(ConfigError) as error:
        executor.execute(graph, x[:, 0])
    assert str(error.value) == "m: images of shape (3, 4, 4): must be (n, 1, 4, 4)"
    with pytest.raises(ConfigError) as error:
        executor.execute(graph, x, {"nothing"})
    assert str(error.value) == f"m: no tensor 'nothing': the output is {graph.output!r}"
    graph = reader.parse(one("Cheby", (1, 4), domain="mine"), "m")
    with pytest.raises(ConfigError) as error:
        executor.execute(graph, np.ones((1, 4), np.float32))
    assert str(error.value) == (
        "m: Cheby_0 (Cheby): there is no way to execute it; see the operators that are supported"
    )
    model = one("IntQuant", (1, 4), f32(1, 0, 4), domain=GENERAL, rounding_mode="AWAY")
    with pytest.raises(ConfigError) as error:
        executor.execute(reader.parse(model, "m"), np.ones((1, 4), np.float32))
    assert str(error.value) == (
        "m: IntQuant_0 (IntQuant): rounding_mode 'AWAY': one of " + ", ".join(qonnx_ops.ROUNDING)
    )


def test_supported_operators():
    assert ("qonnx", "IntQuant") in executor.supported()
    assert ("channels_last", "Conv") in executor.supported()
    assert ("", "Conv") not in executor.supported()
