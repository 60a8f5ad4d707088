"""Networks: what is inferred, what is refused, and files."""

import json
import pickle
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from brambling.errors import BramblingError, ConfigError, FileProblem
from brambling.network import ArgMax, Dense, Layer, Network, Tensor, Thresholds
from brambling.quant.formats import Bipolar, Fixed, Format, Ternary

BIPOLAR = Bipolar()
VECTOR = Tensor((3,), BIPOLAR)
WORDS = [[1, -1, 1], [-1, -1, 1]]


def dense(weights, fmt: Format = BIPOLAR, name="fc", inputs=("input",)):
    return Dense(name=name, inputs=inputs, weights=np.array(weights), fmt=fmt)


def thresholds(levels, fmt: Format = BIPOLAR, falling=None, inputs=("fc",)):
    falling = np.zeros(len(levels), bool) if falling is None else np.array(falling)
    return Thresholds(name="act", inputs=inputs, levels=np.array(levels), falling=falling, fmt=fmt)


def network(*layers, name="net", source=VECTOR, **options):
    return Network(name, source, layers or (dense(WORDS),), **options)


def refused(error, message):
    return pytest.raises(error, match=f"^{re.escape(message)}$")


# What is inferred -----------------------------------------------------------------------------


def test_tensors_are_the_edges_in_order():
    act = thresholds([[0], [1]])
    net = network(dense(WORDS), act, ArgMax(name="argmax", inputs=("act",)))
    assert {name: str(tensor) for name, tensor in net.tensors.items()} == {
        "input": "3:bipolar",
        "fc": "2:s3.0",
        "act": "2:bipolar",
        "argmax": "scalar:u1.0",
    }
    assert net.output == net.tensors["argmax"]
    assert net.consumers("fc") == (act,)
    assert net.layer("act") is act
    assert (net.macs, net.weight_bits) == (6, 6)
    assert str(net).splitlines()[1] == "  fc           Dense(input) -> 2:s3.0"


def test_a_graph_may_branch():
    rows = [dense(WORDS, name=name) for name in ("a", "b")]
    assert [layer.name for layer in network(*rows).consumers("input")] == ["a", "b"]


@pytest.mark.parametrize(
    "weight", [BIPOLAR, Ternary(), Fixed(3), Fixed(2, 1, signed=False)], ids=str
)
@pytest.mark.parametrize("source", [BIPOLAR, Fixed(3), Fixed(2, 5, signed=False)], ids=str)
def test_bounds_are_those_of_every_input(weight, source):
    rng = np.random.default_rng(5)
    codes = [c for c in range(weight.min, weight.max + 1) if weight.holds(np.array([c]))]
    weights = rng.choice(codes, (4, 3))
    layer = dense(weights, weight)
    inputs = [c for c in range(source.min, source.max + 1) if source.holds(np.array([c]))]
    results = np.array(list(product(inputs, repeat=3))) @ weights.T
    x = Tensor((3,), source)
    low, high = layer.bounds(x)
    assert low.tolist() == results.min(axis=0).tolist()
    assert high.tolist() == results.max(axis=0).tolist()
    y = layer.output(x)
    assert y == Tensor((4,), Fixed.spanning(int(low.min()), int(high.max()), y.fmt.frac))
    assert y.fmt.frac == weight.frac + source.frac


def test_parameters_are_read_only_copies():
    mine = np.array(WORDS)
    net = network(dense(mine), thresholds([[0], [1]]))
    mine[:] = 1
    assert net.layer("fc").arrays()["weights"].tolist() == [[0b101], [0b100]]
    for layer in net.layers:
        for key in ("weights", "levels", "falling"):
            array = getattr(layer, key, None)
            assert array is None or not array.flags.writeable


# What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Network("net", VECTOR, ()), "net: a network has at least one layer, not 0"),
        (
            lambda: network(name="../net"),
            "a network's name must match [A-Za-z0-9][A-Za-z0-9_.-]*, not '../net'",
        ),
        (
            lambda: network(dense(WORDS, name="Conv 1")),
            "net: a layer's name must match [a-z][a-z0-9_]*, not 'Conv 1'",
        ),
        (lambda: network(dense(WORDS), dense(WORDS)), "net: two layers are named 'fc'"),
        (lambda: network(dense(WORDS, name="input")), "net: two layers are named 'input'"),
        (lambda: network(dense(WORDS, inputs=("x",))), "fc: no earlier layer is named 'x'"),
        (lambda: network(dense(WORDS, inputs=("fc",))), "fc: no earlier layer is named 'fc'"),
        (
            lambda: network(dense(WORDS, inputs=("input", "input"))),
            "fc: needs one input, not 2",
        ),
        (
            lambda: network(dense([[1, 1, 1, 1]])),
            "fc.weights: takes 4 inputs, but 'input' is 3:bipolar",
        ),
        (
            lambda: network(dense(WORDS), thresholds([[0], [1], [2]])),
            "act.levels: has 3 channels, but 'fc' is 2:s3.0",
        ),
        (
            lambda: network(ArgMax(name="max", inputs=("input",)), source=Tensor((2, 3), BIPOLAR)),
            "max: needs a vector, but 'input' is 2x3:bipolar",
        ),
        (lambda: network(normalisation=3), "net: normalisation and classes must be text"),
        (lambda: network(classes=(0, 1)), "net: normalisation and classes must be text"),
        (
            lambda: network(provenance=["seed"]),
            "net: provenance must be a mapping, not ['seed']",
        ),
        (lambda: Tensor((3, 0), BIPOLAR), "a shape must be positive integers, not (3, 0)"),
        (lambda: Tensor((3, True), BIPOLAR), "a shape must be positive integers, not (3, True)"),
        (lambda: network().layer("x"), "net has the layers fc, not 'x'"),
    ],
)
def test_refuses_networks(make, message):
    with refused(ConfigError, message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: dense([[1.0, -1.0, 1.0]]),
            "fc.weights: values must be integers, not float64",
        ),
        (
            lambda: dense([[1, np.nan, 1]]),
            "fc.weights: values must be finite integers, not NaN or infinity",
        ),
        (
            lambda: dense([[1, -np.inf, 1]]),
            "fc.weights: values must be finite integers, not NaN or infinity",
        ),
        (lambda: dense([[True, False]]), "fc.weights: values must be integers, not bool"),
        (lambda: dense([["1"]]), "fc.weights: values must be integers, not <U1"),
        (
            lambda: dense([[1, 300]], Fixed(8, 0, signed=False)),
            "fc.weights: values must fit uint8, not int64",
        ),
        (lambda: dense([1, -1]), "fc.weights: shape must be (outputs, inputs), not (2,)"),
        (
            lambda: dense(np.zeros((0, 3), int)),
            "fc.weights: shape must be (outputs, inputs), not (0, 3)",
        ),
        (lambda: dense([[1, 0, 1]]), "fc.weights: every value must be a code of bipolar"),
        (
            lambda: dense([[1, -2, 1]], Ternary()),
            "fc.weights: every value must be a code of ternary",
        ),
        (
            lambda: dense([[7, 8]], Fixed(4, 2)),
            "fc.weights: every value must be a code of s4.2",
        ),
        (lambda: thresholds([[0.5]]), "act.levels: values must be integers, not float64"),
        (
            lambda: thresholds([[np.nan]]),
            "act.levels: values must be finite integers, not NaN or infinity",
        ),
        (lambda: thresholds([0]), "act.levels: shape must be (channels, n), not (1,)"),
        (
            lambda: thresholds([[0], [1]], falling=[True]),
            "act.falling: shape must be (2,), not (1,)",
        ),
        (
            lambda: thresholds([[0, 1], [2, 1]], Fixed(2)),
            "act.levels: each row must be in rising order",
        ),
        (
            lambda: thresholds([[0, 1]]),
            "act.levels: bipolar has 2 codes, enough for 1 levels, not 2",
        ),
        (
            lambda: thresholds([[0, 1, 2, 3]], Fixed(2)),
            "act.levels: s2.0 has 4 codes, enough for 3 levels, not 4",
        ),
        (
            lambda: thresholds([[0, 1, 2]], Ternary()),
            "act.levels: ternary has 3 codes, enough for 2 levels, not 3",
        ),
    ],
)
def test_refuses_parameters(make, message):
    with refused(ConfigError, message):
        make()


def test_levels_too_large_for_64_bits_are_refused():
    with refused(ConfigError, "act.levels: values must fit int64, not uint64"):
        thresholds(np.array([[2**63]], np.uint64))


def test_refuses_accumulators_that_could_overflow():
    wide = Fixed(32)
    source = Tensor((2,), wide)
    fits = network(dense([[2**31 - 1, -(2**31)]], Fixed(32)), source=Tensor((2,), Fixed(29)))
    assert fits.output.fmt.width == 61
    with refused(ConfigError, "fc: 2 products of s32.0 and s32.0 could overflow 63 bits"):
        network(dense([[1, 1]], wide), source=source)


# Files ----------------------------------------------------------------------------------------


@pytest.fixture
def example():
    return network(
        dense(WORDS),
        thresholds([[-1, 2], [0, 0]], Ternary(), falling=[True, False]),
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
    net = network(dense(weights), source=Tensor((13,), BIPOLAR))
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
        (
            {"act__levels": np.zeros((2, 2))},
            "act.levels: values must be integers, not float64",
        ),
        (
            {"act__levels": np.full((2, 2), np.nan, np.float32)},
            "act.levels: values must be finite integers, not NaN or infinity",
        ),
        (
            {"act__levels": np.array([[1, 0], [0, 0]])},
            "act.levels: each row must be in rising order",
        ),
        (
            {"act__falling": np.zeros(2, np.uint8)},
            "act.falling: values must be bool, not uint8",
        ),
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
    with refused(FileProblem, f"{saved}: {message}"):
        Network.load(saved)


def test_kinds_are_those_of_this_module():
    assert sorted(Layer.kinds) == [
        "Add", "ArgMax", "Concat", "Conv", "Dense", "Flatten", "Pool", "Requantise", "Slice",
        "Table", "Thresholds", "Upsample",
    ]  # fmt: skip


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


def test_any_byte_may_be_wrong(saved):
    """What is loaded after all is a network; everything else is told in one line."""
    contents = saved.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = {True: 0, False: 0}
    for _ in range(300):
        wrong = bytearray(contents)
        wrong[rng.integers(len(wrong))] ^= int(rng.integers(1, 256))
        saved.write_bytes(wrong)
        outcomes[loads_or_says_why(saved)] += 1
    assert all(outcomes.values())


ODD = (None, -1, float("inf"), 10**30, "", [], {}, True, [[9]], "s8.0")


def branches(tree, path=()):
    """Paths to everything in nested lists and dicts."""
    if path:
        yield path
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield from branches(tree[key], (*path, key))


def test_any_metadata_may_be_wrong(saved):
    contents = saved.read_bytes()
    paths = []
    damaged(saved, lambda meta: paths.extend(branches(meta)))
    assert len(paths) > 30
    for path in paths:
        for odd in ODD:

            def change(meta, path=path, odd=odd):
                for key in path[:-1]:
                    meta = meta[key]
                meta[path[-1]] = odd

            saved.write_bytes(contents)
            damaged(saved, change)
            loads_or_says_why(saved)


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
    with refused(FileProblem, f"{path}: no such file"):
        Network.load(path)


def test_refuses_safetensors_of_others(tmp_path):
    path = tmp_path / "other.safetensors"
    path.write_bytes(save({"weight": np.zeros(3, np.float32)}))
    with refused(FileProblem, f"{path}: network version must be '1', not None"):
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
