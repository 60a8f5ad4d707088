"""Training on a tiny synthetic set; what it learns is beside the point, that it is exact is not."""

import json
import struct
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console
from safetensors import safe_open

from brambling import Network
from brambling.errors import ConfigError, FileProblem
from brambling.sim import golden

torch = pytest.importorskip("torch")
training = pytest.importorskip("brambling.quant.train")


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder with noisy copies of ten random pictures in MNIST's format."""
    folder, source = tmp_path_factory.mktemp("data"), np.random.default_rng(1)
    pictures = source.integers(0, 256, (10, 28, 28))
    for part, count in (("train", 120), ("t10k", 30)):
        labels = source.integers(0, 10, count)
        noisy = pictures[labels] + source.normal(0, 40, (count, 28, 28))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(noisy.clip(0, 255)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Recipe of seconds."""
    recipe = replace(
        training.RECIPES["mnist-tfc"], widths=(784, 16, 16, 10), teacher_epochs=1, sets=2, batch=40
    )
    monkeypatch.setitem(training.RECIPES, "mnist-tfc", recipe)


def quiet():
    return Console(file=StringIO(), width=200)


def same(first, second):
    """Whether two networks are equal in every bit."""
    arrays = [
        {
            f"{layer.name}.{key}": array
            for layer in net.layers
            for key, array in layer.arrays().items()
        }
        for net in (first, second)
    ]
    return (
        arrays[0].keys() == arrays[1].keys()
        and all(np.array_equal(array, arrays[1][key]) for key, array in arrays[0].items())
        and first.provenance == second.provenance
        and str(first) == str(second)
    )


def stop_after(monkeypatch, epochs):
    """Press Ctrl-C in the middle of the epoch after that many."""
    learn = training.Student.learn

    def interrupted(self, lesson):
        if self.epoch == epochs:
            with torch.no_grad():
                self.model.dense[0].weight.zero_()  # half an epoch's work, to be forgotten
            raise KeyboardInterrupt
        return learn(self, lesson)

    monkeypatch.setattr(training.Student, "learn", interrupted)


def run(data, out, **options):
    return training.train("mnist-tfc", data, out=out, console=quiet(), golden=golden.run, **options)


def test_trains_exports_and_saves(data, tmp_path):
    network = run(data, tmp_path / "net.safetensors", epochs=3)
    assert same(Network.load(tmp_path / "net.safetensors"), network)
    assert network.name == "tfc-w1a1"
    assert network.classes == tuple("0123456789")
    assert network.provenance["script"] == (
        "brambling train mnist-tfc --data DIR --seed 1 --epochs 3"
    )
    assert network.provenance["images"] == 30
    test = training.Mnist.read(data)
    classes = golden.run(network, test.test_images)["argmax"]
    assert network.provenance["accuracy"] == (classes == test.test_labels).mean()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left[1:] == ["net.safetensors"]
    assert left[0].startswith("mnist-teacher-")


def test_seed_decides_everything(data, tmp_path):
    first, again, other = (
        run(data, tmp_path / str(index) / "net.safetensors", epochs=1, seed=seed)
        for index, seed in enumerate([5, 5, 6])
    )
    assert same(first, again)
    assert not same(first, other)


def test_global_generator_and_threads_are_left_alone(data, tmp_path):
    torch.manual_seed(3)
    expected, threads = torch.rand(1), torch.get_num_threads()
    torch.manual_seed(3)
    run(data, tmp_path / "net.safetensors", epochs=1)
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("done", [0, 1, 2])
def test_resume_goes_on_bit_for_bit(data, tmp_path, monkeypatch, done):
    whole = run(data, tmp_path / "whole.safetensors", epochs=3)
    out, console = tmp_path / "net.safetensors", quiet()
    with monkeypatch.context() as patch:
        stop_after(patch, done)
        with pytest.raises(KeyboardInterrupt):
            training.train("mnist-tfc", data, out=out, epochs=3, console=console)
    checkpoint = tmp_path / "net.checkpoint.safetensors"
    assert isinstance(console.file, StringIO)
    assert (
        f"interrupted in epoch {done + 1} of 3; the same command with --resume goes on "
        f"from its beginning: {checkpoint}"
    ) in console.file.getvalue().replace("\n", "")
    assert not out.exists()
    assert same(run(data, out, epochs=3, resume=True), whole)
    assert not checkpoint.exists()


def interrupted(data, out, monkeypatch):
    """Path of the checkpoint that a training leaves behind."""
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            run(data, out, epochs=2)
    return out.with_suffix(".checkpoint.safetensors")


def test_checkpoint_holds_no_code(data, tmp_path, monkeypatch):
    path = interrupted(data, tmp_path / "net.safetensors", monkeypatch)
    with safe_open(path, framework="numpy") as file:
        facts = json.loads(file.metadata()["facts"])
    assert facts["epoch"] == 1
    assert facts["seed"] == 1
    assert facts["recipe"]["epochs"] == 2


@pytest.mark.parametrize(
    ("options", "key"),
    [({"seed": 2}, "seed"), ({"epochs": 7}, "recipe"), ({"hold_out": 9}, "data")],
)
def test_resume_of_another_training(data, tmp_path, monkeypatch, options, key):
    out = tmp_path / "net.safetensors"
    path = interrupted(data, out, monkeypatch)
    with pytest.raises(ConfigError) as caught:
        run(data, out, **({"epochs": 2} | options), resume=True)
    assert str(caught.value) == (
        f"{path}: was made with another {key}; use the same, or delete it and start again"
    )


def test_start_beside_a_checkpoint(data, tmp_path, monkeypatch):
    out = tmp_path / "net.safetensors"
    path = interrupted(data, out, monkeypatch)
    with pytest.raises(FileProblem) as caught:
        run(data, out, epochs=2)
    assert str(caught.value) == (
        f"{path}: an interrupted training left this; add --resume, or delete it"
    )


def test_folder_that_cannot_be_written(data, tmp_path):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "net.safetensors"
    with pytest.raises(FileProblem) as caught:
        run(data, out)
    path = tmp_path / "file" / "net.checkpoint.safetensors"
    assert str(caught.value) in {
        f"{path}: cannot be written (File exists)",
        f"{path}: cannot be written (Not a directory)",
    }


def test_resume_without_checkpoint(data, tmp_path):
    with pytest.raises(FileProblem) as caught:
        run(data, tmp_path / "net.safetensors", resume=True)
    path = tmp_path / "net.checkpoint.safetensors"
    assert str(caught.value) == (
        f"{path}: no such checkpoint to resume from; start without --resume"
    )


def test_resume_from_damaged_checkpoint(data, tmp_path, monkeypatch):
    out = tmp_path / "net.safetensors"
    path = interrupted(data, out, monkeypatch)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(FileProblem, match=r"net.checkpoint.safetensors: not a whole checkpoint "
                       r"\(.*\); delete it$"):  # fmt: skip
        run(data, out, epochs=2, resume=True)


def test_unknown_recipe(data, tmp_path):
    with pytest.raises(ConfigError) as caught:
        training.train("mnist-xfc", data, out=tmp_path / "net.safetensors")
    assert str(caught.value) == (
        "recipe must be one of mnist-tfc, mnist-sfc, mnist-lfc, not 'mnist-xfc'"
    )


def test_no_epochs(data, tmp_path):
    with pytest.raises(ConfigError) as caught:
        run(data, tmp_path / "net.safetensors", epochs=0)
    assert str(caught.value) == "epochs must be at least 1, not 0"


@pytest.mark.parametrize("hold_out", [-1, 120])
def test_hold_out_out_of_range(data, tmp_path, hold_out):
    with pytest.raises(ConfigError) as caught:
        run(data, tmp_path / "net.safetensors", hold_out=hold_out)
    assert str(caught.value) == f"hold_out must be 0 to 119, not {hold_out}"


def test_data_absent(tmp_path):
    with pytest.raises(FileProblem) as caught:
        run(tmp_path / "nowhere", tmp_path / "net.safetensors")
    assert str(caught.value) == (
        f"{tmp_path / 'nowhere'}: no such folder; give the one with MNIST's four idx files"
    )


def test_held_out_images_are_not_learnt(data, tmp_path):
    """The network with images held out is the one that a smaller training set gives."""
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for path in data.iterdir():
        (fewer / path.name).write_bytes(path.read_bytes())
    mnist = training.Mnist.read(data)
    (fewer / "train-images-idx3-ubyte").write_bytes(idx(mnist.train_images[:100]))
    (fewer / "train-labels-idx1-ubyte").write_bytes(idx(mnist.train_labels[:100]))
    held = run(data, tmp_path / "a" / "net.safetensors", epochs=1, hold_out=20)
    assert same(held, run(fewer, tmp_path / "b" / "net.safetensors", epochs=1))


def test_distortion_keeps_shape_and_leaves_images_alone_without_strength():
    images = training.grey(np.arange(2 * 784, dtype=np.uint8).reshape(2, 28, 28))
    same = training.distort(images, 0.0, training.generator(1, "test", 0))
    assert torch.allclose(same, images, atol=1e-4)
    other = training.distort(images, 1.0, training.generator(1, "test", 0))
    assert other.shape == images.shape
    assert not torch.allclose(other, images, atol=0.1)


def test_random_numbers_depend_on_seed_purpose_and_index():
    draws = {
        tuple(torch.rand(3, generator=training.generator(*arguments)).tolist())
        for arguments in [(1, "set", 0), (2, "set", 0), (1, "order", 0), (1, "set", 1)]
    }
    assert len(draws) == 4
