"""Files of networks: what is written is read again, and what is damaged is refused."""

import json
import pickle
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from brambling.errors import BramblingError, FileProblem
from brambling.network import (
    Add,
    ArgMax,
    Concat,
    Conv,
    Dense,
    DepthToSpace,
    Flatten,
    Layer,
    Network,
    Pool,
    Requantise,
    Slice,
    Table,
    Tensor,
    Thresholds,
    Upsample,
)
from brambling.quant.formats import Bipolar, Fixed, Ternary

WORDS = [[1, -1, 1], [-1, -1, 1]]


def dense(weights=WORDS):
    return Dense(name="fc", inputs=("input",), weights=np.array(weights), fmt=Bipolar())


def network(*layers, name="net", size=3, **options):
    return Network(name, Tensor((size,), Bipolar()), layers or (dense(),), **options)


def refused(path, message):
    return pytest.raises(FileProblem, match=f"^{re.escape(f'{path}: {message}')}$")


@pytest.fixture
def pictures():
    """A network with every kind of layer that works on images."""
    rng = np.random.default_rng(0)
    one = np.array([1])
    layers = (
        Conv(
            name="conv",
            inputs=("input",),
            weights=rng.choice([-1, 1], (4, 3, 2, 3)),
            fmt=Bipolar(),
            stride=(1, 2),
            padding=(1, 0, 0, 1),
            pad_value=-2,
            dilation=(2, 1),
        ),
        Requantise(
            name="relu",
            inputs=("conv",),
            multiplier=np.arange(1, 5),
            bias=one,
            shift=3,
            low=0,
            fmt=Fixed(4, 1),
            slope=(4, 1),
            rounding="half_even",
        ),
        Pool(name="pool", inputs=("relu",), kind="max", kernel=(2, 2), stride=(1, 1)),
        Conv(
            name="depth",
            inputs=("pool",),
            weights=rng.integers(-4, 4, (4, 1, 1, 1)),
            fmt=Fixed(3),
            groups=4,
        ),
        Requantise(name="same", inputs=("depth",), multiplier=one, bias=one, fmt=Fixed(4, 1)),
        Table(name="table", inputs=("same",), entries=np.arange(16)[::-1], fmt=Fixed(5, 2)),
        Add(name="sum", inputs=("pool", "table", "pool")),
        Slice(name="half", inputs=("sum",), start=1, stop=3),
        Concat(name="both", inputs=("half", "sum")),
        Upsample(name="up", inputs=("both",), factor=(1, 2)),
        DepthToSpace(name="apart", inputs=("up",), block=(2, 3)),
        Pool(name="global", inputs=("apart",), kind="sum"),
        Flatten(name="flat", inputs=("global",)),
        ArgMax(name="argmax", inputs=("flat",)),
    )
    return Network("pictures", Tensor((6, 8, 3), Fixed(3)), layers)


@pytest.fixture
def example():
    return network(
        dense(),
        Thresholds(
            name="act",
            inputs=("fc",),
            levels=np.array([[-1, 2], [0, 0]]),
            falling=np.array([True, False]),
            fmt=Ternary(),
        ),
        Dense(name="out", inputs=("act",), weights=np.array([[3, -4]] * 2), fmt=Fixed(3, 1)),
        ArgMax(name="argmax", inputs=("out",)),
        classes=("nought", "één"),
        normalisation="as it is",
        provenance={"script": "train.py", "seed": 3, "accuracy": 0.9},
    )


@pytest.fixture
def saved(example, tmp_path):
    path = tmp_path / "net.safetensors"
    example.save(path)
    return path


@pytest.fixture
def saved_pictures(pictures, tmp_path):
    path = tmp_path / "pictures.safetensors"
    pictures.save(path)
    return path


@pytest.fixture(params=["saved", "saved_pictures"])
def any_saved(request):
    return request.getfixturevalue(request.param)


def test_round_trip(example, saved):
    again = Network.load(saved)
    assert again == example
    assert hash(again) == hash(example)
    assert again.to_bytes() == saved.read_bytes()
    assert again.tensors == example.tensors
    assert again.classes == ("nought", "één")
    assert (again.normalisation, again.provenance) == (example.normalisation, example.provenance)
    for mine, other in zip(again.layers, example.layers, strict=True):
        assert type(mine) is type(other)
        for key, array in mine.arrays().items():
            assert np.array_equal(array, other.arrays()[key])
            assert array.dtype == other.arrays()[key].dtype
    for layer, key in (("fc", "weights"), ("act", "levels"), ("act", "falling")):
        assert not getattr(again.layer(layer), key).flags.writeable


def test_every_kind_makes_the_round_trip(pictures, example, saved_pictures):
    kinds = {type(layer).__name__ for layer in (*pictures.layers, *example.layers)}
    assert kinds == set(Layer.kinds)
    again = Network.load(saved_pictures)
    assert again == pictures
    assert again.to_bytes() == saved_pictures.read_bytes()
    assert again.tensors == pictures.tensors
    for mine, other in zip(again.layers, pictures.layers, strict=True):
        assert mine.attributes() == other.attributes()
        for field in fields(other):
            one, two = getattr(mine, field.name), getattr(other, field.name)
            if isinstance(two, np.ndarray):
                assert np.array_equal(one, two)
                assert one.dtype == two.dtype
                assert not one.flags.writeable
            else:
                assert one == two
                assert type(one) is type(two)


def test_equal_networks_give_equal_bytes(example, saved):
    assert len({example.to_bytes() for _ in range(20)}) == 1
    assert Network.load(saved).digest == example.digest
    assert load(saved.read_bytes()).keys() == {
        "fc.weights",
        "act.levels",
        "act.falling",
        "out.weights",
    }


def test_different_networks_differ(example):
    assert example != network()
    assert network(name="other") != network()
    assert network(provenance={"seed": 1}) != network()
    assert network() != "net"


def test_elements_that_do_not_fill_a_byte(tmp_path):
    weights = np.random.default_rng(0).choice([-1, 1], (3, 13))
    net = network(dense(weights), size=13)
    net.save(tmp_path / "n")
    fc = Network.load(tmp_path / "n").layers[0]
    assert isinstance(fc, Dense)
    assert fc.weights.tolist() == weights.tolist()


def damaged(path, meta=None, version="1", **tensors):
    """Write ``path`` again, with other metadata or tensors (``None`` leaves one out)."""
    contents = path.read_bytes()
    length = int.from_bytes(contents[:8], "little")
    found = json.loads(json.loads(contents[8 : 8 + length])["__metadata__"]["network"])
    arrays = load(contents) | {key.replace("__", "."): value for key, value in tensors.items()}
    arrays = {key: value for key, value in arrays.items() if value is not None}
    if meta is not None:
        meta(found)
    path.write_bytes(save(arrays, {"brambling": version, "network": json.dumps(found)}))


def of_layer(number, **keys):
    return lambda meta: meta["layers"][number].update(keys)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"version": "2"}, "network version must be '1', not '2'"),
        ({"fc__weights": None}, "fc: tensor fc.weights is missing"),
        ({"act__falling": None}, "act: tensor act.falling is missing"),
        (
            {"fc__weights": np.zeros((2, 1), np.float32)},
            "fc.weights: packed bits must be uint8, not float32",
        ),
        (
            {"fc__weights": np.zeros((2, 2), np.uint8)},
            "fc.weights: 3 packed bits a row need shape (outputs, 1), not (2, 2)",
        ),
        ({"act__levels": np.zeros((2, 2))}, "act.levels: values must be integers, not float64"),
        (
            {"act__levels": np.full((2, 2), np.nan, np.float32)},
            "act.levels: values must be finite integers, not NaN or infinity",
        ),
        (
            {"act__levels": np.array([[1, 0], [0, 0]])},
            "act.levels: each row must be in rising order",
        ),
        ({"act__falling": np.zeros(2, np.uint8)}, "act.falling: values must be bool, not uint8"),
        (
            {"out__weights": np.array([[3, 4]] * 2)},
            "out.weights: every value must be a code of s3.1",
        ),
        (
            {"out__weights": np.array([[1, 1, 1]])},
            "out.weights: takes 3 inputs, but 'act' is 2:ternary",
        ),
        (
            {"meta": of_layer(0, kind="Recurrent")},
            f"fc: layer kind must be one of {', '.join(Layer.kinds)}, not 'Recurrent'",
        ),
        (
            {"meta": of_layer(0, fmt="s8")},
            "a format is written 'bipolar', 'ternary', or like 's8.5' or 'u4.0', not 's8'",
        ),
        ({"meta": of_layer(1, inputs=["out"])}, "act: no earlier layer is named 'out'"),
        (
            {"meta": lambda meta: meta.update(name="../../evil")},
            "a network's name must match [A-Za-z0-9][A-Za-z0-9_.-]*, not '../../evil'",
        ),
        (
            {"meta": lambda meta: meta["input"].update(shape=[-3])},
            "a shape must be positive integers, not (-3,)",
        ),
        (
            {"meta": lambda meta: meta["input"].update(shape=[5])},
            "fc.weights: takes 3 inputs, but 'input' is 5:bipolar",
        ),
        (
            {"meta": lambda meta: meta.update(provenance=None)},
            "net: provenance must be a mapping, not None",
        ),
        ({"meta": lambda meta: meta.pop("classes")}, "metadata is damaged (KeyError('classes'))"),
        (
            {"meta": of_layer(0, elements=float("inf"))},
            "metadata is damaged (OverflowError('cannot convert float infinity to integer'))",
        ),
    ],
)
def test_refuses_damaged_files(saved, damage, message):
    damaged(saved, **damage)
    with refused(saved, message):
        Network.load(saved)


def named(layer, *absent, **keys):
    """Change the attributes of a layer, and leave some out."""

    def change(meta):
        (row,) = (row for row in meta["layers"] if row["name"] == layer)
        row.update(keys)
        for key in absent:
            del row[key]

    return {"meta": change}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"conv__weights": None}, "conv: tensor conv.weights is missing"),
        ({"relu__multiplier": None}, "relu: tensor relu.multiplier is missing"),
        ({"table__entries": None}, "table: tensor table.entries is missing"),
        (
            {"conv__weights": np.zeros((4, 2), np.uint8)},
            "conv.weights: 18 packed bits a row need shape (outputs, 3), not (4, 2)",
        ),
        ({"conv__weights": np.zeros((5, 3), np.uint8)}, "conv.weights: must have 4 rows, not 5"),
        (
            {"depth__weights": np.zeros((2, 2, 1, 1), np.int8)},
            "depth.weights: shape must be (4, 1, 1, 1), not (2, 2, 1, 1)",
        ),
        (
            {"depth__weights": np.full((4, 1, 1, 1), 4, np.int8)},
            "depth.weights: every value must be a code of s3.0",
        ),
        (
            {"relu__bias": np.zeros(1, np.float32)},
            "relu.bias: values must be integers, not float32",
        ),
        (
            {"relu__bias": np.zeros(3, np.int64)},
            "relu.bias: has 3 channels, but 'conv' is 3x4x4:s8.0",
        ),
        (
            {"table__entries": np.zeros(8, np.int64)},
            "table.entries: must have 16 entries for s4.1, not 8",
        ),
        (
            named("conv", stride=["1", "2"]),
            "conv: stride must be 2 integers of at least 1, not ('1', '2')",
        ),
        (named("conv", stride="12"), "conv: stride must be 2 integers of at least 1, not 12"),
        (
            named("conv", stride=[1, 2.0]),
            "conv: stride must be 2 integers of at least 1, not (1, 2.0)",
        ),
        (
            named("conv", padding=[1, True, 0, 1]),
            "conv: padding must be 4 integers of at least 0, not (1, True, 0, 1)",
        ),
        (
            named("conv", shape=[4, 3, 3, 2]),
            "conv.weights: takes 2 channels in each of 1 groups, but 'input' is 6x8x3:s3.0",
        ),
        (
            named("conv", shape=[4, -3, -2, 3]),
            "conv.weights: shape must be 4 integers of at least 1, not (4, -3, -2, 3)",
        ),
        (named("conv", "shape"), "conv.weights: shape must be 4 integers of at least 1, not None"),
        (named("depth", "fmt"), "depth: fmt is missing"),
        (named("depth", groups=3), "depth: groups must divide the 4 outputs, not 3"),
        (named("relu", slope=None), "relu: slope must be 2 integers, not None"),
        (named("relu", shift="3"), "relu: shift must be 0 to 62, not '3'"),
        (
            named("relu", rounding="up"),
            "relu: rounding must be one of half_up, half_even, half_away, floor, not 'up'",
        ),
        (named("pool", "pool"), "pool: kind is missing"),
        (named("pool", pool="min"), "pool: kind must be one of max, sum, average, not 'min'"),
        (named("global", kernel=[]), "global: kernel must be 2 integers of at least 1, not ()"),
        (named("half", "stop"), "half: stop is missing"),
        (named("half", stop=2.5), "half: start and stop must be integers, not 1 and 2.5"),
        (named("up", factor="22"), "up: factor must be 2 integers of at least 1, not 22"),
        (named("apart", block=[2]), "apart: block must be 2 integers of at least 1, not (2,)"),
        (named("sum", inputs=["pool"]), "sum: needs two inputs or more, not 1"),
        (
            named("sum", inputs=["pool", "input"]),
            "sum: inputs must have one shape, but 'pool' is 2x3x4:s4.1 and 'input' is 6x8x3:s3.0",
        ),
        (
            named("flat", why="because"),
            (
                'metadata is damaged (TypeError("Flatten.__init__() got an unexpected keyword '
                "argument 'why'\"))"
            ),
        ),
    ],
)
def test_refuses_damaged_pictures(saved_pictures, damage, message):
    damaged(saved_pictures, **damage)
    with refused(saved_pictures, message):
        Network.load(saved_pictures)


def test_refuses_a_truncated_file(saved):
    contents = saved.read_bytes()
    for length in (*range(40), *range(40, len(contents), 7), len(contents) - 1):
        saved.write_bytes(contents[:length])
        with pytest.raises(FileProblem, match=f"^{re.escape(str(saved))}: not a whole safetensors"):
            Network.load(saved)


def loads_or_says_why(path):
    """Whether ``path`` is a network, which can be saved again; else the error has one line."""
    try:
        loaded = Network.load(path)
    except BramblingError as error:
        said = str(error)
    else:
        loaded.save(path)
        assert Network.load(path) == loaded
        return True
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return False


def test_any_byte_may_be_wrong(any_saved):
    """What is loaded after all is a network; everything else is told in one line."""
    contents = any_saved.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = {True: 0, False: 0}
    for _ in range(300):
        wrong = bytearray(contents)
        wrong[rng.integers(len(wrong))] ^= int(rng.integers(1, 256))
        any_saved.write_bytes(wrong)
        outcomes[loads_or_says_why(any_saved)] += 1
    assert all(outcomes.values())


ODD = (None, -1, float("inf"), 10**30, "", [], {}, True, [[9]], "s8.0")


def branches(tree, path=()):
    """Paths to everything in nested lists and dicts."""
    if path:
        yield path
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield from branches(tree[key], (*path, key))


def test_any_metadata_may_be_wrong(any_saved):
    contents = any_saved.read_bytes()
    paths = []
    damaged(any_saved, lambda meta: paths.extend(branches(meta)))
    assert len(paths) > 30
    step = 1 + len(paths) // 60  # Of many paths, each meets some of the odd values.
    for n, path in enumerate(paths):
        for odd in ODD[n % step :: step]:

            def change(meta, path=path, odd=odd):
                for key in path[:-1]:
                    meta = meta[key]
                meta[path[-1]] = odd

            any_saved.write_bytes(contents)
            damaged(any_saved, change)
            loads_or_says_why(any_saved)


def test_refuses_what_is_no_network_file(tmp_path):
    for name, contents in {
        "text": b"hello, world, this is not a network",
        "empty": b"",
        "pickle": pickle.dumps({"weights": WORDS}),
    }.items():
        path = tmp_path / name
        path.write_bytes(contents)
        with pytest.raises(FileProblem, match=f"^{re.escape(str(path))}: not a whole safetensors"):
            Network.load(path)


@pytest.mark.parametrize("name", ["", "absent.safetensors"], ids=["folder", "absent"])
def test_refuses_a_path_without_a_file(tmp_path, name):
    path = tmp_path / name
    with refused(path, "no such file"):
        Network.load(path)


def test_refuses_safetensors_of_others(tmp_path):
    path = tmp_path / "other.safetensors"
    path.write_bytes(save({"weight": np.zeros(3, np.float32)}))
    with refused(path, "network version must be '1', not None"):
        Network.load(path)


def test_an_interrupted_save_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def interrupt(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        network(name="other").save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]
