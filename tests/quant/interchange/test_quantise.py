"""Post-training quantisation: folding, radix points, codes in the file, accuracy."""

import re
from collections import Counter

import numpy as np
import pytest

from brambling import origin, zoo
from brambling.errors import ConfigError
from brambling.sim import golden

onnx = pytest.importorskip("onnx")
executor = pytest.importorskip("brambling.quant.interchange.executor")
reader = pytest.importorskip("brambling.quant.interchange.reader")
quantise_fold = pytest.importorskip("brambling.quant.interchange.quantise_fold")
quantise_radix = pytest.importorskip("brambling.quant.interchange.quantise_radix")
library = pytest.importorskip("brambling.quant.interchange.quantise")
importer = pytest.importorskip("brambling.quant.interchange.importer")
Settings, quantise, fold = library.Settings, library.quantise, quantise_fold.fold
Format = quantise_radix.Format

from .float_nets import NETS, Net, cifar_cnn, joined, lenet5, plain, residual  # noqa: E402


@pytest.fixture(params=NETS)
def net(request):
    return NETS[request.param]()


def output(graph, x):
    return executor.execute(graph, x)[graph.output]


def ops(graph):
    return [node.op for node in graph.nodes]


# Folding ------------------------------------------------------------------------------------------


def test_folded_model_is_the_same_function(net):
    graph, x = net.graph(), net.images()
    folded = quantise_fold.with_proto(fold(graph))
    left = {"BatchNormalization", "MatMul", "Identity", "Dropout", "Cast"}
    assert left.isdisjoint(ops(folded))
    assert np.allclose(output(folded, x), output(graph, x), rtol=1e-4, atol=1e-5)


def test_batch_norm_is_folded_in_float64():
    net = Net(3, 5, 5)
    net.norm(net.conv("x", 3, 4), 4)
    (node,) = (folded := fold(net.graph())).nodes
    w, b, gain, shift, mean, variance = (v.astype(np.float64) for v in net.constants.values())
    epsilon = float(np.float32(1e-3))
    factor = gain / np.sqrt(variance + epsilon)
    weights, bias = (folded.constants[name] for name in node.inputs[1:])
    assert weights.dtype == bias.dtype == np.float64
    assert np.array_equal(weights, w * factor[:, None, None, None])
    assert np.allclose(bias, (b - mean) * factor + shift, rtol=1e-15, atol=1e-15)


def before(net):
    x = net.add("Mul", net.conv("x", 4, 4), net.floats(4, 1, 1))
    net.add("Sub", net.add("Add", x, net.floats(1, 4, 1, 1)), net.constant(np.float32(0.5)))


def swapped(net):
    net.add("Sub", net.constant(np.float32(0.5)), net.conv("x", 4, 4))


def behind(net):
    x = net.add("Sub", "x", net.floats(4, 1, 1))
    net.conv(net.add("Div", x, net.constant(np.full((1, 4, 1, 1), 3.0, np.float32))), 4, 6)


def behind_in_groups(net):
    net.conv(net.norm("x", 4), 4, 6, groups=2)


def scale_behind_padding(net):
    x = net.add("Mul", "x", net.constant(np.float32(1 / 255)))
    net.conv(x, 4, 6, groups=2, pads=[1] * 4)


def alone(net):
    x = net.add("Sub", "x", net.floats(4, 1, 1))
    net.conv(net.add("Div", x, net.constant(np.float32(2))), 4, 6, pads=[1] * 4)


def alone_inside(net):
    x = net.add("Relu", net.conv("x", 4, 4))
    x = net.add("Sub", x, net.floats(4, 1, 1))
    net.conv(net.add("Div", x, net.constant(np.float32(2))), 4, 6, pads=[1] * 4)


def between_pools(net):
    x = net.add("MaxPool", net.conv("x", 4, 4), kernel_shape=[2, 2])
    x = net.add("Add", net.add("Mul", x, net.constant(np.float32(2))), net.floats(4, 1, 1))
    net.add("LeakyRelu", x, alpha=0.25)


def falling_behind_a_pool(net):
    x = net.add("MaxPool", net.conv("x", 4, 4), kernel_shape=[2, 2])
    net.add("Mul", x, net.constant(np.float32(-2)))


def of_a_vector(net):
    x = net.gemm(net.add("Flatten", "x"), 144, 6, alpha=0.5, beta=2.0)
    x = net.add("Relu", net.norm(x, 6))
    x = net.add("Mul", x, net.floats(6))
    net.add("Gemm", x, net.floats(6, 3), net.constant(np.float32(0.25)))


def branching(net):
    x = net.conv("x", 4, 4, kernel=1)
    net.add("Add", net.add("Relu", x), net.norm(x, 4))


FOLDINGS = [
    (before, ["Conv"]),
    (swapped, ["Conv"]),
    (behind, ["Conv"]),
    (behind_in_groups, ["Conv"]),
    (scale_behind_padding, ["Conv"]),
    (alone, ["Sub", "Conv"]),
    (alone_inside, ["Conv", "Relu", "Conv", "Conv"]),
    (between_pools, ["Conv", "LeakyRelu", "MaxPool"]),
    (falling_behind_a_pool, ["Conv", "MaxPool", "Conv"]),
    (of_a_vector, ["Flatten", "Gemm", "Relu", "Gemm"]),
    (branching, ["Conv", "Relu", "Conv", "Add"]),
]


@pytest.mark.parametrize(("make", "left"), FOLDINGS, ids=lambda f: getattr(f, "__name__", ""))
@pytest.mark.parametrize("version", [9, 17])
def test_constants_are_folded(make, left, version):
    net = Net(4, 6, 6)
    make(net)
    graph, x = net.graph(version), net.images(5)
    folded = fold(graph)
    assert ops(folded) == left
    assert np.allclose(output(quantise_fold.with_proto(folded), x), output(graph, x), atol=2e-5)


def test_shared_weights_are_folded_apart():
    net = Net(3, 5, 5)
    weights = net.floats(3, 3, 1, 1)
    x = net.norm(net.add("Conv", "x", weights), 3)
    net.add("Conv", net.add("Relu", x), weights)
    graph, x = net.graph(), net.images(3)
    assert np.allclose(
        output(quantise_fold.with_proto(fold(graph)), x), output(graph, x), atol=1e-5
    )


# Radix points -------------------------------------------------------------------------------------


def by_hand(values, bits, signed, frac):
    """Codes and the squared error, one element at a time in exact steps."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    codes = np.clip(np.rint(np.ldexp(values, frac)), low, high)
    return codes, float(((np.ldexp(codes, -frac) - values) ** 2).sum())


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_radix_point_is_that_of_brute_force(bits, scale):
    rows = np.random.default_rng(bits).standard_t(3, (5, 200)) * scale
    found = quantise_radix.best_weights(rows, Format(bits, signed=True))
    for row, frac in zip(rows, found, strict=True):
        best = min(range(-20, 40), key=lambda n: by_hand(row, bits, True, n)[1])
        assert frac == best


@pytest.mark.parametrize("bits", [2, 3, 5, 8, 12])
@pytest.mark.parametrize("signed", [False, True])
def test_radix_point_is_that_of_the_trainable_quantiser(bits, signed):
    torch = pytest.importorskip("torch")
    trainable = pytest.importorskip("brambling.quant.quantiser").Quantiser
    for seed in range(8):
        rng = np.random.default_rng(seed)
        values = rng.normal(0, 10.0 ** rng.integers(-3, 3), 400).astype(np.float32)
        values = values if signed else np.maximum(values, 0)
        quantiser = trainable(bits, signed=signed, method="radix")
        quantiser.calibrate(torch.from_numpy(values))
        found = quantise_radix.best_weights(values[np.newaxis].astype(float), Format(bits, signed))
        assert found.tolist() == [int(quantiser.frac)]


def test_rows_of_zeros_take_the_coarsest_of_the_others():
    rows = np.array([[0.0, 0], [0.5, 0.25], [64, 32]])
    fmt = Format(8, signed=True)
    assert quantise_radix.best_weights(rows, fmt).tolist() == [0, 7, 0]
    assert quantise_radix.best_weights(rows[:1], fmt).tolist() == [0]


def data_of(made):
    """By layer, what its result is rounded to."""
    return {layer.name: layer.data for layer in made.report.layers if layer.data is not None}


def test_activations_have_the_radix_point_of_brute_force():
    net = plain()
    graph, x = net.graph(), net.images()
    made = quantise(graph, x, Settings(4, 5))
    tensors = executor.execute(graph, x, ["x", "t2", "t5", "t8"])
    found = data_of(made)
    assert list(found) == ["x", "conv0", "conv4", "gemm7"]
    for layer, values in zip(found.values(), (tensors[k] for k in ("x", "t2", "t5", "t8")),
                             strict=True):  # fmt: skip
        assert (layer.bits, layer.signed) == (5 if layer != found["x"] else 8, values.min() < 0)
        errors = {n: by_hand(values, layer.bits, layer.signed, n) for n in range(-8, 20)}
        (best,) = layer.frac
        assert best == min(errors, key=lambda n: errors[n][1])
        codes, error = errors[best]
        signal = float((values.astype(float) ** 2).sum())
        assert layer.sqnr == pytest.approx(10 * np.log10(signal / error), abs=1e-3)
        beyond = np.rint(np.ldexp(values.astype(float), best)) != codes
        assert layer.clipped == pytest.approx(beyond.mean())


def test_what_is_added_has_one_radix_point():
    net = residual()
    graph, x = net.graph(), net.images()
    made = quantise(graph, x, Settings(8, 6))
    found = data_of(made)
    # The start and the branch beside it; both branches of the second block.
    assert found["conv0"].frac == found["conv6"].frac
    assert (found["conv0"].signed, found["conv6"].signed) == (False, True)
    assert found["conv10"].frac == found["conv12"].frac
    tensors = executor.execute(graph, x, ["t2", "t7"])
    pair = [(tensors["t2"], False), (tensors["t7"], True)]
    best = min(range(-8, 20), key=lambda n: sum(by_hand(v, 6, s, n)[1] for v, s in pair))
    assert found["conv0"].frac == (best,)
    assert {"relu9", "relu15", "globalaveragepool16"} < found.keys()
    assert "gemm18" not in found


def test_what_is_joined_has_one_radix_point():
    found = data_of(quantise((net := joined()).graph(), net.images()))
    assert found["conv2"].frac == found["conv4"].frac == found["averagepool5"].frac
    signs = {name: found[name].signed for name in ("conv2", "conv4", "averagepool5")}
    assert signs == {"conv2": False, "conv4": True, "averagepool5": False}


# The file -----------------------------------------------------------------------------------------


def quantisers(graph):
    """By result, the IntQuant nodes."""
    return {node.outputs[0]: node for node in graph.nodes if node.op == "IntQuant"}


def real_codes(graph, node):
    """Codes of a constant that an IntQuant reads, its bits and its step."""
    values, scale, zero, bits = (graph.constants[name].astype(float) for name in node.inputs)
    assert zero == 0
    return values / scale, int(bits), scale


@pytest.mark.parametrize("per_channel", [False, True], ids=["per tensor", "per channel"])
def test_file_has_codes_times_scale(net, per_channel, tmp_path):
    graph, x = net.graph(), net.images()
    folded = fold(graph)
    made = quantise(graph, x, Settings(4, 8, per_channel=per_channel))
    made.save(tmp_path / "net.onnx")
    read = reader.read(tmp_path / "net.onnx")
    assert np.array_equal(output(read, x), output(made.graph, x))
    onnx.checker.check_model(onnx.load(tmp_path / "net.onnx"), full_check=False)
    rounded, rows = quantisers(read), {layer.name: layer for layer in made.report.layers}
    products = [node for node in read.nodes if node.op in {"Conv", "Gemm"}]
    assert len(products) == sum(layer.weights is not None for layer in made.report.layers)
    for node in products:
        original = next(other for other in folded.nodes if other.name == node.name)
        weights = folded.constants[original.inputs[1]]
        codes, bits, scale = real_codes(read, rounded[node.inputs[1]])
        layer = rows[node.name].weights
        assert (bits, len(layer.frac)) == (layer.bits, len(weights) if per_channel else 1)
        frac = np.reshape(layer.frac, (-1, *[1] * (weights.ndim - 1)))
        assert np.array_equal(codes, by_hand(weights, bits, True, frac)[0])
        assert np.array_equal(scale, np.ldexp(1.0, -frac) if per_channel else 2.0 ** -frac.item())
        if len(node.inputs) > 2:
            bias = folded.constants[original.inputs[2]]
            codes, bits, step = real_codes(read, rounded[node.inputs[2]])
            source = node.inputs[0]
            while source not in rounded:
                source = next(n for n in read.nodes if source in n.outputs).inputs[0]
            data = read.constants[rounded[source].inputs[1]].astype(float)
            assert np.array_equal(step, data * scale.reshape(step.shape))
            assert np.array_equal(codes, np.rint(bias / step))
            assert -(2 ** (bits - 1)) <= codes.min() <= codes.max() < 2 ** (bits - 1)
    assert {node.attributes["rounding_mode"] for node in rounded.values()} == {"ROUND"}


def test_every_product_sum_and_join_reads_codes(net):
    made = quantise(net.graph(), net.images())
    grids = {name: made.graph.constants[node.inputs[1]]
             for name, node in quantisers(made.graph).items()}  # fmt: skip
    for node in made.graph.nodes:
        inputs = [grids.get(name) for name in node.inputs]
        if node.op in {"Conv", "Gemm", "Add", "Concat", "AveragePool", "GlobalAveragePool",
                       "ReduceMean"}:  # fmt: skip
            assert all(scale is not None for scale in inputs)
        if node.op in {"Add", "Concat"}:
            assert len({float(np.max(scale)) for scale in inputs if scale is not None}) == 1
        keeps = {"MaxPool", "Flatten", "Reshape", "Transpose", "Pad", "Concat"}
        if node.op in keeps and inputs[0] is not None:
            grids[node.outputs[0]] = inputs[0]


def test_equal_models_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        quantise((net := residual()).graph(), net.images()).save(tmp_path / f"{name}.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_images_are_computed_again_where_memory_is_short(net, monkeypatch):
    graph, x, calls = net.graph(), net.images(70), []
    expected = quantise(graph, x).report
    monkeypatch.setattr(quantise_radix, "MEMORY", 0)
    report = quantise(graph, x, progress=lambda *told: calls.append(told)).report
    assert report == expected
    assert Counter(what for what, _, _ in calls) == {"float model": 9, "quantised model": 3}
    assert calls[:3] == [("float model", n, 70) for n in (32, 64, 70)]


def test_the_file_is_imported_as_the_same_function(net, tmp_path):
    made = quantise(net.graph(), net.images(), Settings(5, 6))
    made.save(tmp_path / "net.onnx")
    graph, x = reader.read(tmp_path / "net.onnx"), net.images(50)
    network = importer.import_graph(graph).network
    found = origin.origin_of(network)
    assert found is not None
    frames = found.input.frames(x, network.input)
    codes = golden.run(network, frames)[network.layers[-1].name]
    reals = found.output.reals(codes.reshape(len(x), -1).astype(np.int64))
    expected = output(graph, x)
    if graph.nodes[-1].op == "Softmax":  # In float32 there, in float64 here.
        assert np.allclose(reals, expected, rtol=0, atol=1e-6)
    else:
        assert np.array_equal(reals, expected)


# Bits ---------------------------------------------------------------------------------------------


def widths(made):
    """Bits of weights and of results, by layer."""
    return {
        layer.name: (layer.weights and layer.weights.bits, layer.data and layer.data.bits)
        for layer in made.report.layers
    }


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(), [(None, 8), (8, 8), (8, 8), (8, 8), (8, None)]),
        (Settings(4, 3), [(None, 8), (8, 3), (4, 3), (4, 3), (8, None)]),
        (Settings(4, 3, ends=5), [(None, 5), (5, 3), (4, 3), (4, 3), (5, None)]),
        (Settings(16, 12), [(None, 12), (16, 12), (16, 12), (16, 12), (16, None)]),
    ],
)
def test_bits(settings, expected):
    net = plain()
    made = quantise(net.graph(), net.images(), settings)
    assert list(widths(made).values()) == expected


def test_all_outermost_products_are_ends():
    net = joined()
    found = widths(quantise(net.graph(), net.images(), Settings(3, 4)))
    assert {name: bits[0] for name, bits in found.items() if bits[0] == 8} == {
        "conv0": 8, "gemm19": 8}  # fmt: skip


def test_more_bits_lose_less():
    net = residual()
    graph, x = net.graph(), net.images()
    found = [quantise(graph, x, Settings(n, n)).report.sqnr for n in (3, 4, 6, 8, 12)]
    assert found == sorted(found)
    assert found[-1] > 50


def test_a_bias_far_larger_than_its_weights_has_a_code():
    net = Net(2, 4, 4)
    weights = net.constant(np.full((2, 2, 1, 1), [[[[2.0**-40]]], [[[1.0]]]], np.float32))
    net.add("Conv", "x", weights, net.constant(np.array([4, 4], np.float32)))
    for per_channel in (False, True):
        made = quantise(net.graph(), net.images(), Settings(8, 8, per_channel=per_channel))
        (node,) = [node for node in made.graph.nodes if node.op == "Conv"]
        codes, bits, step = real_codes(made.graph, quantisers(made.graph)[node.inputs[2]])
        assert bits <= 32
        assert np.array_equal(codes * step, [4, 4])


# Images -------------------------------------------------------------------------------------------


def test_integers_are_the_codes_of_the_input():
    net = plain()
    graph = net.graph()
    pixels = net.rng.integers(0, 256, (20, 2, 8, 8), np.uint8)
    made = quantise(graph, pixels, input_scale=1 / 255)
    first = made.graph.nodes[0]
    scale, bits = (made.graph.constants[first.inputs[n]] for n in (1, 3))
    assert (first.op, scale, bits, first.attributes["signed"]) == (
        "IntQuant", np.float32(1 / 255), 8, 0)  # fmt: skip
    x = pixels * np.float32(1 / 255)
    codes = executor.execute(made.graph, x, [first.outputs[0]])[first.outputs[0]]
    assert np.array_equal(np.rint(codes / scale), pixels)
    row = made.report.layers[0]
    assert (row.data.frac, str(row.data), row.data.clipped) == ((), "u8", 0)


@pytest.mark.parametrize(
    ("dtype", "low", "high", "text"),
    [("int16", -3, 4, "s8.8"), ("uint16", 0, 256, "u16.8"), ("int64", -129, 0, "s16.8")],
)
def test_integers_have_8_or_16_bits(dtype, low, high, text):
    net = plain()
    images = net.rng.integers(low, high, (20, 2, 8, 8), dtype, endpoint=True)
    images.flat[:2] = low, high
    made = quantise(net.graph(), images, input_scale=1 / 256)
    assert str(made.report.layers[0].data) == text


def normalised(offset):
    """Takes pixels, which constants make fit for a padded convolution."""
    net = Net(3, 6, 6)
    x = net.add("Sub", "x", net.constant(np.full((3, 1, 1), offset, np.float32)))
    x = net.add("Div", x, net.constant(np.array([50, 60, 70], np.float32)[:, None, None]))
    net.conv(net.add("Relu", net.conv(x, 3, 4, pads=[1] * 4)), 4, 2)
    return net


@pytest.mark.parametrize("offset", [0, 128])
def test_constants_at_the_input_come_before_its_rounding(offset):
    net = normalised(offset)
    graph = net.graph()
    pixels = net.rng.integers(0, 256, (20, 3, 6, 6), np.uint8)
    made = quantise(graph, pixels, Settings(4, 4), input_scale=1)
    row = made.report.layers[0]
    if not offset:  # Scales are in the weights, and pixels are codes.
        assert ops(made.graph)[0] == "IntQuant"
        assert str(row.data) == "u8.0"
        return
    # The division is in the weights; the offset is not, since zeros are padded behind it.
    assert ops(made.graph)[:2] == ["Sub", "IntQuant"]
    assert (row.name, str(row.data), row.data.sqnr) == ("x", "s8.0", None)
    x = pixels.astype(np.float32)
    assert np.array_equal(executor.execute(made.graph, x, ["t0"])["t0"], x - 128)
    assert made.report.sqnr > 15


def test_an_added_input_keeps_its_step():
    net = Net(3, 4, 4)
    net.conv(net.add("Add", net.conv("x", 3, 3, pads=[1] * 4), "x"), 3, 2)
    images = net.rng.integers(0, 255, (20, 3, 4, 4), np.uint8)
    made = quantise(net.graph(), images, input_scale=1 / 64)
    assert data_of(made)["conv0"].frac == (6,)
    message = (
        "--input-scale: must be a power of two, since t0 is added to the input or joined with it, "
        "not 0.00392157; give images of floats"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        quantise(net.graph(), images, input_scale=1 / 255)


def test_images_may_lack_dimensions_of_one():
    net = Net(1, 6, 6)
    net.conv("x", 1, 2)
    x = net.images()
    assert quantise(net.graph(), x[:, 0]).report == quantise(net.graph(), x).report


def test_unsigned_input_comes_from_the_images():
    net = plain()
    made = quantise(net.graph(), np.abs(net.images()))
    assert not made.report.layers[0].data.signed


# Whole networks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "right", "agreed"),
    [
        (Settings(), 992, 1000),
        (Settings(4, 4), 990, 996),
        (Settings(3, 3, per_channel=True), 983, 983),
    ],
    ids=["8", "4", "3 by channel"],
)
def test_lenet5_on_other_images(settings, right, agreed):
    images, labels = zoo.evaluation_set("MNIST")
    graph = lenet5()
    made = quantise(graph, images[-256:], settings, input_scale=1 / 256, labels=labels[-256:])
    x = images[:1000, np.newaxis].astype(np.float32) / 256
    exact, rounded = (output(g, x).argmax(axis=1) for g in (graph, made.graph))
    assert (exact == labels[:1000]).sum() == 992
    assert ((rounded == labels[:1000]).sum(), (rounded == exact).sum()) == (right, agreed)
    of_calibration = output(made.graph, images[-256:, np.newaxis].astype(np.float32) / 256)
    share = (of_calibration.argmax(axis=1) == labels[-256:]).mean()
    assert made.report.accuracy == share
    assert made.report.float_accuracy == 255 / 256


@pytest.mark.parametrize(("bits", "agreed"), [(8, 100), (4, 89)])
def test_cifar_cnn_on_other_images(bits, agreed):
    images, _ = zoo.evaluation_set("CIFAR-10")
    x = ((np.moveaxis(images, -1, 1).astype(np.float32)) - 128) / 64
    graph = cifar_cnn()
    made = quantise(graph, x[100:], Settings(bits, bits))
    exact, rounded = (output(g, x[:100]).argmax(axis=1) for g in (graph, made.graph))
    assert (rounded == exact).sum() == agreed
