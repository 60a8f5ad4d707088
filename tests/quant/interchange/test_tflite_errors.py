"""What cannot be imported is refused in one line, with the place and the remedy."""

import numpy as np
import pytest

from brambling.errors import BramblingError, ConfigError, FileProblem, UnsupportedLayer

pytest.importorskip("tflite")

from brambling.quant.interchange.tflite import SUPPORTED, import_tflite

from .tflite_models import VALID, Maker

DENSE = "operator 0 (FULLY_CONNECTED)"


def refused(contents, folder, kind=BramblingError):
    """Return the message without the path that it begins with."""
    path = folder / "m.tflite"
    path.write_bytes(contents)
    with pytest.raises(kind) as caught:
        import_tflite(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message.removeprefix(f"{path}: ")


def test_unsupported_operators_are_all_named_at_once(tmp_path):
    m = Maker(1)
    x = m.codes((1, 4, 4, 2))
    y = m.op("ELU", [x], m.codes((1, 4, 4, 2)))
    z = m.op("MyOp", [x], m.codes((1, 4, 4, 2)))
    out = m.add(m.conv(y, 2), z)
    flipped = m.op("REVERSE_V2", [out, m.ints(1)], m.codes((1, 4, 4, 2)))
    known = ", ".join(SUPPORTED)
    assert refused(m.bytes(x, flipped), tmp_path, UnsupportedLayer) == (
        "operator 0 (ELU): kind cannot be ELU: use LEAKY_RELU; "
        f"operator 1 (CUSTOM 'MyOp'): kind cannot be CUSTOM 'MyOp': use one of {known}; "
        f"operator 4 (REVERSE_V2): kind cannot be REVERSE_V2: use one of {known}"
    )


@pytest.mark.parametrize("dtype", ["FLOAT32", "INT16"])
def test_models_of_other_numbers(dtype, tmp_path):
    m = Maker(1)
    x = m.tensor((1, 4), dtype, scale=0.1 if dtype == "INT16" else None)
    w = m.weights((3, 4), 0, 3, "INT8", False)
    y = m.op("FULLY_CONNECTED", [x, w], m.tensor((1, 3), dtype))
    assert refused(m.bytes(x, y), tmp_path, UnsupportedLayer) == (
        f"tensor 0 ('t0'): codes must be int8 or uint8, not {dtype.lower()}: convert it with "
        "TFLiteConverter, optimizations DEFAULT, a representative_dataset, and supported_ops "
        "TFLITE_BUILTINS_INT8"
    )


def test_real_numbers_in_the_middle(tmp_path):
    m = Maker(1)
    x = m.codes((1, 4))
    y = m.op("DEQUANTIZE", [x], m.tensor((1, 4), "FLOAT32"))
    z = m.op("QUANTIZE", [y], m.codes((1, 4)))
    assert refused(m.bytes(x, z), tmp_path, UnsupportedLayer) == (
        "operator 0 (DEQUANTIZE): kind cannot be DEQUANTIZE: quantise what is behind it, too"
    )


def test_open_dimensions(tmp_path):
    m = Maker(1)
    x = m.codes((1, 1, 1, 3), signature=(-1, -1, -1, 3))
    assert refused(m.bytes(x, m.conv(x, 2)), tmp_path, UnsupportedLayer) == (
        "tensor 0 ('t0'): shape cannot be (-1, -1, -1, 3): convert the model with a fixed height "
        "and width"
    )


def test_several_inputs(tmp_path):
    m = Maker(1)
    x, y = m.codes((1, 3)), m.codes((1, 3))
    assert refused(m.bytes([x, y], m.add(x, y)), tmp_path, UnsupportedLayer) == (
        "must have 1 input, not 2: split the model"
    )


@pytest.mark.parametrize("scale", [np.nan, 0.0, -1.0, np.inf])
def test_scales_that_are_none(scale, tmp_path):
    m = Maker(1)
    x = m.codes((1, 3), scale=scale)
    y = m.dense(x, 2)
    m[y]["scale"] = 1.0
    assert refused(m.bytes(x, y), tmp_path, FileProblem) == (
        f"tensor 0 ('t0'): scale must be a number above 0, not {scale}"
    )


def test_a_graph_with_a_cycle(tmp_path):
    m = Maker(1)
    x = m.codes((1, 3))
    y, z = m.alike(x, (1, 3)), m.alike(x, (1, 3))
    m.op("ADD", [x, z], y, FusedActivationFunction=0)
    m.op("RELU", [y], z)
    assert refused(m.bytes(x, z), tmp_path, FileProblem) == (
        "operator 0 (ADD): must read what was made before, not tensor 2 ('t2'): the graph is "
        "damaged, or has a cycle"
    )


def test_an_average_over_the_border(tmp_path):
    m = Maker(1)
    x = m.codes((1, 5, 5, 2))
    y = m.pool("AVERAGE_POOL_2D", x, (3, 3), (1, 1), 0)
    assert refused(m.bytes(x, y), tmp_path, UnsupportedLayer) == (
        "operator 0 (AVERAGE_POOL_2D): padding cannot be around the image: use VALID, whose "
        "windows have as many pixels"
    )


def test_padding_that_nothing_takes(tmp_path):
    m = Maker(1)
    x = m.codes((1, 4, 4, 2))
    sides = m.constant([[0, 0], [1, 1], [1, 1], [0, 0]], "INT32")
    y = m.op("PAD", [x, sides], m.alike(x, (1, 6, 6, 2)))
    z = m.op("RELU", [y], m.alike(x, (1, 6, 6, 2)))
    assert refused(m.bytes(x, z), tmp_path, UnsupportedLayer) == (
        "operator 1 (RELU): input cannot be padded: pad in front of a convolution or a pooling only"
    )
    assert refused(m.bytes(x, y), tmp_path, UnsupportedLayer) == (
        "tensor 2 ('t2'): output cannot be padded: leave the padding out"
    )


def test_sums_beyond_the_kernels_integers(tmp_path):
    m = Maker(1)
    x = m.codes((1, 1, 1, 4), scale=1.0, zero=0)
    y = m.conv(x, 2, (1, 1), activation=0)
    m[y].update(scale=1e-9, zero=0)
    message = refused(m.bytes(x, y), tmp_path, ConfigError)
    assert message.startswith("operator 0 (CONV_2D): sums must stay within 32 bits, as the ")
    assert message.endswith(": use larger scales")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m.tensors[1].update(shape=(2, 4)),
            "tensor 1 ('t1'): int8 of shape (2, 4) takes 8 bytes, but it holds 6",
        ),
        (
            lambda m: m.tensors[3].update(shape=(1, 5)),
            "operator 0 (FULLY_CONNECTED): makes frames of (2,), but tensor 3 ('t3') is (1, 5)",
        ),
        (
            lambda m: m.tensors[3].update(dtype="UINT8", zero=0),
            f"{DENSE}: weights cannot be int8 for int8 to uint8: use int8 throughout",
        ),
        (
            lambda m: m.tensors[0].update(scale=None),
            "tensor 0 ('t0'): scale cannot be absent: quantise it to int8",
        ),
        (
            lambda m: m.tensors[3].update(zero=300),
            "tensor 3 ('t3'): zero point must be -128 to 127, not 300",
        ),
        (
            lambda m: m.tensors[1].update(zero=5),
            "operator 0 (FULLY_CONNECTED): weights' zero point cannot be 5: use 0",
        ),
        (
            lambda m: m.ops[0][1].append(99),
            "operator 0 (FULLY_CONNECTED): inputs: must be tensors below 4, not 99",
        ),
        (
            lambda m: m.ops[0][3].update(FusedActivationFunction=4),
            f"{DENSE}: activation cannot be 4: use none, RELU, RELU6, RELU_N1_TO_1",
        ),
    ],
)
def test_files_that_contradict_themselves(change, message, tmp_path):
    m = Maker(1)
    x = m.codes((1, 3))
    y = m.dense(x, 2)
    change(m)
    assert refused(m.bytes(x, y), tmp_path) == message


def test_files_that_are_none(tmp_path):
    m = Maker(1)
    x = m.codes((1, 6, 6, 2))
    whole = m.bytes(x, m.conv(x, 2, padding=VALID))
    assert refused(b"", tmp_path, FileProblem) == (
        "not a TensorFlow Lite file: bytes 4 to 7 must be b'TFL3', not b''"
    )
    assert refused(whole[: len(whole) // 2], tmp_path, FileProblem).startswith(
        "not a whole TensorFlow Lite file ("
    )
    path = tmp_path / "absent.tflite"
    with pytest.raises(FileProblem) as caught:
        import_tflite(path)
    assert str(caught.value) == f"{path}: no such file"
    with pytest.raises(ConfigError) as config:
        import_tflite(tmp_path / "m.tflite", "not a name")
    assert str(config.value).endswith("not 'not a name'")
