"""Models of other tools on the command line: import, simulate, export, bisect."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from brambling.network import Dense, Network, Thresholds
from brambling.origin import origin_of

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
SHARED = Path(__file__).parents[2] / "shared"
QONNX = "qonnx.custom_op.general"
SIZES = (12, 8, 5, 4)


def perceptron(path, seed=1, last=None):
    """Dense layers of 4-bit weights with 3-bit activations, behind a quantiser of 5 bits."""
    rng = np.random.default_rng(seed)
    nodes, tensors = [], []

    def constant(name, value):
        tensors.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def quantised(name, tensor, scale, bits, signed):
        given = (
            constant(f"{name}_s", scale),
            constant(f"{name}_z", 0),
            constant(f"{name}_b", bits),
        )
        options = {"signed": signed, "narrow": 0, "rounding_mode": "ROUND"}
        nodes.append(
            helper.make_node("Quant", [tensor, *given], [name], name, domain=QONNX, **options)
        )
        return name

    x = quantised("front", "x", 0.1, 5, 1)
    for n, (inputs, outputs) in enumerate(pairwise(SIZES), 1):
        constant(f"w{n}", rng.normal(size=(inputs, outputs)))
        weights = quantised(f"q{n}", f"w{n}", 0.37, 4, 1)
        nodes.append(helper.make_node("MatMul", [x, weights], [f"y{n}"], f"product{n}"))
        x = f"y{n}"
        if n < len(SIZES) - 1:
            x = quantised(f"a{n}", x, 0.83, 3, 0)
    if last is not None:
        nodes.append(helper.make_node(last, [x], ["end"], "end", axis=1))
        x = "end"
    shapes = [
        helper.make_tensor_value_info("x", 1, ["n", SIZES[0]]),
        helper.make_tensor_value_info(x, 1, ["n", SIZES[-1]]),
    ]
    graph = helper.make_graph(nodes, "perceptron", shapes[:1], shapes[1:], tensors)
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid(QONNX, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def by_hand(path, x):
    """What the model computes, in double precision: no product here is near a tie."""
    model = onnx.load(path)
    given = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    values = {"x": x.astype(np.float64), **given}
    for node in model.graph.node:
        inputs = [values[name] for name in node.input]
        if node.op_type == "Quant":
            tensor, scale, zero, bits = inputs
            signed = next(a.i for a in node.attribute if a.name == "signed")
            low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
            values[node.output[0]] = (
                np.round(np.clip(tensor / scale + zero, low, high)) - zero
            ) * scale
        elif node.op_type == "MatMul":
            values[node.output[0]] = inputs[0] @ inputs[1]
        else:
            values[node.output[0]] = np.exp(inputs[0]) / np.exp(inputs[0]).sum(1, keepdims=True)
    return values[model.graph.output[0].name]


@pytest.fixture
def model(tmp_path):
    return perceptron(tmp_path / "perceptron.onnx")


@pytest.fixture
def images(tmp_path):
    x = np.random.default_rng(2).normal(size=(20, SIZES[0])).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    return x


def test_import_writes_a_network_that_knows_its_model(run, model, images, tmp_path):
    out = tmp_path / "net.safetensors"
    status, text, _ = run("import", model, "-o", out, "--check", tmp_path / "x.npy")
    assert status == 0
    assert "check: 20 images: 500 codes equal but for float ties (none)" in text
    network = Network.load(out)
    assert str(network.input) == "12:s5.0"
    assert [layer.name for layer in network.layers] == ["fc1", "act1", "fc2", "act2", "fc3"]
    origin = origin_of(network)
    assert origin is not None
    assert origin.form == "qonnx"
    assert origin.input.layout.shape == (12,)


def test_import_as_json(run, model, images, tmp_path):
    argv = ("import", model, "-o", tmp_path / "n.safetensors", "--name", "mine", "--json")
    status, text, _ = run(*argv, "--check", tmp_path / "x.npy")
    facts = json.loads(text)
    assert status == 0
    assert facts["network"] == "mine"
    assert facts["check"]["images"] == 20
    assert [row["name"] for row in facts["layers"]] == ["fc1", "act1", "fc2", "act2", "fc3"]


@pytest.mark.parametrize("direct", [True, False], ids=["the model", "its network"])
def test_simulate_in_the_domain_of_the_model(run, model, images, tmp_path, direct):
    net = model if direct else tmp_path / "net.safetensors"
    if not direct:
        run("import", model, "-o", net)
    given = ("--images", tmp_path / "x.npy", "--output", tmp_path / "y.npy", "--engine", "golden")
    assert run("simulate", net, *given, "--dequantise")[0] == 0
    y = np.load(tmp_path / "y.npy")
    assert y.dtype == np.float64
    expected = by_hand(model, images)
    assert np.abs(y - expected).max() < 1e-6 * np.abs(expected).max()  # scales are float32's
    assert run("simulate", net, *given)[0] == 0
    integers = np.load(tmp_path / "y.npy")
    assert integers.dtype == np.int64
    step = float(np.float32(0.83)) * float(np.float32(0.37))
    assert np.array_equal(integers, np.rint(expected / step).astype(np.int64))


def test_softmax_at_the_end_is_left_to_the_host(run, images, tmp_path):
    model = perceptron(tmp_path / "soft.onnx", last="Softmax")
    status, text, _ = run("import", model, "-o", tmp_path / "net.safetensors")
    assert status == 0
    assert "note: end (Softmax) is left out of the network: it keeps the order" in text
    argv = ("simulate", model, "--images", tmp_path / "x.npy", "--dequantise", "--engine", "golden")
    assert run(*argv, "--output", tmp_path / "y.npy")[0] == 0
    assert np.allclose(np.load(tmp_path / "y.npy"), by_hand(model, images), rtol=1e-5)


def test_argmax_makes_a_classifier(run, model, images, tmp_path):
    np.save(tmp_path / "labels.npy", np.zeros(20, np.uint8))
    run("import", model, "-o", tmp_path / "net.safetensors", "--argmax")
    network = Network.load(tmp_path / "net.safetensors")
    assert network.output.shape == ()
    argv = ("simulate", tmp_path / "net.safetensors", "--images", tmp_path / "x.npy")
    run(*argv, "--dequantise", "--engine", "golden", "--output", tmp_path / "y.npy")
    expected = by_hand(model, images)  # still the logits: the model has no arg-max
    assert np.abs(np.load(tmp_path / "y.npy") - expected).max() < 1e-6 * np.abs(expected).max()


def test_declared_integers_take_the_quantiser_on_chip(run, model, tmp_path):
    net = tmp_path / "net.safetensors"
    run("import", model, "-o", net, "--input-scale", "1/64", "--input-zero", 128)
    network = Network.load(net)
    assert str(network.input) == "12:u8.0"
    codes = np.random.default_rng(3).integers(0, 256, (9, 12), np.uint8)
    real = ((codes.astype(np.float64) - 128) / 64).astype(np.float32)
    found = []
    for x in (codes, real):
        np.save(tmp_path / "x.npy", x)
        argv = ("simulate", net, "--images", tmp_path / "x.npy", "--engine", "golden")
        assert run(*argv, "--dequantise", "--output", tmp_path / "y.npy")[0] == 0
        found.append(np.load(tmp_path / "y.npy"))
    assert np.array_equal(*found)
    expected = by_hand(model, real)
    assert np.abs(found[0] - expected).max() < 1e-6 * np.abs(expected).max()


def test_there_and_back(run, model, tmp_path):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    run("import", model, "-o", first)
    assert run("export", first, "-o", tmp_path / "out.onnx")[0] == 0
    assert run("import", tmp_path / "out.onnx", "-o", second)[0] == 0
    assert first.read_bytes() == second.read_bytes()


def test_quantise_then_simulate(run, tmp_path):
    rng = np.random.default_rng(5)
    arrays = {"w": rng.normal(size=(6, 4)), "b": rng.normal(size=4)}
    tensors = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in arrays.items()]
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], "dense")
    ends = [helper.make_tensor_value_info(n, 1, ["n", s]) for n, s in (("x", 6), ("y", 4))]
    graph = helper.make_graph([node], "float", ends[:1], ends[1:], tensors)
    path, made = tmp_path / "float.onnx", tmp_path / "made.onnx"
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    x = rng.normal(size=(50, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    assert run("quantise", path, "--calibrate", tmp_path / "x.npy", "-o", made)[0] == 0
    argv = ("simulate", made, "--images", tmp_path / "x.npy", "--engine", "golden")
    assert run(*argv, "--dequantise", "--output", tmp_path / "y.npy")[0] == 0
    exact = x @ arrays["w"] + arrays["b"]
    error = np.load(tmp_path / "y.npy") - exact
    # Eight bits of inputs and weights: noise of about a hundredth of the signal.
    assert 10 * np.log10((exact**2).mean() / (error**2).mean()) > 30


@pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="no ../shared beside the project")
def test_check_with_a_data_set(run, tmp_path):
    model, data = SHARED / "models" / "TFC_1W1A.onnx", SHARED / "data" / "mnist"
    argv = ("import", model, "-o", tmp_path / "n.safetensors", "--check", data)
    status, text, _ = run(*argv, "--input-scale", "1/255")
    assert status == 0
    assert "check: 10,000 images: 9,760,000 codes equal but for float ties (none)" in text


# bisect -------------------------------------------------------------------------------------------


def test_bisect_of_equals(run, model, images, tmp_path):
    status, text, _ = run("bisect", model, "--images", tmp_path / "x.npy", "--engine", "pysim")
    assert status == 0
    assert text.splitlines() == [
        "perceptron, 4 images",
        "model and golden: equal, 6 edges",
        "exported network and golden: equal, 5 edges",
        "golden and hardware (pysim): equal, 6 edges",
    ]


def broken(network, name):
    """Network whose layer of that name is wrong in one channel."""
    layer = network.layer(name)
    if isinstance(layer, Dense):
        weights = layer.weights.copy()
        weights[2, np.flatnonzero(weights[2])[0]] *= -1
        wrong = replace(layer, weights=weights)
    elif isinstance(layer, Thresholds):
        wrong = replace(layer, levels=layer.levels + 12)
    else:
        wrong = replace(layer, bias=layer.bias + (1 << layer.shift))
    layers = tuple(wrong if each is layer else each for each in network.layers)
    return replace(network, layers=layers)


@pytest.mark.parametrize(
    ("name", "node"), [("fc2", "product2 (MatMul)"), ("act1", "a1 (IntQuant)")]
)
def test_bisect_names_the_first_difference(run, model, images, tmp_path, name, node):
    net = tmp_path / "net.safetensors"
    run("import", model, "-o", net)
    broken(Network.load(net), name).save(net)
    argv = ("bisect", model, "--network", net, "--images", tmp_path / "x.npy", "--engine", "golden")
    status, text, _ = run(*argv, "--frames", 20, "--json")
    stages = json.loads(text)["stages"]
    assert status == 1
    first = stages[0]["first"]
    assert (first["edge"], first["node"]) == (name, node)
    assert name == "act1" or first["channel"] == 2
    assert first["values"]["model"] != first["values"]["golden"]
    assert stages[1]["first"] is None
    assert (
        run(*argv, "--frames", 20)[1].splitlines()[1].startswith(f"model and golden: edge {name} ")
    )


# errors -------------------------------------------------------------------------------------------


def test_errors(refused, model, images, tmp_path):
    x, net = tmp_path / "x.npy", tmp_path / "net.safetensors"
    assert refused("import", tmp_path / "none.onnx") == (
        f"{tmp_path}/none.onnx: no such file; name an .onnx file"
    )
    assert refused("import", model, "--input-zero", 3) == (
        "--input-zero and --input-format go with --input-scale: give that too"
    )
    assert refused("import", model, "--weights", x) == (
        f"{model}: --weights goes with package.module:function"
    )
    assert refused("simulate", "tfc-w1a1", "--argmax") == (
        "tfc-w1a1: --input-… and --argmax go with .onnx and .tflite models"
    )
    assert refused("simulate", "tfc-w1a1", "--dequantise", "--output", net) == (
        "--dequantise writes --output as the original model has it: give --output, and a model "
        "that was imported"
    )
    assert refused("export", "tfc-w1a1", "-o", net) == (
        f"{net}: the model is written as .onnx: name it so"
    )
    assert refused("bisect", "tfc-w1a1", "--network", net) == (
        "--network is compared with a model: give an .onnx or .tflite file"
    )
    assert refused("simulate", model) == (
        "perceptron takes what its model takes, not pixels: give --images, or import it with "
        "--input-scale"
    )
    np.save(x, images[:, :5])
    assert refused("simulate", model, "--images", x) == (
        "images must be of shape (12,) as in the original model, or (12,) as in the network, "
        "not (5,)"
    )
    np.save(x, np.full((2, 12), 0.3, np.float32))
    assert refused("simulate", model, "--images", x, "--input-scale", "1/4") == (
        "image 0: 0.3 must be one of 0 to 255 times 0.25: give images in the model's own domain, "
        "or its integers"
    )
    assert not net.exists()


@pytest.mark.parametrize("verb", ["import", "simulate", "bisect"])
def test_a_missing_package_is_named(model, verb):
    code = "import sys; sys.modules['onnx'] = None; from brambling.cli import main; "
    code += "sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, verb, str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "brambling: error: reading perceptron.onnx needs the package onnx, which is not "
        "installed: pip install 'brambling[import]'\n"
    )
