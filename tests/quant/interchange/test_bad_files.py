"""Files that are no models, or claim what they do not hold; and sizes that a file leaves open."""

from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx import TensorProto

from brambling.errors import FileProblem
from brambling.network import Dense
from brambling.quant.interchange.models import read

from . import bad_models as bad
from .small_models import models

DAMAGED = "m.onnx: not an ONNX file, or damaged; export or copy it again"


def outside(location: str, **facts: int):
    """Return a model whose weights, 48 bytes, are said to lie in another file."""
    made = bad.weights(1).model()
    (tensor,) = (t for t in made.graph.initializer if list(t.dims) == [4, 3])
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **facts}.items():
        tensor.external_data.add(key=key, value=str(value))
    return made


def claiming(*dims: int):
    """Return a model whose weights claim another shape than they have data for."""
    made = bad.weights(1).model()
    (tensor,) = (t for t in made.graph.initializer if list(t.dims) == [4, 3])
    tensor.dims[:] = dims
    return made


def large(size: int):
    """Return a model whose image claims so many rows and columns."""
    made = bad.opened()
    for dim in made.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = size
    return made


# Files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [1, 10, 0.3, 0.6, 0.9, -1])
def test_part_of_a_file(part, tmp_path):
    whole = models()["convolutional"].SerializeToString()
    size = int(len(whole) * part) if isinstance(part, float) else part
    assert bad.said(lambda: whole[:size], tmp_path) == DAMAGED


@pytest.mark.parametrize("contents", [b"\x89PNG\r\n\x1a\n", b"hello, world", b"\xff" * 100])
def test_what_is_no_model(contents, tmp_path):
    assert bad.said(lambda: contents, tmp_path) == DAMAGED


FILES = [
    bad.case(
        "an empty file",
        lambda: b"",
        "m.onnx: 0 bytes: must be from 1 to 2,147,483,648; copy it again",
    ),
    bad.case(
        "data that is not there",
        lambda: outside("w.bin"),
        "m: tensor 'c3': data in 'w.bin': no such file in the model's folder; copy it there",
    ),
    bad.case(
        "data above the folder",
        lambda: outside("../w.bin"),
        "m: tensor 'c3': data in '../w.bin': must be inside the model's folder; put it there",
    ),
    bad.case(
        "data anywhere",
        lambda: outside("/etc/passwd"),
        "m: tensor 'c3': data in '/etc/passwd': must be inside the model's folder; put it there",
    ),
    bad.case(
        "data in the folder itself",
        lambda: outside("."),
        "m: tensor 'c3': data in '.': no such file in the model's folder; copy it there",
    ),
    bad.case(
        "data nowhere",
        lambda: outside(""),
        "m: tensor 'c3': data in '': must be inside the model's folder; put it there",
    ),
    bad.case(
        "a part of another size",
        lambda: outside("m.onnx", length=2**40),
        "m: tensor 'c3': shape (4, 3) needs 48 bytes, but 1,099,511,627,776 are said to "
        "be in m.onnx; export it anew",
    ),
    bad.case(
        "terabytes of weights",
        lambda: claiming(2**20, 2**20),
        "m: tensor 'c3': claims 4,398,046,511,104 bytes: at most 2,147,483,648; export it anew",
    ),
    bad.case(
        "exabytes of weights",
        lambda: claiming(2**40, 2**40),
        "m: tensor 'c3': claims 4,835,703,278,458,516,698,824,704 bytes: at most "
        "2,147,483,648; export it anew",
    ),
    bad.case(
        "more weights than there are",
        lambda: claiming(4, 300),
        "m: tensor 'c3': shape (4, 300) needs 4,800 bytes, but the file has 48; export it anew",
    ),
    bad.case(
        "fewer weights than nothing",
        lambda: claiming(-4, 3),
        "m: tensor 'c3': dimensions (-4, 3): not a shape; export it anew",
    ),
    bad.case(
        "a huge image",
        lambda: large(2**20),
        "m: input 'x': shape (1, 3, 1048576, 1048576): more than 268,435,456 elements; "
        "use smaller images",
    ),
    bad.case(
        "a large image",
        lambda: large(2**13),
        "m: 402,653,184 elements in all its tensors: at most 268,435,456; use smaller images",
    ),
]


@pytest.mark.parametrize(("made", "message"), FILES)
def test_files(made, message, tmp_path):
    assert bad.said(made, tmp_path) == message


def test_a_link_out_of_the_folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(48))
    (folder / "w.bin").symlink_to(tmp_path / "secret.bin")
    assert bad.said(lambda: outside("w.bin"), folder) == (
        "m: tensor 'c3': data in 'w.bin': leads out of the model's folder; put the file there"
    )


@pytest.mark.parametrize("folder", [False, True])
def test_no_file_at_all(folder, tmp_path):
    path = tmp_path / "m.onnx"
    if folder:
        path.mkdir()
    with pytest.raises(FileProblem) as caught:
        read(path)
    assert str(caught.value) == f"{path}: no such file; name an .onnx file"


def test_data_behind_the_end_of_a_file(tmp_path):
    (tmp_path / "w.bin").write_bytes(bytes(48))
    assert bad.said(lambda: outside("w.bin", offset=2**40), tmp_path) == (
        "m: tensor 'c3': bytes 1,099,511,627,776 to 1,099,511,627,824 of w.bin: the file has 48 "
        "only; copy it again"
    )


def test_an_image_that_is_large_for_hardware(tmp_path, monkeypatch):
    monkeypatch.setattr("brambling.quant.interchange.importer.ELEMENTS", 1000)
    assert bad.said(lambda: large(20), tmp_path) == (
        "m: 3,600 elements in all tensors of an image: must be at most 1,000: use smaller images"
    )


def test_a_file_of_another_kind(tmp_path):
    path = tmp_path / "m.pb"
    path.write_bytes(b"x")
    with pytest.raises(
        FileProblem, match=f"^{path}: must be an .onnx or .tflite file: convert it$"
    ):
        read(path)


# What is fine -------------------------------------------------------------------------------------


def test_data_beside_the_model(tmp_path):
    (tmp_path / "w.bin").write_bytes(bytes(16) + np.ones(12, np.float32).tobytes())
    path = tmp_path / "m.onnx"
    path.write_bytes(outside("w.bin", offset=16, length=48).SerializeToString())
    (layer,) = read(path).network.layers
    assert isinstance(layer, Dense)
    assert layer.weights.tolist() == [[4] * 4] * 3


@pytest.mark.parametrize("batch", ["n", 0, 1, 7])
def test_any_batch_is_one_image_after_the_other(batch, tmp_path):
    made = bad.opened()
    dim = made.graph.input[0].type.tensor_type.shape.dim[0]
    dim.Clear()
    if isinstance(batch, str):
        dim.dim_param = batch
    else:
        dim.dim_value = batch
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    assert read(path, scale=Fraction(1, 255)).network.input.shape == (8, 8, 3)


def test_open_sizes_are_those_that_are_given(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(bad.opened("rows", "columns").SerializeToString())
    network = read(path, shape=(3, 6, 10), scale=Fraction(1, 255)).network
    assert network.input.shape == (6, 10, 3)
