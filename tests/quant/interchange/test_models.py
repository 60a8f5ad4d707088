"""Models of every form on the command line: checked, simulated in their own domain, bisected."""

import json
from dataclasses import replace

import numpy as np
import pytest

from brambling import zoo
from brambling.errors import Mismatch
from brambling.network import Conv

pytest.importorskip("onnx")
pytest.importorskip("tflite")
litert = pytest.importorskip("ai_edge_litert.interpreter")

from brambling.quant.interchange import models  # noqa: E402
from brambling.quant.interchange.exporter import export  # noqa: E402

from .tflite_models import autoencoder, resnet  # noqa: E402


@pytest.fixture(scope="module")
def tflite(tmp_path_factory):
    path = tmp_path_factory.mktemp("tflite") / "resnet.tflite"
    path.write_bytes(resnet(3, width=4, size=8))
    return path


def reference(path, x):
    """Results of LiteRT's reference kernels before a softmax, int8."""
    run = litert.Interpreter(
        str(path),
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    run.allocate_tensors()
    (given,), (out,) = run.get_input_details(), run.get_output_details()
    last = run._get_ops_details()[-1]
    place = last["inputs"][0] if last["op_name"] == "SOFTMAX" else out["index"]
    rows = []
    for image in x:
        run.set_tensor(given["index"], image[np.newaxis])
        run.invoke()
        rows.append(run.get_tensor(place)[0])
    return np.array(rows)


def test_tflite_in_its_own_domain(run, tflite, tmp_path):
    x = np.random.default_rng(1).integers(-128, 128, (6, 8, 8, 3), np.int8)
    np.save(tmp_path / "x.npy", x)
    net = tmp_path / "net.safetensors"
    status, text, _ = run("import", tflite, "-o", net, "--check", tmp_path / "x.npy")
    assert status == 0
    assert "check: 6 images: " in text
    argv = ("simulate", net, "--images", tmp_path / "x.npy", "--engine", "golden")
    assert run(*argv, "--dequantise", "--output", tmp_path / "y.npy")[0] == 0
    assert np.array_equal(np.load(tmp_path / "y.npy"), reference(tflite, x))


def test_tflite_with_a_fault(tflite):
    model = models.read(tflite)
    x = np.random.default_rng(1).integers(-128, 128, (6, 8, 8, 3), np.int8)
    layers = list(model.network.layers)
    place = next(n for n, layer in enumerate(layers) if isinstance(layer, Conv))
    conv = layers[place]
    assert isinstance(conv, Conv)
    weights = conv.weights.copy()
    weights[1] = np.roll(weights[1], 1, axis=0)
    layers[place] = replace(conv, weights=weights)
    wrong = replace(model.network, layers=tuple(layers))
    first = next(found for found in model.differences(x, wrong) if found.differs.any()).first()
    names = [layer.name for layer in layers]
    assert names.index(first.edge) in {place, place + 1}
    assert first.place[0] % 4 == 1  # channels last, four of them
    assert not any(found.differs.any() for found in model.differences(x))


def test_options_of_tflite_are_in_the_file(refused, tflite):
    assert refused("import", tflite, "--input-scale", "1") == (
        f"{tflite}: says its input's scale and shape itself: leave out --input-… and --argmax"
    )


def test_bisect_of_a_tflite_model(run, tmp_path):
    path = tmp_path / "auto.tflite"
    path.write_bytes(autoencoder(2, width=8, inputs=12))
    np.save(tmp_path / "x.npy", np.random.default_rng(1).integers(-128, 128, (3, 12), np.int8))
    argv = ("bisect", path, "--images", tmp_path / "x.npy", "--engine", "pysim", "--json")
    status, text, _ = run(*argv)
    assert status == 0
    assert all(stage["edges"] > 3 for stage in json.loads(text)["stages"])


@pytest.mark.parametrize("name", ["tfc-w1a1", "lenet5-w4a4"])
def test_what_was_exported_comes_back_and_is_checked(name, tmp_path):
    network = zoo.load(name)
    export(network, tmp_path / "out.onnx")
    model = models.read(tmp_path / "out.onnx")
    assert (model.form, model.network) == ("brambling", network)
    images = zoo.evaluation_set("MNIST")[0][:10]
    assert model.check(images).codes > 1000


def test_check_of_an_exported_model_that_differs(tmp_path):
    network = zoo.load("tfc-w1a1")
    export(network, tmp_path / "out.onnx")
    model = models.read(tmp_path / "out.onnx")
    fc1 = network.layer("fc1")
    weights = fc1.weights.copy()  # type: ignore[attr-defined]
    weights[7] *= -1
    layers = tuple(
        replace(layer, weights=weights) if layer is fc1 else layer for layer in network.layers
    )
    wrong = replace(model, network=replace(network, layers=layers))
    message = r"^tfc-w1a1: fc1 of fc1 \(edge fc1\): image 0, element \(7,\) is "
    with pytest.raises(Mismatch, match=message):
        wrong.check(zoo.evaluation_set("MNIST")[0][:5])
