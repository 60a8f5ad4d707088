"""Imported models equal TensorFlow Lite's reference kernels, code for code, at every edge."""

from collections import Counter
from math import prod

import numpy as np
import pytest

from brambling import api
from brambling.sim import golden
from brambling.simulation import simulate

tflite = pytest.importorskip("tflite")
litert = pytest.importorskip("ai_edge_litert.interpreter")

from brambling.quant.interchange.tflite import import_tflite  # noqa: E402

from .tflite_models import (  # noqa: E402
    SAME,
    VALID,
    Maker,
    autoencoder,
    keywords,
    resnet,
    wake_words,
)

REFERENCE = litert.OpResolverType.BUILTIN_REF


def interpreter(path, resolver=REFERENCE):
    made = litert.Interpreter(
        str(path),
        experimental_op_resolver_type=resolver,
        experimental_preserve_all_tensors=resolver is REFERENCE,
    )
    made.allocate_tensors()
    return made


def frames_of(affine, n, seed):
    """Random codes, and frames of the smallest, the largest, and both by turns."""
    fmt, source = affine.fmt, np.random.default_rng(seed)
    frames = source.integers(fmt.min, fmt.max + 1, (n + 3, *affine.shape)).astype(affine.dtype)
    frames[0], frames[1] = fmt.min, fmt.max
    frames[2] = np.where(np.arange(frames[2].size) % 2, fmt.max, fmt.min).reshape(affine.shape)
    return frames


def equal(contents, folder, n=3, seed=0):
    """Compare every edge that holds a tensor; returns what was imported."""
    path = folder / "model.tflite"
    path.write_bytes(contents)
    found, original = import_tflite(path), interpreter(path)
    frames = frames_of(found.input, n, seed)
    values = golden.run(found.network, frames.reshape(len(frames), *found.network.input.shape))
    (given,) = original.get_input_details()
    for number, frame in enumerate(frames):
        original.set_tensor(given["index"], frame)
        original.invoke()
        for name, edge in found.edges.items():
            wanted = original.get_tensor(found.indices[name]).reshape(-1).astype(int)
            got = values[edge][number].reshape(-1).astype(int)
            assert np.array_equal(got, wanted), f"{name} at {edge}, frame {number}"
    return found


# Operators ----------------------------------------------------------------------------------------


def alone(kind, shape=(1, 3, 3, 4), dtype="INT8", made="INT8", low=0.4, high=1.5, **options):
    """Model of one operator that keeps the shape and has scales of its own."""

    def make(m):
        x = m.codes(shape, dtype)
        y = m.codes(shape, made, scale=m[x]["scale"] * float(m.rng.uniform(low, high)))
        return m.bytes(x, m.op(kind, [x], y, **options))

    return make


def products(dtype):
    def make(m):
        pick = m.rng.integers
        x = m.codes((1, 9, 8, 4), dtype)
        stride = int(pick(1, 3)), int(pick(1, 3))
        signed = dtype == "INT8"
        y = m.conv(x, 6, (3, 2), stride, int(pick(2)), int(pick(4)), groups=int(pick(1, 3)),
                   channels=signed)  # fmt: skip
        y = m.conv(y, 8, (2, 2), (1, 1), int(pick(2)), int(pick(4)), (2, 1), channels=False)
        y = m.depthwise(y, (2, 3), (1, 2), int(pick(2)), int(pick(4)), int(pick(1, 3)), signed)
        y = m.dense(m.flatten(y), 9, int(pick(4)))
        return m.bytes(x, m.dense(y, 7, 0, channels=signed))

    return make


def pooled(kind):
    def make(m):
        x = m.codes((1, 7, 7, 4))
        padding = VALID if kind == "AVERAGE_POOL_2D" else int(m.rng.integers(2))
        return m.bytes(x, m.pool(kind, x, (3, 2), (2, 1), padding, int(m.rng.integers(4))))

    return make


def average(m):
    x, keep = m.codes((1, 5, 7, 4)), bool(m.rng.integers(2))
    scale = m[x]["scale"] * float(m.rng.uniform(0.1, 1.2))
    y = m.codes((1, 1, 1, 4) if keep else (1, 4), scale=scale)
    return m.bytes(x, m.op("MEAN", [x, m.ints(1, -2)], y, KeepDims=keep))


def joined(kind):
    def make(m):
        x = m.codes((1, 4, 4, 3))
        a, b = m.conv(x, 4, activation=0), m.conv(x, 4)
        return m.bytes(x, m.add(a, b, int(m.rng.integers(2)), kind))

    return make


def with_constant(kind, channels, first):
    def make(m):
        x = m.codes((1, 3, 3, 5))
        scale, zero = float(m.rng.uniform(0.01, 0.1)), int(m.rng.integers(-128, 128))
        codes = m.rng.integers(-128, 128, channels)
        c = m.constant(codes, "INT8", scale=scale, zero=zero)
        wide = m[x]["scale"] * scale * 60 if kind == "MUL" else max(m[x]["scale"], scale) * 1.5
        y = m.codes((1, 3, 3, 5), scale=wide)
        pair = [c, x] if first else [x, c]
        return m.bytes(x, m.op(kind, pair, y, FusedActivationFunction=int(m.rng.integers(2))))

    return make


def curved(kind):
    def make(m):
        x = m.codes((1, 300), scale=float(m.rng.uniform(0.005, 0.2)))
        scale, zero = (1 / 256, -128) if kind == "LOGISTIC" else (1 / 128, 0)
        return m.bytes(x, m.op(kind, [x], m.tensor((1, 300), scale=scale, zero=zero)))

    return make


def padded(m):
    """PAD in front of a convolution, and PADV2 of another value in front of one and of a pool."""
    x = m.codes((1, 5, 6, 2))
    sides = m.constant([[0, 0], [1, 0], [1, 1], [0, 0]], "INT32")
    y = m.op("PAD", [x, sides], m.alike(x, (1, 6, 8, 2)))
    y = m.conv(y, 3, padding=int(m.rng.integers(2)))
    row = m[y]
    value = m.constant([7], "INT8", scale=row["scale"], zero=row["zero"])
    _, height, width, depth = row["shape"]
    z = m.op("PADV2", [y, sides, value], m.alike(y, (1, height + 1, width + 2, depth)))
    z = m.depthwise(z, padding=VALID)
    least = m.constant([-128], "INT8", scale=m[z]["scale"], zero=m[z]["zero"])
    _, height, width, depth = m[z]["shape"]
    z = m.op("PADV2", [z, sides, least], m.alike(z, (1, height + 1, width + 2, depth)))
    return m.bytes(x, m.pool("MAX_POOL_2D", z, (3, 3), (1, 1), VALID))


def shuffled(m):
    """SPLIT, SPLIT_V, STRIDED_SLICE, SLICE and CONCATENATION of channels."""
    x = m.codes((1, 2, 3, 12))
    thirds = [m.alike(x, (1, 2, 3, 4)) for _ in range(3)]
    m.op("SPLIT", [m.ints(3), x], thirds, NumSplits=3)
    parts = [m.alike(x, (1, 2, 3, n)) for n in (3, 1)]
    m.op("SPLIT_V", [thirds[0], m.ints(3, -1), m.ints(-1)], parts, NumSplits=2)
    ends = m.ints(0, 0, 0, 1), m.ints(0, 2, 0, -1), m.ints(1, 1, 1, 1)
    cut = m.op(
        "STRIDED_SLICE", [thirds[2], *ends], m.alike(x, (1, 2, 3, 2)), EndMask=5, BeginMask=1
    )
    whole = m.ints(0, 0, 0, 5), m.ints(-1, 2, 3, 4)
    piece = m.op("SLICE", [x, *whole], m.alike(x, (1, 2, 3, 4)))
    out = m.alike(x, (1, 2, 3, 9))
    return m.bytes(x, m.op("CONCATENATION", [piece, cut, parts[0]], out, Axis=-1))


def repeated(m):
    x = m.codes((1, 3, 4, 2))
    y = m.alike(x, (1, 9, 8, 2))
    half = bool(m.rng.integers(2))
    return m.bytes(x, m.op("RESIZE_NEAREST_NEIGHBOR", [x, m.ints(9, 8)], y, HalfPixelCenters=half))


def sequence(m):
    """A convolution along time, as converters write it; then SQUEEZE and a dense layer."""
    x = m.codes((1, 10, 3))
    y = m.op("EXPAND_DIMS", [x, m.ints(1)], m.alike(x, (1, 1, 10, 3)))
    y = m.conv(y, 5, (1, 4), padding=VALID)
    y = m.op("SQUEEZE", [y], m.alike(y, (1, 7, 5)))
    y = m.flatten(y)
    return m.bytes(x, m.dense(y, 4, 0))


def points(m):
    """A dense layer of each pixel."""
    x = m.codes((1, 2, 3, 4))
    w = m.weights((5, 4), 0, 5, "INT8", False)
    y = m.product("FULLY_CONNECTED", x, w, (1, 2, 3, 5), 4, KeepNumDims=True)
    return m.bytes(x, y)


def without_bias(m):
    x = m.codes((1, 9))
    y = m.dense(x, 4, 0)
    m.ops[-1][1].pop()
    z = m.dense(y, 3, 0)
    m.ops[-1][1][2] = -1
    return m.bytes(x, z)


def classes(m):
    x = m.codes((1, 20))
    y = m.dense(x, 6, 0)
    out = m.tensor((1,), "INT64")
    return m.bytes(x, m.op("ARG_MAX", [y, m.ints(-1)], out, OutputType=tflite.TensorType.INT64))


OPERATORS = {
    "products": products("INT8"),
    "products of unsigned codes": products("UINT8"),
    "max pool": pooled("MAX_POOL_2D"),
    "average pool": pooled("AVERAGE_POOL_2D"),
    "mean": average,
    **{kind: alone(kind) for kind in ("RELU", "RELU6", "RELU_N1_TO_1")},
    "leaky relu": alone("LEAKY_RELU", Alpha=0.1),
    **{kind: joined(kind) for kind in ("ADD", "SUB")},
    **{
        f"{kind} {n} {'first' if first else 'second'}": with_constant(kind, n, first)
        for kind in ("ADD", "SUB", "MUL")
        for n in (1, 5)
        for first in (False, True)
    },
    **{kind: curved(kind) for kind in ("LOGISTIC", "TANH")},
    **{
        f"{a} to {b}": alone("QUANTIZE", (1, 300), a, b)
        for a in ("INT8", "UINT8")
        for b in ("INT8", "UINT8")
    },
    "pad": padded,
    "channels": shuffled,
    "resize": repeated,
    "sequence": sequence,
    "dense layer of pixels": points,
    "no bias": without_bias,
    "arg-max": classes,
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name, seed, tmp_path):
    equal(OPERATORS[name](Maker(seed)), tmp_path, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
def test_operators_of_many_seeds(name, tmp_path):
    for seed in range(3, 60):
        equal(OPERATORS[name](Maker(seed)), tmp_path, n=8, seed=seed)


# Models -------------------------------------------------------------------------------------------


MODELS = {
    "resnet": (lambda seed: resnet(seed, 4, 16), lambda seed: resnet(seed)),
    "keywords": (lambda seed: keywords(seed, 8), lambda seed: keywords(seed)),
    "wake words": (lambda seed: wake_words(seed, 4, 32), lambda seed: wake_words(seed)),
    "autoencoder": (lambda seed: autoencoder(seed, 24, 40), lambda seed: autoencoder(seed)),
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", MODELS)
def test_models_of_mlperf_tiny_with_fewer_channels(name, seed, tmp_path):
    found = equal(MODELS[name][0](seed), tmp_path, n=2, seed=seed)
    assert len(found.edges) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", MODELS)
def test_models_of_mlperf_tiny(name, seed, tmp_path):
    equal(MODELS[name][1](seed), tmp_path, n=5, seed=seed)


def random_model(seed):
    """Branches, widths, strides and activations by chance."""
    m = Maker(seed)
    pick = m.rng.integers
    first = x = m.codes((1, int(pick(5, 12)), int(pick(5, 12)), int(pick(1, 5))))
    for _ in range(int(pick(2, 6))):
        width, act = int(pick(1, 9)), int(pick(4))
        _, height, columns, depth = m[x]["shape"]
        kernel = int(pick(1, 4)), int(pick(1, 4))
        match int(pick(5)):
            case 0:
                x = m.conv(x, width, kernel, (1, 1), SAME, act)
            case 1:
                x = m.depthwise(x, kernel, (1, 1), SAME, act, int(pick(1, 3)))
            case 2:
                x = m.add(x, m.conv(x, depth, activation=act), act % 2)
            case 3 if min(height, columns) > 3:
                kind = ("MAX_POOL_2D", "AVERAGE_POOL_2D")[int(pick(2))]
                x = m.pool(kind, x, (2, 2), (2, 2))
            case _:
                a, b = (m.conv(x, width, activation=act) for _ in range(2))
                m[b].update(scale=m[a]["scale"], zero=m[a]["zero"])
                out = m.alike(a, (1, height, columns, 2 * width))
                x = m.op("CONCATENATION", [a, b], out, Axis=3)
    return m.bytes(first, m.dense(m.flatten(x), 5, 0, channels=bool(pick(2))))


@pytest.mark.parametrize("seed", range(12))
def test_random_models(seed, tmp_path):
    equal(random_model(seed), tmp_path, n=1, seed=seed)


@pytest.mark.slow
def test_many_random_models(tmp_path):
    for seed in range(12, 400):
        equal(random_model(seed), tmp_path, n=3, seed=seed)


# What is returned ---------------------------------------------------------------------------------


def test_ends_of_real_numbers_are_left_to_the_caller(tmp_path):
    m = Maker(5)
    x = m.tensor((1, 12), "FLOAT32", name="image")
    codes = m.codes((1, 12), scale=0.5, zero=3, name="codes")
    m.op("QUANTIZE", [x], codes)
    y = m.dense(codes, 4, 0)
    m[y].update(name="logits", scale=0.25, zero=-7)
    out = m.tensor((1, 4), "FLOAT32")
    path = tmp_path / "1 model (new).tflite"
    path.write_bytes(m.bytes(x, m.op("DEQUANTIZE", [m.softmax(y)], out)))
    found = import_tflite(path)
    assert found.network.name == "1-model-new-"
    assert found.edges == {"codes": "input", "logits": "act1"}
    assert found.indices == {"codes": 1, "logits": y}
    assert (found.input.scale, found.input.zero_point, found.input.dtype) == (0.5, 3, "int8")
    assert found.output is not None
    assert (found.output.scale, found.output.zero_point) == (0.25, -7)
    assert found.notes == (
        "operator 3 (DEQUANTIZE) left out: its scale is kept; the output is tensor 6 ('t6')",
        "operator 2 (SOFTMAX) left out: it keeps the order; the output is tensor 4 ('logits')",
        "operator 0 (QUANTIZE) left out: the input is its result, tensor 1 ('codes')",
    )


def test_a_vector_that_becomes_an_image_is_an_image(tmp_path):
    m = Maker(1)
    x = m.codes((1, 60))
    y = m.op("RESHAPE", [x, m.ints(1, 5, 4, 3)], m.alike(x, (1, 5, 4, 3)))
    found = equal(m.bytes(x, m.conv(y, 2)), tmp_path)
    assert found.network.input.shape == (5, 4, 3)
    assert found.notes == ("operator 0 (RESHAPE) left out: the input has its shape (1, 5, 4, 3)",)


def test_tensors_without_a_name_of_their_own_go_by_index(tmp_path):
    m = Maker(1)
    x = m.codes((1, 6), name="")
    y = m.dense(x, 5)
    m[y]["name"] = "same"
    z = m.dense(y, 4)
    m[z]["name"] = "same"
    path = tmp_path / "m.tflite"
    path.write_bytes(m.bytes(x, z))
    assert list(import_tflite(path).edges) == ["tensor 0", f"tensor {y}", f"tensor {z}"]


def test_an_open_batch_is_fine(tmp_path):
    m = Maker(1)
    x = m.codes((1, 4, 4, 2), signature=(-1, 4, 4, 2))
    assert equal(m.bytes(x, m.conv(x, 3)), tmp_path).network.input.shape == (4, 4, 2)


def test_rectified_sums_need_no_levels_in_memory(tmp_path):
    found = equal(MODELS["keywords"][0](3), tmp_path)
    kinds = Counter(type(layer).__name__ for layer in found.network.layers)
    assert kinds["Requantise"] == 10
    assert kinds["Thresholds"] == 1  # At the global average.


def test_how_far_optimised_kernels_are_from_the_reference(tmp_path):
    """What the module says of them: a code differs by one, and seldom."""
    m = Maker(9)
    x = m.codes((1, 12, 12, 8))
    path = tmp_path / "m.tflite"
    path.write_bytes(m.bytes(x, m.conv(x, 64, activation=0)))
    found = import_tflite(path)
    frames = frames_of(found.input, 10, 0)
    values = golden.run(found.network, frames.reshape(len(frames), 12, 12, 8))
    kinds = litert.OpResolverType.BUILTIN, litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    for resolver in kinds:
        original, apart = interpreter(path, resolver), []
        for frame in frames:
            original.set_tensor(original.get_input_details()[0]["index"], frame)
            original.invoke()
            apart.append(original.get_tensor(original.get_output_details()[0]["index"])[0])
        difference = np.abs(np.array(apart).astype(int) - values["act1"])
        assert difference.max() <= 1
        assert np.count_nonzero(difference) < difference.size / 100


# Hardware -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet", "keywords", "wake words"])
def test_models_of_mlperf_tiny_fit_a_board(name, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(MODELS[name][1](1))
    found = import_tflite(path)
    plan = api.plan(found.network, "ulx3s-85f", "min-area")
    frames = frames_of(found.input, 0, 0).reshape(-1, *found.network.input.shape)
    assert simulate(found.network, plan, frames, engine="cycles", frames=1).latency_cycles > 10_000


def test_hardware_of_an_imported_network(tmp_path):
    m = Maker(3)
    x = m.codes((1, 2, 3, 1))
    a = m.conv(x, 2, (2, 2))
    y = m.add(a, m.conv(a, 2, (1, 1), activation=0))
    found = equal(m.bytes(x, m.dense(m.flatten(y), 2, 0)), tmp_path)
    plan = api.plan(found.network, "ulx3s-85f")
    frames = frames_of(found.input, 0, 0).reshape(-1, *found.network.input.shape)
    for engine in ("golden", "cycles"):
        assert simulate(found.network, plan, frames, engine=engine).latency_cycles > 20
    result = simulate(found.network, plan, frames[:2], engine="pysim")
    assert result.equal_to_golden
    assert result.cycles_equal_to_model
    assert prod(result.outputs.shape) == 4
