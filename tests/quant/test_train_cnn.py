"""Training of tiny convolutional networks on synthetic images, from the command to the file."""

import struct
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from brambling import Network
from brambling.errors import ConfigError
from brambling.sim import golden

torch = pytest.importorskip("torch")
training = pytest.importorskip("brambling.quant.train_cnn")
models = pytest.importorskip("brambling.quant.models")
floats = pytest.importorskip("brambling.quant.floats")
nn = torch.nn

SHAPES = {"mnist": (28, 28), "cifar10": (32, 32, 3)}


def noisy(seed, shape, count):
    """Noisy copies of ten random pictures of large pixels, and which they are."""
    coarse = np.random.default_rng(1).integers(0, 256, (10, 4, 4, *shape[2:]))
    pictures = coarse.repeat(shape[0] // 4, axis=1).repeat(shape[1] // 4, axis=2)
    source = np.random.default_rng(seed)
    labels = source.integers(0, 10, count, np.uint8)
    images = pictures[labels] + source.normal(0, 30, (count, *shape))
    return images.clip(0, 255).astype(np.uint8), labels


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder with both data sets."""
    folder = tmp_path_factory.mktemp("data")
    for seed, (part, count) in enumerate([("train", 120), ("t10k", 30)]):
        images, labels = noisy(seed, SHAPES["mnist"], count)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    for seed in range(6):
        images, labels = noisy(seed, SHAPES["cifar10"], 30)
        planes = images.transpose(0, 3, 1, 2).reshape(30, -1)
        rows = np.concatenate([labels[:, None], planes], axis=1)
        name = f"data_batch_{seed}.bin" if seed else "test_batch.bin"
        (folder / name).write_bytes(rows.tobytes())
    return folder


def tiny_one_bit():
    """One convolution of one-bit weights, and a dense layer."""
    return nn.Sequential(
        models.PixelInput(128, 1 / 64),
        *models.bipolar_conv(3, 4),
        nn.MaxPool2d(6),
        nn.Flatten(),
        models.QuantLinear(100, 10, quantiser=models.bipolar()),
        models.Scale(100),
    )


def tiny_residual():
    """Stem, one residual block, and the head.

    Channels in eights, as in the zoo: with fewer, the gradient of a 1 x 1 convolution of stride 2
    whose channels are innermost writes beyond its memory (PyTorch 2.13 on processors without
    AVX-512).
    """
    stem = [models.PixelInput(128, 1 / 64), *models.normed_conv(3, 8, stride=2)]
    return nn.Sequential(
        *stem, models.activation(), models.Residual(8, 16, stride=2), *models.head(16, 8)
    )


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Recipes of seconds."""
    monkeypatch.setattr(models, "tiny_one_bit", tiny_one_bit, raising=False)
    monkeypatch.setattr(models, "tiny_residual", tiny_residual, raising=False)
    for name, model in [("cifar10-cnv", tiny_one_bit), ("cifar10-resnet8", tiny_residual)]:
        recipe = replace(training.RECIPES[name], model=(model.__name__,), batch=40)
        monkeypatch.setitem(training.RECIPES, name, recipe)
    for recipes in (training.RECIPES, training.FLOATS):
        for name in (name for name in recipes if "lenet" in name):
            recipe = replace(recipes[name], batch=40, sets=1, epochs=2)
            monkeypatch.setitem(recipes, name, recipe)


def run(recipe, data, out, **options):
    console = options.pop("console", Console(file=StringIO(), width=200))
    return training.train(recipe, data, out=out, console=console, golden=golden.run, **options)


def same(first, second):
    """Whether two networks are equal in every bit."""
    arrays = [
        {(layer.name, key): a for layer in net.layers for key, a in layer.arrays().items()}
        for net in (first, second)
    ]
    return (
        arrays[0].keys() == arrays[1].keys()
        and all(np.array_equal(array, arrays[1][key]) for key, array in arrays[0].items())
        and first.provenance == second.provenance
        and str(first) == str(second)
    )


@pytest.mark.parametrize("recipe", ["cifar10-cnv", "cifar10-resnet8", "mnist-lenet5-w4"])
def test_trains_exports_and_saves(data, tmp_path, recipe):
    network = run(recipe, data, tmp_path / "net.safetensors", epochs=2)
    assert same(Network.load(tmp_path / "net.safetensors"), network)
    facts = network.provenance
    assert network.name == training.RECIPES[recipe].zoo
    assert facts["script"] == f"brambling train {recipe} --data DIR --seed 1 --epochs 2"
    assert facts["dataset"] == ("MNIST" if recipe.startswith("mnist") else "CIFAR-10")
    assert len(network.classes) == 10
    # As good as the rounded float network, which differs only where float32 rounds.
    assert abs(facts["accuracy"] - facts["float_accuracy"]) <= 1 / 30
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left[-1] == "net.safetensors"
    assert all(name.startswith("mnist-lenet5-float-") for name in left[:-1])
    assert len(left) == 1 + recipe.startswith("mnist")


def test_learns(data, tmp_path):
    network = run("cifar10-resnet8", data, tmp_path / "net.safetensors", epochs=20)
    assert network.provenance["accuracy"] > 0.5


@pytest.mark.parametrize("recipe", ["cifar10-cnv", "cifar10-resnet8", "mnist-lenet5-w8"])
def test_resume_goes_on_bit_for_bit(data, tmp_path, monkeypatch, recipe):
    whole = run(recipe, data, tmp_path / "whole.safetensors", epochs=2)
    learn = training.Student.learn

    def interrupted(self, lessons):
        if self.task.name == recipe and self.epoch == 1:
            raise KeyboardInterrupt
        return learn(self, lessons)

    with monkeypatch.context() as patch:
        patch.setattr(training.Student, "learn", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, data, tmp_path / "net.safetensors", epochs=2)
    again = run(recipe, data, tmp_path / "net.safetensors", epochs=2, resume=True)
    assert same(again, whole)
    assert not (tmp_path / "net.checkpoint.safetensors").exists()


def test_another_round_begins_as_the_network_of_the_last(data, tmp_path):
    first = run("cifar10-cnv", data, tmp_path / "first.safetensors", epochs=3)
    second = run("cifar10-cnv", data, tmp_path / "2.safetensors", epochs=1, seed=2, start=first)
    facts = second.provenance
    script = "brambling train cifar10-cnv --data DIR --seed 2 --epochs 1 --from START"
    assert (facts["script"], facts["epochs"]) == (script, 1)
    assert facts["start"] == {**first.provenance, "sha256": first.digest}
    alone = run("cifar10-cnv", data, tmp_path / "alone.safetensors", epochs=1, seed=2)
    weights = [net.layer("conv1").weights for net in (first, second, alone)]
    kept, chance = ((weights[0] == later).mean() for later in weights[1:])
    assert kept > 0.9 > 0.75 > chance  # A step moves a latent weight by 0.01 at most.
    assert Network.load(tmp_path / "2.safetensors").provenance == facts


def test_a_checkpoint_belongs_to_its_beginning(data, tmp_path, monkeypatch):
    out = tmp_path / "net.safetensors"
    first = run("cifar10-cnv", data, tmp_path / "first.safetensors", epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(training.Student, "learn", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("cifar10-cnv", data, out, epochs=2, start=first)
    with pytest.raises(ConfigError, match="was made with another start"):
        run("cifar10-cnv", data, out, epochs=2, resume=True, start=replace(first, name="other"))


def interrupted(self, lessons):
    raise KeyboardInterrupt


def test_seed_decides_everything(data, tmp_path):
    first, again, other = (
        run("cifar10-resnet8", data, tmp_path / f"{n}.safetensors", epochs=1, seed=seed)
        for n, seed in enumerate([5, 5, 6])
    )
    assert same(first, again)
    assert not same(first, other)


def test_lenets_begin_as_one_float_network(data, tmp_path):
    for name in ("w8", "w4"):
        run(f"mnist-lenet5-{name}", data, tmp_path / f"{name}.safetensors")
    assert len(list(tmp_path.glob("mnist-lenet5-float-*.safetensors"))) == 1


def test_float_weights_are_saved(data, tmp_path):
    out = tmp_path / "floats.safetensors"
    console = Console(file=StringIO())
    share = training.train_floats("mnist-lenet5-float", data, out=out, console=console)
    found = floats.load_float(out)
    assert (found.architecture, found.dataset) == ("lenet5", "MNIST")
    assert found.facts["accuracy"] == share
    assert found.facts["images"] == 30
    assert share == training.accuracy(found.module, *noisy(1, SHAPES["mnist"], 30))
    assert [path.name for path in tmp_path.iterdir()] == ["floats.safetensors"]


def test_one_bit_weights_stay_where_gradients_reach_them(data, tmp_path):
    images = training.Cifar10.read(data)
    task = training.Task.of("cifar10-cnv", training.RECIPES, images, seed=1, epochs=1, hold_out=0)
    student = training.Student(replace(task, recipe=replace(task.recipe, rate=1.0)))
    student.learn(training.ColourLessons(task))
    for module in student.model:
        if isinstance(module, training.QuantConv2d | training.QuantLinear):
            assert module.weight.abs().max() == 1


def test_rate_rises_and_falls():
    recipe = training.RECIPES["cifar10-brambling"]
    shares = np.linspace(0, 1, 101)
    rates = [recipe.rate_at(share) for share in shares]
    top = int(np.argmax(rates))
    assert shares[top] == pytest.approx(recipe.warm)
    assert rates[top] == pytest.approx(recipe.rate)
    assert sorted(rates[:top]) == rates[:top]
    assert sorted(rates[top:], reverse=True) == rates[top:]
    assert rates[0] == rates[-1] == recipe.least


def test_rate_falls_again_in_the_tail():
    whole = training.RECIPES["cifar10-resnet8"]
    before = replace(whole, epochs=whole.epochs - whole.tail, tail=0)
    main = before.epochs / whole.epochs
    for share in np.linspace(0, 0.99, 34):
        assert whole.rate_at(main * share) == pytest.approx(before.rate_at(share))
    assert whole.rate_at(main) == whole.tail_rate
    assert whole.rate_at((1 + main) / 2) == pytest.approx(whole.tail_rate / 2)
    assert whole.rate_at(1) == whole.least


def test_unknown_recipe(data, tmp_path):
    with pytest.raises(ConfigError) as caught:
        run("cifar10-vgg", data, tmp_path / "net.safetensors")
    assert str(caught.value) == (
        f"recipe must be one of {', '.join(training.RECIPES)}, not 'cifar10-vgg'"
    )
