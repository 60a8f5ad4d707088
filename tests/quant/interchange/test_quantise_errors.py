"""Post-training quantisation: what is refused, in whole messages."""

import re

import numpy as np
import pytest

from brambling.errors import BramblingError, ConfigError, UnsupportedLayer

onnx = pytest.importorskip("onnx")
library = pytest.importorskip("brambling.quant.interchange.quantise")
Settings, quantise = library.Settings, library.quantise

from .float_nets import Net, plain  # noqa: E402


def refused(message, graph, *args, error: type[BramblingError] = ConfigError, **options):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        quantise(graph, *args, **options)


SUPPORTED = (
    "(supported: Add, AveragePool, BatchNormalization, Cast, Clip, Concat, Conv, Div, Dropout, "
    "Flatten, Gemm, GlobalAveragePool, Identity, LeakyRelu, MatMul, MaxPool, Mul, Pad, ReduceMean, "
    "Relu, Reshape, Softmax, Squeeze, Sub, Transpose, Unsqueeze)"
)


def test_all_that_is_not_supported_is_named_at_once():
    net = Net(4, 6, 6)
    x = net.add("Sigmoid", net.conv("x", 4, 4))
    x = net.add("Mul", x, net.add("HardSwish", x))
    x = net.add("Softmax", x)
    x = net.add("InstanceNormalization", x, net.floats(4), net.floats(4))
    x = net.add("Relu", net.add("Add", x, net.floats(1, 1, 4, 4)))
    x = net.add("Pad", x, net.constant([0, 0, 1, 1, 0, 0, 1, 1]), net.constant(np.float32(1)))
    x = net.add("Pad", x, net.constant([0, 0, 1, 1, 0, 0, 1, 1]), mode="reflect")
    x = net.add("ReduceMean", net.add("Sin", x), axes=[1])
    x = net.add("Relu", net.norm(net.add("Flatten", x), 64))
    net.add("Gemm", x, x, transB=1)
    message = (
        "net: cannot be quantised: sigmoid1 (Sigmoid): use Relu, LeakyRelu or Clip; "
        "hardswish2 (HardSwish): use Relu, LeakyRelu or Clip; "
        "mul3 (Mul): its second input must be a constant, one value or one for each channel; "
        "softmax4 (Softmax): must be the last operation; "
        "instancenormalization5 (InstanceNormalization): use BatchNormalization; "
        "add6 (Add): its second input must be a constant, one value or one for each channel; "
        "pad8 (Pad): must pad with zeros; "
        "pad9 (Pad): mode must be constant, not reflect; pad with zeros; "
        "sin10 (Sin): is not supported; "
        "reducemean11 (ReduceMean): axes must be rows and columns, not [1]; "
        "use GlobalAveragePool; "
        "batchnormalization13 (BatchNormalization): must stand beside a Conv or Gemm; "
        "gemm15 (Gemm): weights and bias must be constants, and its data not; "
        f"use Conv or Gemm {SUPPORTED}"
    )
    refused(message, net.graph(), net.images(), error=UnsupportedLayer)


def training(net):
    constants = [net.floats(4) for _ in range(3)]
    more = [*constants, net.constant(np.ones(4, np.float32))]
    net.add("BatchNormalization", net.conv("x", 4, 4), *more, training_mode=1)
    net.nodes[-1].output.extend(["mean", "variance"])
    net.add("Relu", net.nodes[-1].output[0])


def negative_variance(net):
    more = [*(net.floats(4) for _ in range(3)), net.constant(np.full(4, -1, np.float32))]
    net.add("BatchNormalization", net.conv("x", 4, 4), *more)


def sequence_product(net):
    net.add("MatMul", "x", net.floats(6, 6))


def transposed(net):
    net.add("Gemm", net.add("Flatten", "x"), net.floats(1, 6), transA=1)


def steep(net):
    net.add("LeakyRelu", net.conv("x", 4, 4), alpha=-0.5)


def of_rows(net):
    net.add("Concat", net.conv("x", 4, 4), net.conv("x", 4, 4), axis=2)


def moved(net):
    net.add("Transpose", net.conv("x", 4, 4), perm=[1, 0, 2, 3])


def to_integers(net):
    net.add("Cast", net.conv("x", 4, 4), to=onnx.TensorProto.INT32)


def border(net):
    net.add("AveragePool", net.conv("x", 4, 4), kernel_shape=[3, 3], pads=[1] * 4)


def padded_pool(net):
    x = net.add("Pad", net.conv("x", 4, 4), net.constant([0, 0, 1, 1, 0, 0, 1, 1]))
    net.add("MaxPool", x, kernel_shape=[2, 2])


def broadcast(net):
    x = net.conv("x", 4, 4)
    net.add("Add", x, net.add("GlobalAveragePool", x))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (training, ("batchnormalization1 (BatchNormalization): training_mode must be 0; "
                   "export the model in evaluation")),
        (negative_variance, ("batchnormalization1 (BatchNormalization): variance and epsilon must "
                            "be positive; train it again")),
        (sequence_product, ("matmul0 (MatMul): its data must be a vector for each image, "
                           "not (1, 4, 6, 6); use a Conv of one pixel")),
        (transposed, "gemm1 (Gemm): transA must be 0; transpose the input before it"),
        (steep, "leakyrelu1 (LeakyRelu): alpha must not be negative, but is -0.5; use Relu"),
        (of_rows, "concat2 (Concat): must join channels (axis 1) of computed tensors"),
        (
            border,
            (
                "averagepool1 (AveragePool): must count what it pads: "
                "use count_include_pad 1, or no pads"
            ),
        ),
        (to_integers, "cast1 (Cast): must be to float32"),
        (padded_pool, "pad1 (Pad): must stand before a Conv"),
        (moved, "transpose1 (Transpose): must leave the batch first, not move it: (1, 0, 2, 3)"),
        (broadcast, "add2 (Add): inputs must have one shape, not (1, 4, 4, 4) and (1, 4, 1, 1)"),
    ],
    ids=lambda f: getattr(f, "__name__", ""),
)  # fmt: skip
def test_forms_that_are_refused(make, problem):
    net = Net(4, 6, 6)
    make(net)
    message = f"net: cannot be quantised: {problem} {SUPPORTED}"
    refused(message, net.graph(), net.images(), error=UnsupportedLayer)


def test_quantised_models_are_refused():
    net = Net(4, 6, 6)
    one, zero = net.constant(np.float32(1)), net.constant(np.float32(0))
    bits = net.constant(np.float32(8))
    x = net.add("IntQuant", "x", one, zero, bits, domain="qonnx.custom_op.general")
    net.conv(x, 4, 4)
    refused(
        "net: is quantised already, by intquant0 (IntQuant): import it as it is, "
        "or give the float model", net.graph(), net.images())  # fmt: skip
    net = Net(4, 6, 6)
    x = net.add("QuantizeLinear", "x", net.constant(np.float32(1)), net.constant(np.uint8(0)))
    net.conv(net.add("DequantizeLinear", x, "k0", "k1"), 4, 4)
    refused(
        "net: is quantised already, by quantizelinear0 (QuantizeLinear): import it as it is, "
        "or give the float model", net.graph(), net.images())  # fmt: skip
    made = quantise((net := plain()).graph(), net.images()).graph
    refused(
        "net: is quantised already, by x_quantised.quantiser (IntQuant): import it as it is, "
        "or give the float model", made, net.images())  # fmt: skip


def test_models_without_weights_are_refused():
    net = Net(4, 6, 6)
    net.add("Relu", "x")
    refused("net: has no Conv, Gemm or MatMul to round", net.graph(), net.images())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "conv0 (Conv): k0 must be numbers, not NaN; train it again"),
        (np.inf, "conv0 (Conv): weights must be finite, with what is folded into them"),
    ],
)
def test_weights_must_be_finite(value, message):
    net = Net(4, 6, 6)
    net.conv("x", 4, 4)
    net.constants["k0"][1, 2] = value
    refused(message, net.graph(), net.images())


IMAGES = np.arange(2 * 128).reshape(2, 2, 8, 8)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((0, 2, 8, 8), np.float32),
         "calibration: must be one or more images, not an array (0, 2, 8, 8)"),
        (np.float32(3), "calibration: must be one or more images, not an array ()"),
        (np.ones((3, 8, 8, 2), np.float32),
         ("calibration: images must be (2, 8, 8), as net takes them, not (8, 8, 2); "
         "the first dimension is the image")),
        (np.ones((3, 2, 8, 8), np.float32),
         "calibration: images must differ, but all is 1"),
        (np.full((3, 2, 8, 8), -np.inf), "calibration: images must be finite, not NaN or infinity"),
        (np.full((3, 2, 8, 8), np.nan), "calibration: images must be finite, not NaN or infinity"),
        (np.zeros((3, 2, 8, 8), bool), "calibration: must be integers or floats, not bool"),
        (np.zeros((3, 2, 8, 8), "c8"), "calibration: must be integers or floats, not complex64"),
        (IMAGES, ("calibration: images of integers need --input-scale, the real value of one step "
                 "(1 if the model takes the integers as they are)")),
    ],
    ids=lambda v: f"{v.dtype}{v.shape}" if hasattr(v, "dtype") else "",
)  # fmt: skip
def test_images_that_are_refused(images, message):
    refused(message, plain().graph(), np.asarray(images))


@pytest.mark.parametrize(
    ("images", "scale", "message"),
    [
        (IMAGES * 1.0, 1.0, ("--input-scale: belongs to images of integers, but these are float64; "
                            "leave it out")),
        (IMAGES, -1.0, "--input-scale: must be positive and finite, not -1.0"),
        (IMAGES, float("inf"), "--input-scale: must be positive and finite, not inf"),
        (IMAGES, float("nan"), "--input-scale: must be positive and finite, not nan"),
        (IMAGES, 1e-60, "--input-scale: must be positive and finite, not 1e-60"),
        (IMAGES * 1000, 1.0, "calibration: integers must have at most 16 bits, not 0 to 255000"),
    ],
    ids=str,
)  # fmt: skip
def test_input_scales_that_are_refused(images, scale, message):
    refused(message, plain().graph(), images, input_scale=scale)


def test_activations_in_which_nothing_happens_are_refused():
    net = Net(2, 8, 8)
    x = net.conv("x", 2, 4)
    net.constants["k1"] = np.full(4, -100, np.float32)
    net.conv(net.add("Relu", x), 4, 4)
    refused(
        "t1: no calibration image makes this activation other than 0; "
        "use other images, or train the model", net.graph(), net.images())  # fmt: skip


def test_activations_must_be_finite():
    net = Net(2, 8, 8)
    x = net.conv(net.conv("x", 2, 4), 4, 4)
    for name in ("k0", "k2"):
        net.constants[name] = net.constants[name] * np.float32(1e30)
    net.conv(x, 4, 4)
    refused(
        "t1: activations must be finite, not NaN or infinity; use other images, or train the "
        "model again", net.graph(), net.images())  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(3, int), "labels: must be one integer for each of 24 images, not int64 (3,)"),
        (np.zeros(24), "labels: must be one integer for each of 24 images, not float64 (24,)"),
        (np.full(24, 5), "labels: must be 0 to 4, not 5"),
        (np.full(24, -1), "labels: must be 0 to 4, not -1"),
    ],
)
def test_labels_that_are_refused(labels, message):
    net = plain()
    refused(message, net.graph(), net.images(), labels=labels)


def test_labels_need_classes():
    net = Net(2, 8, 8)
    net.conv("x", 2, 4)
    message = "labels: net gives (1, 4, 6, 6), not a number for each class"
    refused(message, net.graph(), net.images(), labels=np.zeros(24, int))
    report = quantise(net.graph(), net.images()).report
    assert (report.agreement, report.accuracy) == (None, None)
    assert report.sqnr > 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_bits": 1}, "weight_bits: must be 2 to 16 bits, not 1"),
        ({"activation_bits": 17}, "activation_bits: must be 2 to 16 bits, not 17"),
        ({"ends": 0}, "ends: must be 2 to 16 bits, not 0"),
        ({"weight_bits": 2.5}, "weight_bits: must be 2 to 16 bits, not 2.5"),
    ],
)
def test_bits_that_are_refused(options, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Settings(**options)
