"""Layers whose numbers or shapes no network can have are refused in one line, written out here."""

import numpy as np
import pytest

pytest.importorskip("onnx")

from . import bad_models as bad

WEIGHTS = [
    bad.case(
        "floats in a convolution",
        lambda: bad.raw_conv(),
        "Conv_1 (Conv): weights are floats on no grid of 16 bits: put a quantiser (IntQuant) "
        "on them, or make the model with 'brambling quantise'",
    ),
    bad.case(
        "floats in a matrix",
        lambda: bad.raw_dense(),
        "MatMul_3 (MatMul): weights are floats on no grid of 16 bits: put a quantiser "
        "(IntQuant) on them, or make the model with 'brambling quantise'",
    ),
    bad.case(
        "NaN",
        lambda: bad.weights(float("nan")),
        "IntQuant_1 (IntQuant): weights: element 0 must be finite, not nan: export a model "
        "whose training converged",
    ),
    bad.case(
        "their scale 0",
        lambda: bad.weights(1, scale=0),
        "IntQuant_1 (IntQuant): scale must be above 0, not 0: train anew",
    ),
    bad.case(
        "their scale NaN",
        lambda: bad.weights(1, scale=float("nan")),
        "IntQuant_1 (IntQuant): scale: element 0 must be finite, not nan: export a model whose "
        "training converged",
    ),
    bad.case(
        "20 bits",
        lambda: bad.weights(200, bits=20, scale=0.001),
        "MatMul_2 (MatMul): weights of 18 bits: use at most 16",
    ),
    bad.case(
        "40 bits",
        lambda: bad.weights(1, bits=40),
        "IntQuant_1 (IntQuant): bit width must be a whole number of 1 to 32, not 40: quantise "
        "with such a width",
    ),
    bad.case(
        "half a bit",
        lambda: bad.weights(1, bits=2.5),
        "IntQuant_1 (IntQuant): bit width must be a whole number of 1 to 32, not 2.5: quantise "
        "with such a width",
    ),
    bad.case(
        "half a zero-point",
        lambda: bad.weights(1, zero=0.5),
        "IntQuant_1 (IntQuant): zero-point of weights must be a whole number: use 0",
    ),
    bad.case(
        "a huge zero-point",
        lambda: bad.weights(1, zero=1e20),
        "IntQuant_1 (IntQuant): zero-point of weights must be one of their codes: use 0",
    ),
    bad.case(
        "one signed bit in one row",
        lambda: bad.weights(1, bits=[[1], [2], [2], [2]]),
        "IntQuant_1 (IntQuant): has 1 signed bit in some channels only: use 2",
    ),
    bad.case(
        "that depend on the input",
        lambda: bad.live_weights(),
        "MatMul_2 (MatMul): its weights must be a constant, not 't1': fold it to an initialiser",
    ),
    bad.case(
        "in the first place",
        lambda: bad.weights_first(),
        "MatMul_2 (MatMul): its weights must be its second input: transpose both",
    ),
]

NUMBERS = [
    bad.case(
        "alpha NaN",
        lambda: bad.gemm(alpha=float("nan")),
        "Gemm_2 (Gemm): alpha must be a finite number, not nan: export it anew",
    ),
    bad.case(
        "alpha 0",
        lambda: bad.gemm(alpha=0.0),
        "Gemm_2 (Gemm): alpha must not be 0: remove the node",
    ),
    bad.case(
        "beta infinite",
        lambda: bad.gemm(beta=float("inf")),
        "Gemm_2 (Gemm): beta must be a finite number, not inf: export it anew",
    ),
    bad.case(
        "bias NaN",
        lambda: bad.gemm(bias=float("nan")),
        "Gemm_2 (Gemm): bias: element 0 must be finite, not nan: export a model whose training "
        "converged",
    ),
    bad.case(
        "variance below 0",
        lambda: bad.norm(variance=-1),
        "BatchNormalization_3 (BatchNormalization): its variance must be above 0: export it anew",
    ),
    bad.case(
        "variance NaN",
        lambda: bad.norm(variance=float("nan")),
        "BatchNormalization_3 (BatchNormalization): variance: element 1 must be finite, not "
        "nan: export a model whose training converged",
    ),
    bad.case(
        "epsilon infinite",
        lambda: bad.norm(epsilon=float("inf")),
        "BatchNormalization_3 (BatchNormalization): epsilon must be a finite number, not inf: "
        "export it anew",
    ),
    bad.case(
        "slope NaN",
        lambda: bad.on(bad.start(4), "LeakyRelu", alpha=float("nan")),
        "LeakyRelu_1 (LeakyRelu): alpha must be a finite number, not nan: export it anew",
    ),
    bad.case(
        "slopes of pixels",
        lambda: bad.after("PRelu", bad.f32(np.arange(16).reshape(1, 4, 4) / 16)),
        "PRelu_1 (PRelu): slope: a constant differs from pixel to pixel: give a number, or one "
        "for each channel",
    ),
    bad.case(
        "slopes NaN",
        lambda: bad.after("PRelu", bad.f32([float("nan")])),
        "PRelu_1 (PRelu): slope: element 0 must be finite, not nan: export a model whose "
        "training converged",
    ),
    bad.case(
        "clipping turned round",
        lambda: bad.after("Clip", bad.f32(1), bad.f32(-1)),
        "Clip_1 (Clip): min must not be above max: give them in order",
    ),
    bad.case(
        "clipping at NaN",
        lambda: bad.after("Clip", bad.f32(float("nan")), bad.f32(1)),
        "Clip_1 (Clip): min: element 0 must be finite, not nan: export a model whose training "
        "converged",
    ),
    bad.case(
        "division by 0",
        lambda: bad.after("Div", bad.f32(0)),
        "Div_1 (Div): divides by 0: give another divisor",
    ),
    bad.case(
        "division by a branch",
        lambda: bad.branches("Div"),
        "Div_2 (Div): divides by a branch: divide by a constant",
    ),
    bad.case(
        "product of branches",
        lambda: bad.branches("Mul"),
        "Mul_2 (Mul): multiplies two branches: multiply by a constant",
    ),
    bad.case(
        "factors of pixels",
        lambda: bad.after("Mul", bad.f32(np.arange(16).reshape(4, 4) / 16)),
        "Mul_1 (Mul): factor: a constant differs from pixel to pixel: give a number, or one "
        "for each channel",
    ),
    bad.case(
        "summand NaN",
        lambda: bad.after("Add", bad.f32(float("nan"))),
        "Add_1 (Add): summand: element 0 must be finite, not nan: export a model whose "
        "training converged",
    ),
    bad.case(
        "summand of another shape",
        lambda: bad.widened(),
        "Add_2 (Add): its inputs must have one shape, not (1, 4, 4) and (1, 4, 1)",
    ),
]

SHAPES = [
    bad.case(
        "rows joined",
        lambda: bad.joined(2),
        "m: output 't1' is put together of several: return one result as it is",
    ),
    bad.case(
        "the batch joined",
        lambda: bad.joined(0),
        "Concat_1 (Concat): joins batches: join channels",
    ),
    bad.case(
        "many pixels cut off",
        lambda: bad.after("Slice", bad.i64(0), bad.i64(1), bad.i64(2), shape=(2, 30, 30)),
        "Slice_1 (Slice): cuts out pixels: cut at most 10 rows or columns off",
    ),
    bad.case(
        "nothing left",
        lambda: bad.after("Slice", bad.i64(2), bad.i64(2), bad.i64(1)),
        "m: Slice_1 (Slice): result: shape (1, 0, 4, 4): has nothing in it; use larger images "
        "or smaller windows",
    ),
    bad.case(
        "the batch moved",
        lambda: bad.after("Transpose", perm=[1, 0, 2, 3]),
        "Transpose_1 (Transpose): must keep the batch as its first dimension",
    ),
    bad.case(
        "channels and rows exchanged",
        lambda: bad.turned(),
        "Conv_6 (Conv): its image's elements were moved by a reshape or transpose: put those "
        "in front of the first layer, or behind the last image",
    ),
    bad.case(
        "the batch reshaped",
        lambda: bad.after("Reshape", bad.i64(4, 16)),
        "Reshape_1 (Reshape): must keep the batch as its first dimension",
    ),
    bad.case(
        "channels padded",
        lambda: bad.padded(0, 1, 0, 0, 0, 0, 0, 0),
        "Relu_3 (Relu): its input is padded: put the Pad before a Conv",
    ),
    bad.case(
        "padded by a mirror",
        lambda: bad.padded(0, 0, 1, 1, 0, 0, 1, 1, mode="reflect"),
        "Pad_2 (Pad): mode must be constant, not reflect: train it so",
    ),
    bad.case(
        "padded by less than nothing",
        lambda: bad.padded(0, 0, -1, 0, 0, 0, 0, 0),
        "Pad_2 (Pad): pads other than rows and columns: pad those only",
    ),
    bad.case(
        "padded before no window",
        lambda: bad.padded(0, 0, 1, 1, 0, 0, 1, 1),
        "Relu_3 (Relu): its input is padded: put the Pad before a Conv",
    ),
    bad.case(
        "padded at the end",
        lambda: bad.padded(0, 0, 1, 1, 0, 0, 1, 1, then=""),
        "m: ends in a Pad: remove it",
    ),
    bad.case(
        "enlarged by lines",
        lambda: bad.resized("linear"),
        "Resize_1 (Resize): linear from (4, 4) to (8, 8) must be nearest by whole factors: "
        "change it",
    ),
    bad.case(
        "enlarged by one and a half",
        lambda: bad.resized("nearest", by=1.5),
        "Resize_1 (Resize): nearest from (4, 4) to (6, 6) must be nearest by whole factors: "
        "change it",
    ),
    bad.case(
        "enlarged between corners",
        lambda: bad.resized("nearest", by=3, coordinate_transformation_mode="align_corners"),
        "Resize_1 (Resize): must repeat pixels: use coordinate_transformation_mode asymmetric "
        "and nearest_mode floor",
    ),
    bad.case(
        "blocks that do not divide",
        lambda: bad.after("DepthToSpace", blocksize=3),
        "m: DepthToSpace_1 (DepthToSpace): result: shape (1, 0, 12, 12): has nothing in it; "
        "use larger images or smaller windows",
    ),
    bad.case(
        "averages at the border",
        lambda: bad.after("AveragePool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        "AveragePool_1 (AveragePool): divides by fewer pixels at the border, or pads with "
        "other than 0: use count_include_pad 1, or no padding and no ceil_mode",
    ),
    bad.case(
        "averages with padding",
        lambda: bad.after("AveragePool", kernel_shape=[2, 2], pads=[1, 1, 1, 1]),
        "AveragePool_1 (AveragePool): divides by fewer pixels at the border, or pads with "
        "other than 0: use count_include_pad 1, or no padding and no ceil_mode",
    ),
    bad.case(
        "windows with gaps",
        lambda: bad.after("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]),
        "MaxPool_1 (MaxPool): dilations must be 1: pool without gaps",
    ),
    bad.case(
        "a convolution of three dimensions",
        lambda: bad.solid(),
        "Conv_2 (Conv): has 3 dimensions: convolutions have 1 or 2",
    ),
    bad.case(
        "an average of channels",
        lambda: bad.after("ReduceMean", axes=[1]),
        "ReduceMean_1 (ReduceMean): must be over rows and columns, not axes (1,): use "
        "GlobalAveragePool",
    ),
    bad.case(
        "fractions cast to integers",
        lambda: bad.cast(),
        "Cast_2 (Cast): rounds to integers: use a quantiser",
    ),
]


@pytest.mark.parametrize(("made", "message"), [*WEIGHTS, *NUMBERS, *SHAPES])
def test_message(made, message, tmp_path):
    assert bad.said(made, tmp_path) == message
