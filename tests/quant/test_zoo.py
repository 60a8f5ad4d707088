"""The networks that come with the package: whole, and as accurate as they say. No torch."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

import brambling
from brambling import ArgMax, Dense, Network, Thresholds, zoo
from brambling.quant.data import read_images, read_labels
from brambling.quant.formats import Bipolar
from brambling.sim import golden

ZOO = Path(brambling.__file__).parent / "zoo"
SHARED = Path(__file__).parents[3] / "shared" / "data"  #: Complete data sets, where there are any.
#: Convolutional networks: recipe, least accuracy that was asked of them, most bits of weights.
CNNS = {
    "lenet5-w8a8": ("mnist-lenet5-w8", 0.992, 500_000),
    "lenet5-w4a4": ("mnist-lenet5-w4", 0.990, 250_000),
    "mnist-cnn-w1a2": ("mnist-cnn-w1a2", 0.992, 430_000),
    "resnet8-w4a4": ("cifar10-resnet8", 0.85, 4 << 20),
    "brambling-cifar-w4a4": ("cifar10-brambling", 0.89, 3_700_000),
    "cnv-w1a1": ("cifar10-cnv", 0.72, 1_600_000),  # Trained briefly: its aim is 0.842.
}
WIDTHS = {"tfc-w1a1": 64, "sfc-w1a1": 256, "lfc-w1a1": 1024}
#: Best published for these topologies; FINN's own paper has 95.83 and 98.40 for SFC and LFC.
PUBLISHED = {"tfc-w1a1": 0.9317, "sfc-w1a1": 0.9781, "lfc-w1a1": 0.9888}


@pytest.fixture(scope="module", params=WIDTHS)
def network(request):
    return Network.load(ZOO / f"{request.param}.safetensors")


@pytest.fixture(scope="module")
def test_set():
    folder = ZOO / "mnist"
    return (
        read_images(folder / "t10k-images-idx3-ubyte.gz"),
        read_labels(folder / "t10k-labels-idx1-ubyte.gz"),
    )


def test_accuracy_is_the_recorded_one(network, test_set):
    images, labels = test_set
    correct = int((golden.run(network, images)["argmax"] == labels).sum())
    assert network.provenance["images"] == len(labels) == 10000
    assert correct / len(labels) == network.provenance["accuracy"]


def test_accuracy_is_at_least_the_published_one(network):
    assert network.provenance["accuracy"] >= PUBLISHED[network.name]


def test_topology(network):
    n = WIDTHS[network.name]
    dense = [layer for layer in network.layers if isinstance(layer, Dense)]
    assert [layer.weights.shape for layer in dense] == [(n, 784), (n, n), (n, n), (10, n)]
    assert all(layer.fmt == Bipolar() for layer in dense)
    assert isinstance(network.layers[-1], ArgMax)
    assert str(network.input) == "784:u8.0"
    assert network.classes == tuple("0123456789")


def test_levels_are_canonical(network):
    """No channel is falling; each level is a sum that can occur, or one more than the largest."""
    for layer in network.layers:
        if isinstance(layer, Thresholds) and layer.name != "binarise":
            (source,) = (network.layer(name) for name in layer.inputs)
            assert isinstance(source, Dense)
            n = source.weights.shape[1]
            level = layer.levels[:, 0]
            assert not layer.falling.any()
            assert np.all((level >= -n) & (level <= n + 1))
            assert np.all((level == n + 1) | (level % 2 == n % 2))


def test_provenance_says_how_to_make_it_again(network):
    provenance = network.provenance
    recipe = network.name.removesuffix("-w1a1")
    assert provenance["dataset"] == "MNIST"
    assert provenance["script"] == (
        f"brambling train mnist-{recipe} --data DIR --seed {provenance['seed']} "
        f"--epochs {provenance['epochs']}"
    )


def test_recipe_is_the_one_that_made_it(network):
    training = pytest.importorskip("brambling.quant.train")
    recipe = training.RECIPES["mnist-" + network.name.removesuffix("-w1a1")]
    assert recipe.zoo == network.name
    assert recipe.epochs == network.provenance["epochs"]


@pytest.fixture(scope="module", params=CNNS)
def cnn(request):
    return Network.load(ZOO / f"{request.param}.safetensors")


def test_every_network_is_known():
    assert set(zoo.names()) == WIDTHS.keys() | CNNS.keys()


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_accuracy_of_a_cnn_is_the_recorded_one(cnn, whole):
    """On the test images of the package, or on all of them where they are at hand."""
    dataset = cnn.provenance["dataset"]
    images, labels = zoo.evaluation_set(dataset)
    if whole:
        folder = SHARED / {"MNIST": "mnist", "CIFAR-10": "cifar10"}[dataset]
        if not folder.is_dir():
            pytest.skip(f"no folder {folder} with all test images")
        images, labels = zoo.read_test_set(dataset, folder)
    share = golden.accuracy(cnn, images, labels)
    recorded = cnn.provenance["accuracy"]
    if len(labels) == cnn.provenance["images"]:
        assert share == recorded
    else:  # A sample: within four standard deviations.
        assert abs(share - recorded) < 4 * (recorded * (1 - recorded) / len(labels)) ** 0.5


def test_accuracy_and_size_of_a_cnn_are_what_was_asked(cnn):
    _, accuracy, bits = CNNS[cnn.name]
    assert cnn.provenance["accuracy"] >= accuracy
    assert cnn.weight_bits <= bits


def test_recipe_of_a_cnn_is_the_one_that_made_it(cnn):
    training = pytest.importorskip("brambling.quant.train_cnn")
    name, _, _ = CNNS[cnn.name]
    recipe, facts = training.RECIPES[name], cnn.provenance
    assert recipe.zoo == cnn.name
    script = f"brambling train {name} --data DIR --seed {{seed}} --epochs {{epochs}}"
    while "start" in facts:  # A further round, of any length.
        assert facts["script"] == f"{script} --from START".format(**facts)
        assert facts["start"]["accuracy"] < facts["accuracy"]
        facts = facts["start"]
    assert facts["script"] == script.format(**facts)
    assert facts["epochs"] == recipe.epochs


@pytest.mark.parametrize("name", ["lenet5", "cifar-cnn"])
def test_float_networks_are_as_accurate_as_they_say(name):
    floats = pytest.importorskip("brambling.quant.floats")
    training = pytest.importorskip("brambling.quant.train_cnn")
    found = floats.load_float(ZOO / "float" / f"{name}.safetensors")
    images, labels = zoo.evaluation_set(found.dataset)
    images, labels = images[:2000], labels[:2000]
    share, recorded = training.accuracy(found.module, images, labels), found.facts["accuracy"]
    assert abs(share - recorded) < 4 * (recorded * (1 - recorded) / len(labels)) ** 0.5


def test_checksums():
    listed = {}
    for line in (ZOO / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        listed[name] = digest
    files = [*ZOO.rglob("*.safetensors"), *ZOO.glob("mnist/*.gz"), *ZOO.glob("cifar10/*.xz")]
    assert listed == {
        path.relative_to(ZOO).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_images_are_the_original_ones():
    md5 = {
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    }
    for name, digest in md5.items():
        contents = (ZOO / "mnist" / name).read_bytes()
        assert hashlib.md5(contents, usedforsecurity=False).hexdigest() == digest
