"""What differs is found and named; what float32's rounding explains is counted, nothing else."""

import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto  # noqa: E402

from brambling.errors import Mismatch  # noqa: E402
from brambling.network import Requantise, Thresholds  # noqa: E402
from brambling.quant.formats import Fixed  # noqa: E402
from brambling.quant.interchange import check, executor, models, reader  # noqa: E402
from brambling.quant.interchange.compared import Report  # noqa: E402
from brambling.quant.interchange.importer import Options, import_graph  # noqa: E402

from .small_models import GENERAL, Maker  # noqa: E402


def small() -> Maker:
    """Two convolutions, one with a bias and thresholds, one with a multiplier; a dense layer."""
    m = Maker((1, 2, 6, 6), 13)

    def quantise(tensor, scale, bits, **options):
        given = tensor, m.const(scale), m.const(0), m.const(bits)
        return m.add("IntQuant", *given, domain=GENERAL, **options)

    m.last = quantise("x", 0.25, 6)
    m.then("Conv", quantise(m.noise(4, 2, 3, 3), 0.3, 4), m.noise(4))
    m.last = quantise(m.last, 0.73, 3)
    m.then("Conv", quantise(m.noise(3, 4, 2, 2), 0.25, 4), m.const([0.5, -1.5, 3]))
    m.last = quantise(m.last, 1, 8)
    m.then("Flatten")
    m.then("MatMul", m.const(m.rng.integers(-3, 4, (27, 4))))
    return m


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "small.onnx"
    onnx.save(small().model(), path)
    return models.read(path)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(0, 2, (8, 2, 6, 6)).astype(np.float32)


def kinds(network):
    return [(layer.name, type(layer).__name__) for layer in network.layers]


def changed(network, name, **fields):
    """Network with another layer of a name."""
    layers = [
        replace(layer, **{key: make(getattr(layer, key)) for key, make in fields.items()})
        if layer.name == name
        else layer
        for layer in network.layers
    ]
    return replace(network, layers=tuple(layers))


def first(model, images, network):
    """The first tensor that differs."""
    return next(row for row in model.differences(images, network) if row.differs.any())


def channels(row):
    return set(np.argwhere(row.differs)[:, 1].tolist())


def test_the_network_itself_has_no_differences(model, images):
    assert kinds(model.network) == [
        ("conv1", "Conv"), ("act1", "Thresholds"), ("conv2", "Conv"), ("act2", "Requantise"),
        ("flatten1", "Flatten"), ("fc1", "Dense"),
    ]  # fmt: skip
    rows = list(model.differences(images))
    assert [(row.node, row.edge, row.rounds) for row in rows] == [
        ("IntQuant_0 (IntQuant)", "input", True),
        ("Conv_2 (Conv)", "conv1", False),
        ("IntQuant_3 (IntQuant)", "act1", True),
        ("Conv_5 (Conv)", "conv2", False),
        ("IntQuant_6 (IntQuant)", "act2", True),
        ("Flatten_7 (Flatten)", "act2", False),
        ("MatMul_8 (MatMul)", "fc1", False),
    ]
    assert not any(row.differs.any() or row.doubtful.any() for row in rows)
    codes = 8 * (72 + 64 + 27)
    ties = {f"IntQuant_{n} (IntQuant)": 0 for n in (0, 3, 6)}
    seen = []
    assert model.check(images, lambda *done: seen.append(done)) == Report(8, codes, ties, 0, 0)
    assert seen == [(8, 8)]


def test_a_flipped_sign_of_a_weight(model, images):
    def flip(weights):
        found = weights.copy()
        place = tuple(np.argwhere(found[2] != 0)[0])
        found[2][place] *= -1
        return found

    row = first(model, images, changed(model.network, "conv1", weights=flip))
    assert (row.node, row.edge) == ("Conv_2 (Conv)", "conv1")
    assert channels(row) == {2}
    assert not row.doubtful.any()


def test_a_threshold_that_is_off_by_one(model, images):
    def move(levels):
        found = levels.copy()
        found[1, 3] += 1
        return found

    layer = next(layer for layer in model.network.layers if layer.name == "act1")
    assert isinstance(layer, Thresholds)
    network = changed(model.network, "act1", levels=move)
    many = np.random.default_rng(2).normal(0, 2, (64, 2, 6, 6)).astype(np.float32)
    row = first(model, many, network)
    assert (row.node, row.edge) == ("IntQuant_3 (IntQuant)", "act1")
    assert channels(row) == {1}
    # One code, where the sum is the level; nowhere near a tie.
    assert np.allclose(np.abs(row.model - row.network)[row.differs], np.float32(0.73))
    assert not row.doubtful.any()


def test_a_bias_that_was_dropped(model, images):
    layer = next(layer for layer in model.network.layers if layer.name == "act2")
    assert isinstance(layer, Requantise)
    rows = np.broadcast_to(layer.bias, 3)
    assert (rows != 0).any()
    row = first(model, images, changed(model.network, "act2", bias=np.zeros_like))
    assert (row.node, row.edge) == ("IntQuant_6 (IntQuant)", "act2")
    assert channels(row) <= set(np.flatnonzero(rows))


def test_swapped_channels(model, images):
    network = changed(model.network, "conv2", weights=lambda weights: weights[[0, 2, 1]])
    row = first(model, images, network)
    assert (row.node, row.edge) == ("Conv_5 (Conv)", "conv2")
    assert channels(row) == {1, 2}


def test_swapped_inputs_of_the_last_layer(model, images):
    def swap(weights):
        return weights[:, ::-1]

    row = first(model, images, changed(model.network, "fc1", weights=swap))
    assert (row.node, row.edge, row.tensor) == ("MatMul_8 (MatMul)", "fc1", model.made.graph.output)


def test_the_first_difference_in_words(model, images):
    network = changed(model.network, "conv2", weights=lambda weights: weights[[0, 2, 1]])
    row = first(model, images, network)
    found = row.first()
    place = (found.image, *found.place)
    assert place == tuple(np.argwhere(row.differs)[0])
    assert (found.model, found.network) == (row.model[place], row.network[place])
    assert str(found) == (
        f"{row.tensor} of Conv_5 (Conv) (edge conv2): image {place[0]}, element {place[1:]} is "
        f"{found.model:.9g} in the model and {found.network:.9g} in the network, no tie "
        f"({row.differs.sum()} differ)"
    )
    with pytest.raises(Mismatch) as caught:
        check.check(replace(model.made, network=network), images)
    assert str(caught.value) == f"small: image {place[0]}: {found}"
    only = np.arange(8) == 5
    assert row.first(only).image == 5


def test_images_are_counted_on_from_chunk_to_chunk(model, images):
    tensor = first(
        model, images, changed(model.network, "conv1", weights=lambda weights: weights[::-1])
    ).tensor
    many = np.concatenate([images] * 9)
    values = executor.execute(model.made.graph, many, [tensor])
    values[tensor][66, 0, 1, 2] += 1
    with pytest.raises(Mismatch, match=re.escape(f"small: image 66: {tensor} of Conv_2 (Conv)")):
        check.check(model.made, many, executed=values)


# Ties ---------------------------------------------------------------------------------------------


def candidates():
    """Numbers, a whole number, and about twice their product."""
    rng = np.random.default_rng(0)
    for _ in range(1000):
        factor, code = np.float32(rng.uniform(0.1, 1)), int(rng.integers(3, 100))
        yield factor, code, np.float32(2 * code * float(factor))


def decided_otherwise(numbers) -> bool:
    """Whether the quotient is above a half, and float32 says that it is one."""
    factor, code, scale = numbers
    exact = code * Fraction(float(factor)) / Fraction(float(scale))
    return exact > Fraction(1, 2) and np.float32(code) * factor / scale == 0.5


def tied(*, behind: bool = False):
    """A model whose quantiser meets a tie that float32 decides otherwise, and integers for it.

    Of eight codes one is multiplied to about half of the quantiser's scale: by one unit in the
    last place more than half, which float32 rounds away.
    """
    factor, code, scale = next(filter(decided_otherwise, candidates()))
    m = Maker((1, 8), 13)
    m.then("Mul", m.const(factor))
    m.then("IntQuant", m.const(scale), m.const(0), m.const(4), domain=GENERAL)
    if behind:
        m.then("MatMul", m.const(np.ones((8, 3))))
        m.then("IntQuant", m.const(scale * 2), m.const(0), m.const(8), domain=GENERAL)
    codes = np.zeros((2, 8), np.float32)
    codes[1, 5] = code
    return imported(m), codes


def imported(m: Maker, kind: Any = TensorProto.FLOAT):
    options = Options(Fraction(1), fmt=Fixed(8, 0))
    return import_graph(reader.parse(m.model(kind), "m"), options)


def test_a_tie_is_counted():
    made, codes = tied()
    found = check.check(made, codes)
    node = "IntQuant_1 (IntQuant)"
    assert found == Report(2, 16, {node: 1}, 0, 1)
    assert str(found) == (
        f"2 images: 16 codes equal but for float ties ({node} 1) and 0 that follow from them; "
        "outputs equal but for 1 images with a tie"
    )
    row = list(check.differences(made, codes))[-1]
    assert np.argwhere(row.differs & row.doubtful).tolist() == [[1, 5]]
    assert (row.model[1, 5], row.network[1, 5] > 0) == (0, True)
    assert row.first().tie
    assert "a tie within float32's rounding (1 differ)" in str(row.first())


def test_what_follows_from_a_tie_is_counted_apart():
    made, codes = tied(behind=True)
    found = check.check(made, codes)
    # The sum, one step more, meets half of the next quantiser's step: to even, in both.
    assert found.ties == {"IntQuant_1 (IntQuant)": 1, "IntQuant_3 (IntQuant)": 0}
    row = list(check.differences(made, codes))[2]
    assert (row.node, row.differs.sum()) == ("MatMul_2 (MatMul)", 3)
    assert found.outputs <= 1


def test_without_its_bounds_the_tie_would_be_a_mismatch(monkeypatch):
    made, codes = tied()
    monkeypatch.setattr(check, "ULP", 0.0)
    with pytest.raises(
        Mismatch, match=r"m: image 1: t0 of Mul_0 \(Mul\) \(edge input\): image 1, "
    ):
        check.check(made, codes)


def test_a_tie_excuses_only_the_codes_on_its_two_sides():
    made, codes = tied()
    name = made.graph.output
    values = executor.execute(made.graph, codes)
    step = float(made.graph.constants[made.graph.nodes[1].inputs[1]])
    assert values[name][1, 5] == 0
    for wrong in (-step, 2 * step):
        other = values[name].copy()
        other[1, 5] = wrong
        with pytest.raises(Mismatch, match=re.escape("element (5,) is")) as caught:
            check.check(made, codes, executed={name: other})
        assert "no tie (1 differ)" in str(caught.value)
    other = values[name].copy()
    other[0, 5] = step  # There is no tie in that image.
    with pytest.raises(Mismatch, match=r"m: image 0: .*no tie"):
        check.check(made, codes, executed={name: other})


def test_a_tie_does_not_excuse_another_image():
    made, codes = tied(behind=True)
    name = made.graph.nodes[2].outputs[0]
    values = executor.execute(made.graph, codes, [name])
    values[name][0, 1] += 100
    with pytest.raises(Mismatch, match=r"m: image 0: "):
        check.check(made, codes, executed=values)


def test_exact_halves_are_no_ties():
    m = Maker((1, 8), 13)
    m.then("Mul", m.const(0.25))
    m.then("IntQuant", m.const(0.5), m.const(0), m.const(6), domain=GENERAL)
    made, codes = imported(m), np.arange(-32, 32, dtype=np.float32).reshape(8, 8)
    assert check.check(made, codes).ties == {"IntQuant_1 (IntQuant)": 0}
    values = executor.execute(made.graph, codes)
    away = {name: np.trunc(x / 0.5 + 0) * 0.5 for name, x in values.items()}
    check.check(made, codes, executed=away)
    # Halves the other way: everything before is exact, so nothing excuses them.
    up = np.floor(codes * 0.25 / 0.5 + 0.5) * 0.5
    with pytest.raises(Mismatch, match="no tie"):
        check.check(made, codes, executed={made.graph.output: up.astype(np.float32)})


# The largest --------------------------------------------------------------------------------------


def largest(op="ArgMax"):
    m = Maker((1, 4), 13)
    m.then("MatMul", m.const(np.diag([1, 2, -1, 3])))
    m.then("Mul", m.const(np.array([0.1, 0.05, 1, 0.03])))
    m.then(op, axis=1, keepdims=0)
    return imported(m, TensorProto.INT64)


def test_indices_of_the_largest_are_compared():
    made = largest()
    codes = np.array([[10, 9, 5, 1], [3, 1, 9, 10], [0, 0, -5, 3]], np.float32)
    found = check.check(made, codes)
    assert (found.codes, found.ties) == (3, {"ArgMax_2 (ArgMax)": 0})
    row = list(check.differences(made, codes))[-1]
    assert row.edge == "argmax"
    assert row.network.tolist() == row.model.tolist() == [0, 3, 2]
    with pytest.raises(Mismatch) as caught:
        check.check(made, codes, executed={made.graph.output: np.array([0, 1, 2])})
    assert str(caught.value) == (
        f"m: image 1: {made.graph.output} of ArgMax_2 (ArgMax) (edge argmax): image 1, element () "
        "is 1 in the model and 3 in the network, no tie (1 differ)"
    )


def test_of_two_within_rounding_either_may_be_the_largest():
    made = largest()
    codes = np.array([[30, 0, 9, 0], [30, 30, 9, 0]], np.float32)  # 30 × 0.1f and 60 × 0.05f
    for index in (0, 1):
        given = {made.graph.output: np.array([0, index])}
        found = check.check(made, codes, executed=given)
        assert found.ties == {"ArgMax_2 (ArgMax)": index}
        assert found.outputs == index


# Bounds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "wanted"),
    [([], 0), ([0], 0), ([1, -4], 0), ([4], -2), ([0.5, 3], 1), ([0.375], 3), ([-(2.0**-30)], 30)],
)
def test_places(numbers, wanted):
    assert check.places(np.array(numbers)) == wanted


def test_bounds_hold_what_float32_does():
    """Sums in any order, of any numbers, lie within their bound; and it is not far from them."""
    rng = np.random.default_rng(0)
    m = Maker((1, 64), 13)
    m.then("Mul", m.const(0.1))
    m.then("MatMul", m.const(rng.integers(-7, 8, (64, 5))))
    m.then("Add", m.noise(5))
    made = imported(m)
    codes = rng.integers(-128, 128, (40, 64)).astype(np.float32)
    worst = 0.0
    for row in check.differences(made, codes):
        assert not row.differs.any()
        worst = max(worst, float(np.abs(row.model - row.network).max()))
    assert worst > 0  # something did round
    shuffled = executor.execute(made.graph, codes, ["t0"])["t0"]
    weights = made.graph.constants[made.graph.nodes[1].inputs[1]]
    for _ in range(10):
        order = rng.permutation(64)
        total = np.zeros((40, 5), np.float32)
        for place in order:
            total += shuffled[:, place, None] * weights[place].astype(np.float32)
        found = check.check(made, codes, executed={"t1": total})
        assert found.outputs == 0
