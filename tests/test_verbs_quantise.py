"""The verb ``quantise``, as the command line calls it."""

import argparse
import json
import re

import numpy as np
import pytest

from brambling import verbs_quantise
from brambling.errors import BramblingError
from brambling.verbs_quantise import add_arguments, quantise_verb

onnx = pytest.importorskip("onnx")
executor = pytest.importorskip("brambling.quant.interchange.executor")
reader = pytest.importorskip("brambling.quant.interchange.reader")
helper, numpy_helper = onnx.helper, onnx.numpy_helper


def run(*argv):
    parser = argparse.ArgumentParser(prog="brambling quantise", exit_on_error=False)
    parser.add_argument("--json", action="store_true")
    add_arguments(parser)
    return quantise_verb(parser.parse_args([str(arg) for arg in argv]))


def small(rows: int | str = 8):
    """Convolution, ReLU, pooling and a dense layer; its height may be left open."""
    rng = np.random.default_rng(3)
    weights = {
        "w1": rng.normal(0, 0.3, (4, 1, 3, 3)),
        "b1": rng.normal(0, 0.3, 4),
        "w2": rng.normal(0, 0.3, (3, 36)),
    }
    name = "features/a/very/long/name/[bold]conv"
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], name=name),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w2"], ["y"], name="fc", transB=1),
    ]
    kind = onnx.TensorProto.FLOAT
    tensors = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", kind, ["n", 1, rows, 8])],
        [helper.make_tensor_value_info("y", kind, ["n", 3])],
        tensors,
    )
    imports = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model, pixels for it and labels, in the working folder."""
    monkeypatch.chdir(tmp_path)
    onnx.save(small(), "small.onnx")
    pixels = np.random.default_rng(5).integers(0, 256, (40, 8, 8), np.uint8)
    np.save("pixels.npy", pixels)
    np.save("floats.npy", (pixels[:, np.newaxis] / 256).astype(np.float32))
    classes = executor.execute(reader.read(tmp_path / "small.onnx"), np.load("floats.npy"))["y"]
    np.save("labels.npy", classes.argmax(axis=1))
    return tmp_path


PIXELS = ("small.onnx", "--calibrate", "pixels.npy", "--input-scale", "1/256")


def test_writes_a_model_that_can_be_read(folder, capsys):
    assert run(*PIXELS) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "small-quantised.onnx"
    made = reader.read(folder / "small-quantised.onnx")
    x = np.load("floats.npy")
    exact = executor.execute(reader.read(folder / "small.onnx"), x)["y"]
    assert np.abs(executor.execute(made, x)["y"] - exact).max() < 0.05
    assert run(*PIXELS[:2], "floats.npy", "-o", "floats.onnx") == 0
    again = reader.read(folder / "floats.onnx")
    assert [node.op for node in again.nodes] == [node.op for node in made.nodes]


def test_table(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(*PIXELS, "--labels", "labels.npy", "--bits", 2, "--ends", 4, "--per-channel") == 0
    lines = capsys.readouterr().out.splitlines()
    columns = ["layer", "weights", "clipped", "dB", "result", "clipped", "dB", "net", "dB"]
    assert lines[0].split() == columns
    assert lines[1].split()[:2] == ["x", "u8.8"]
    assert lines[2].startswith("…ry/long/name/[bold]conv ")
    assert lines[2].split()[1].startswith("s4.")
    assert lines[2].split()[4].startswith("u2.")
    assert lines[3].split()[0] == "fc"
    assert re.fullmatch(r"small: output \d+\.\d dB, on the 40 images that calibrated", lines[7])
    share = re.fullmatch(r"same class as float: (\d+\.\d\d%)", lines[8])
    assert share
    assert lines[9] == f"accuracy: {share[1]}, float 100.00%"
    assert lines[10].startswith("saturation: ")
    assert lines[11:] == ["small-quantised.onnx"]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("limit", "line"),
    [
        (0.0001, (r"saturation: results clipped: …ry/long/name/\[bold\]conv \d.\d%; "
                 r"try more bits")),
        (0.5, "saturation: of no result 50% of the elements or more are clipped"),
    ],
)  # fmt: skip
def test_saturation_is_said(folder, capsys, monkeypatch, limit, line):
    monkeypatch.setattr(verbs_quantise, "SATURATED", limit)
    assert run(*PIXELS, "--activation-bits", 3) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(line, lines[-2])


def test_json(folder, capsys):
    assert run(*PIXELS, "--labels", "labels.npy", "--weight-bits", 5, "--json") == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert list(found) == [
        "model", "output", "weight_bits", "activation_bits", "ends", "per_channel", "images",
        "agreement", "sqnr", "float_accuracy", "accuracy", "layers",
    ]  # fmt: skip
    assert (found["model"], found["output"]) == ("small", "small-quantised.onnx")
    assert (found["weight_bits"], found["activation_bits"], found["ends"]) == (5, 8, None)
    assert (found["images"], found["float_accuracy"]) == (40, 1.0)
    assert [layer["op"] for layer in found["layers"]] == ["input", "Conv", "Gemm"]
    assert found["layers"][0]["data"] == {
        "bits": 8, "signed": False, "frac": [8], "step": 1 / 256, "clipped": 0.0, "sqnr": None,
    }  # fmt: skip
    assert found["layers"][2]["weights"]["bits"] == 8


def test_open_shape(folder, capsys):
    onnx.save(small(rows="height"), "open.onnx")
    argv = ("open.onnx", *PIXELS[1:])
    with pytest.raises(BramblingError, match="is left open; give --input-shape C,H,W"):
        run(*argv)
    assert run(*argv, "--input-shape", "1,8,8") == 0
    assert (folder / "open-quantised.onnx").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            (*PIXELS, "-o", "small.onnx"),
            "small.onnx: is the float model; write the quantised one to another file",
        ),
        (
            (*PIXELS, "-o", "small.safetensors"),
            "small.safetensors: the quantised model must be an .onnx file",
        ),
        ((*PIXELS, "--bits", "1"), "weight_bits: must be 2 to 16 bits, not 1"),
        ((*PIXELS, "--ends", "17"), "ends: must be 2 to 16 bits, not 17"),
        (
            ("small.onnx", "--calibrate", "none.npy"),
            "none.npy: cannot be read (No such file or directory)",
        ),
        (
            PIXELS[:3],
            (
                "calibration: images of integers need --input-scale, the real value of one step "
                "(1 if the model takes the integers as they are)"
            ),
        ),
        (
            (*PIXELS[:2], "floats.npy", *PIXELS[3:]),
            "--input-scale: belongs to images of integers, but these are float32; leave it out",
        ),
        (
            (*PIXELS, "--labels", "pixels.npy"),
            "labels: must be one integer for each of 40 images, not uint8 (40, 8, 8)",
        ),
        (("none.onnx", *PIXELS[1:]), "none.onnx: no such file; name an .onnx file"),
        (
            ("pixels.npy", *PIXELS[1:]),
            "pixels.npy: not an ONNX file, or damaged; export or copy it again",
        ),
    ],
)
def test_what_is_refused(folder, argv, message):
    with pytest.raises(BramblingError, match=f"^{re.escape(message)}$"):
        run(*argv)
    assert not (folder / "small-quantised.onnx").exists()


@pytest.mark.parametrize("scale", ["1/0", "a", "", "1/b", "1/2/3"])
def test_scales_that_are_no_numbers(folder, scale):
    with pytest.raises(argparse.ArgumentError, match="argument --input-scale: invalid ratio value"):
        run(*PIXELS[:3], "--input-scale", scale)


def test_quantised_models_are_imported_as_they_are(folder):
    run(*PIXELS)
    message = (
        "small-quantised: is quantised already, by x_quantised.quantiser (IntQuant): "
        "import it as it is, or give the float model"
    )
    with pytest.raises(BramblingError, match=f"^{re.escape(message)}$"):
        run("small-quantised.onnx", *PIXELS[1:])
