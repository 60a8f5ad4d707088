"""Exported models compute the same integers, at every edge, as the golden model."""

import json

import numpy as np
import pytest

from brambling import zoo
from brambling.errors import ConfigError, UnsupportedLayer
from brambling.layers import Layer
from brambling.network import Dense, Network, Pool, Requantise, Tensor, Thresholds
from brambling.quant.formats import Bipolar, Fixed, Ternary
from brambling.sim import golden

from .export_cases import CASES, frames_of, random_network
from .real_qonnx import execute, run

onnx = pytest.importorskip("onnx")

from brambling.quant.interchange.exporter import export, to_onnx  # noqa: E402
from brambling.quant.interchange.exporter_graph import Kind, datatype, holding  # noqa: E402

#: Networks that QONNX executes within seconds.
QUICK = {"tfc-w1a1", "mnist-cnn-w1a2", "lenet5-w4a4", "resnet8-w4a4"}


def channels_first(array):
    return np.moveaxis(array, -1, 1) if array.ndim > 2 else array


def element_type(network):
    fmt = network.input.fmt
    return np.dtype(holding(max(-fmt.min, fmt.max)).value)


def compare(folder, pairs):
    """Execute exported networks with QONNX and compare each edge with the golden model."""
    jobs = []
    for n, (network, frames) in enumerate(pairs):
        export(network, folder / f"{n}.onnx")
        given = channels_first(golden.frames(network, frames)).astype(element_type(network))
        jobs.append((folder / f"{n}.onnx", given))
    for (network, frames), found in zip(pairs, execute(jobs), strict=True):
        for name, wanted in golden.run(network, frames).items():
            same = found[name].astype(np.int64)
            assert np.array_equal(same, found[name]), f"{network.name}: {name} has fractions"
            np.testing.assert_array_equal(same, channels_first(wanted), f"{network.name}: {name}")


# QONNX's own execution -------------------------------------------------------------------------


def test_every_kind_of_layer(tmp_path):
    compare(tmp_path, [(network, frames_of(network)) for network in CASES.values()])


def test_small_networks(tmp_path, cnns, small_network, random_frames):
    networks = [make(seed) for make in cnns.values() for seed in (0, 1)]
    networks += [small_network([12, 7, 5, 4], falling=True), small_network([9, 4], argmax=False)]
    compare(tmp_path, [(network, random_frames(network, 3)) for network in networks])


@pytest.mark.parametrize(
    "count", [25, pytest.param(400, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_random_networks(tmp_path, count):
    networks = [random_network(seed) for seed in range(count)]
    compare(tmp_path, [(network, frames_of(network)) for network in networks])


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in zoo.names()],
)
def test_zoo(tmp_path, name):
    network = zoo.load(name)
    images, _ = zoo.evaluation_set(zoo.dataset_of(network))
    compare(tmp_path, [(network, images[:3])])


@pytest.mark.parametrize("name", ["tfc-w1a1", "lenet5-w4a4"])
def test_clean_up(tmp_path, name):
    network = zoo.load(name)
    frames = golden.frames(network, zoo.evaluation_set()[0][:2])
    export(network, tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", channels_first(frames).astype(np.float32))
    run("run_cleanup.py", *(tmp_path / file for file in ("model.onnx", "x.npy", "y.npz")))
    found = np.load(tmp_path / "y.npz")
    wanted = golden.run(network, frames)[network.layers[-1].name]
    np.testing.assert_array_equal(found["output"], wanted)
    quantisers = {"Quant", "BipolarQuant"} & set(found["operators"].tolist())
    assert quantisers == {"BipolarQuant" if name == "tfc-w1a1" else "Quant"}


# The model itself ------------------------------------------------------------------------------


def nodes(network):
    return [node.op_type for node in to_onnx(network).graph.node]


def test_the_model_is_valid():
    for network in CASES.values():
        model = to_onnx(network)
        onnx.checker.check_model(model)
        assert model.graph.name == network.name


def test_every_tensor_has_a_shape_and_edges_have_a_datatype(small_cnn):
    network = small_cnn(0)
    graph = to_onnx(network).graph
    known = {info.name for info in (*graph.input, *graph.value_info, *graph.output)}
    made = {name for node in graph.node for name in node.output}
    assert made | {"input"} == known
    assert network.tensors.keys() <= known
    annotated = {
        entry.tensor_name: entry.quant_parameter_tensor_names[0].value
        for entry in graph.quantization_annotation
    }
    for name, tensor in network.tensors.items():
        assert annotated[name] == datatype(tensor.fmt)


@pytest.mark.parametrize("batch", [1, 7])
def test_batch(batch, small_cnn):
    model = to_onnx(small_cnn(0), batch)
    for info in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        if not info.name.split(".")[-1].startswith(("quant", "bipolarquant")):
            assert info.type.tensor_type.shape.dim[0].dim_value == batch


@pytest.mark.parametrize("name", ["flatten_u4.2_5x4x6", "pool5_s50.7", "act_u63.0_u2.3_3"])
def test_a_batch_at_once(name):
    runtime = pytest.importorskip("onnxruntime")
    network = CASES[name]
    frames = frames_of(network, 4)
    session = runtime.InferenceSession(to_onnx(network, len(frames)).SerializeToString())
    (found,) = session.run(None, {"input": channels_first(frames).astype(element_type(network))})
    wanted = golden.run(network, frames)[network.layers[-1].name]
    np.testing.assert_array_equal(found, channels_first(wanted))


@pytest.mark.parametrize(
    ("fmt", "name"),
    [
        (Bipolar(), "BIPOLAR"),
        (Ternary(), "TERNARY"),
        (Fixed(1, 3, signed=False), "BINARY"),
        (Fixed(8, 3, signed=False), "UINT8"),
        (Fixed(40, -3), "INT40"),
    ],
)
def test_datatype(fmt, name):
    assert datatype(fmt) == name


@pytest.mark.parametrize(
    ("largest", "kind"),
    [
        (1, Kind.FLOAT),
        (1 << 24, Kind.FLOAT),
        (1 + (1 << 24), Kind.DOUBLE),
        (1 << 53, Kind.DOUBLE),
        (1 + (1 << 53), Kind.INT),
    ],
)
def test_narrowest_type_that_is_exact(largest, kind):
    assert holding(largest) is kind


def one(layer, shape=(2,), fmt=None):
    return Network("one", Tensor(shape, fmt or Fixed(8)), (layer,))


def test_products_are_behind_quantisers():
    weights = np.array([[1, -1], [-1, 0]])
    layer = Dense(name="fc", inputs=("input",), weights=weights, fmt=Ternary())
    model = to_onnx(one(layer))
    quant, product = model.graph.node
    assert (quant.op_type, quant.domain) == ("Quant", "qonnx.custom_op.general")
    assert product.op_type == "MatMul"
    assert list(product.output) == ["fc"]
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    np.testing.assert_array_equal(found["fc.weights"], weights.T)
    assert {key: float(array) for key, array in found.items() if not array.ndim} == {
        "fc.weights_scale": 1,
        "fc.weights_zero_point": 0,
        "fc.weights_bits": 2,
    }
    options = {entry.name: onnx.helper.get_attribute_value(entry) for entry in quant.attribute}
    assert options == {"signed": 1, "narrow": 1, "rounding_mode": b"ROUND"}


def test_rising_thresholds_are_one_node_and_falling_ones_two():
    options = {"name": "act", "inputs": ("input",), "fmt": Fixed(2)}
    levels = np.array([[1, 2], [3, 4]])
    rising = Thresholds(levels=levels, falling=np.array([False, False]), **options)
    falling = Thresholds(levels=levels, falling=np.array([False, True]), **options)
    assert nodes(one(rising)) == ["MultiThreshold"]
    assert nodes(one(falling)) == ["Mul", "MultiThreshold"]


def test_arithmetic_is_as_narrow_as_it_may_be():
    options = {"name": "scale", "inputs": ("input",), "shift": 4, "fmt": Fixed(8)}
    bias = np.array([0])
    small = Requantise(multiplier=np.array([99]), bias=bias, **options)
    large = Requantise(multiplier=np.array([1 << 20]), bias=bias, **options)
    huge = Requantise(multiplier=np.array([1 << 50]), bias=bias, **options)
    assert nodes(one(small)) == ["Mul", "Mul", "Add", "Quant"]
    assert nodes(one(large)) == ["Cast", "Mul", "Mul", "Add", "Quant"]
    steps = ["Add", "Mod", "Sub", "Div", "Clip", "Cast"]
    assert nodes(one(huge)) == ["Cast", "Mul", *steps]


def test_a_pool_over_a_power_of_two_is_an_average_and_any_other_a_convolution():
    options = {"name": "pool", "inputs": ("input",), "kind": "sum"}
    shape = (4, 4, 3)
    assert nodes(one(Pool(**options), shape)) == ["GlobalAveragePool", "Mul"]
    assert nodes(one(Pool(kernel=(2, 2), **options), shape)) == ["AveragePool", "Mul"]
    assert nodes(one(Pool(kernel=(3, 2), **options), shape)) == ["Conv"]


def test_what_the_graph_does_not_say_is_in_the_metadata(small_network):
    network = small_network([6, 4, 3])
    model = to_onnx(network)
    notes = {entry.key: entry.value for entry in model.metadata_props}
    # Each array is in the graph.
    assert notes.keys() == {"brambling", "brambling_network", "brambling_digest"}
    assert notes["brambling_digest"] == network.digest
    assert notes["brambling"] == "1"
    found = json.loads(notes["brambling_network"])
    assert found["name"] == "small"
    assert [row["kind"] for row in found["layers"]] == [
        type(layer).__name__ for layer in network.layers
    ]


def test_files_are_written_whole(tmp_path, small_network):
    network = small_network([6, 4, 3])
    export(network, tmp_path / "new" / "model.onnx")
    (file,) = (tmp_path / "new").iterdir()
    assert onnx.load(file) == to_onnx(network)


# Errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [0, -1, 1.5, True, None])
def test_batch_must_be_a_count(batch, small_network):
    with pytest.raises(ConfigError) as caught:
        to_onnx(small_network([6, 4]), batch)
    assert str(caught.value) == f"batch must be an integer of at least 1, not {batch!r}"


def test_too_large_for_a_file(monkeypatch, small_network):
    module = "brambling.quant.interchange.exporter"
    monkeypatch.setattr(f"{module}.LARGEST", 1000)
    with pytest.raises(ConfigError) as caught:
        to_onnx(small_network([60, 20]))
    assert str(caught.value) == (
        "small: an ONNX file holds constants of at most 1,000 bytes, not 4,808: export a smaller "
        "network"
    )


def test_unknown_layer(monkeypatch):
    class Other(Layer, kind=False):
        def output(self, *inputs):
            return inputs[0]

    with pytest.raises(UnsupportedLayer) as caught:
        to_onnx(one(Other(name="other", inputs=("input",))))
    assert str(caught.value) == (
        "other: Other cannot be exported to ONNX; Dense, Thresholds, Requantise, Table, Add, "
        "Concat, Slice, Flatten, ArgMax, Conv, Pool, Upsample, DepthToSpace can"
    )
