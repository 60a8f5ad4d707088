"""Models that no network can be made of are refused in one line: which node, what is wrong, a way.

Every message is written out in full, for it is all that a user sees.
"""

from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("onnx")

from . import bad_models as bad

PIXELS = Fraction(1, 255)

INPUTS = [
    bad.case(
        "rows and columns left open",
        lambda: bad.opened("rows", "columns"),
        "m: input 'x': shape (batch, 3, rows, columns): is left open; give --input-shape C,H,W",
    ),
    bad.case(
        "a shape that does not fit",
        lambda: (bad.opened("rows", "columns"), {"shape": (1, 8, 8)}),
        "m: input 'x': shape (batch, 3, rows, columns): does not fit --input-shape 1,8,8; give "
        "one that does, without the batch",
    ),
    bad.case(
        "a shape without the channels",
        lambda: (bad.opened("rows", "columns"), {"shape": (8, 8)}),
        "m: input 'x': shape (batch, 3, rows, columns): does not fit --input-shape 8,8; give "
        "one that does, without the batch",
    ),
    bad.case(
        "nothing rounds the input",
        lambda: bad.unrounded(),
        "m: input 'x' is not quantised before MatMul_1 (MatMul): say what its integers stand "
        "for, with --input-scale (1/255 for pixels in 0 to 1, 1 for 0 to 255)",
    ),
    bad.case(
        "a scale of 0",
        lambda: (bad.unrounded(), {"scale": Fraction(0)}),
        "m: input scale must be above 0, not 0: give --input-scale 1/255 for pixels in 0 to 1",
    ),
    bad.case(
        "a scale below 0",
        lambda: (bad.unrounded(), {"scale": Fraction(-1)}),
        "m: input scale must be above 0, not -1: give --input-scale 1/255 for pixels in 0 to 1",
    ),
    bad.case(
        "plain floats",
        lambda: bad.floats(),
        "m: is a plain float model: quantise it first, with 'brambling quantise MODEL "
        "--calibrate IMAGES'",
    ),
    bad.case(
        "two inputs",
        lambda: bad.two_inputs(),
        "m: inputs 'x', 'mask': must be one; cut the model so that it has one",
    ),
    bad.case(
        "two outputs",
        lambda: bad.two_outputs(),
        "m: outputs 't3', 't2': must be one; cut the model so that it has one",
    ),
    bad.case(
        "no layer",
        lambda: bad.start(4),
        "m: has no layer: give a model with some",
    ),
]

OPERATORS = [
    bad.case(
        "several at once",
        lambda: bad.several_unsupported(),
        "m: 4 unsupported: Sigmoid_3 (Sigmoid): use Relu, LeakyRelu or Clip; Erf_4 (Erf): use "
        "Relu; Cos_5 (Cos): is not supported: see the table of operators in the docs; "
        "LayerNormalization_6 (LayerNormalization): use BatchNormalization",
    ),
    bad.case(
        "FINN's hardware",
        lambda: bad.hardware(),
        "m: 2 unsupported: MVAU_1 (MVAU) of finn.custom_op.fpgadataflow: is of FINN's hardware "
        "dialect: give the model from before; StreamingFIFO_2 (StreamingFIFO) of "
        "finn.custom_op.fpgadataflow: is of FINN's hardware dialect: give the model from before",
    ),
    bad.case(
        "minifloat",
        lambda: bad.minifloat(),
        "m: 1 unsupported: FloatQuant_3 (FloatQuant): minifloat is not supported: use IntQuant",
    ),
    bad.case(
        "not in its operator set",
        lambda: bad.old(),
        "m: 1 unsupported: QuantizeLinear_0 (QuantizeLinear): is not in operator set 8: export "
        "it anew",
    ),
    bad.case(
        "a cycle",
        lambda: bad.cycle(),
        "m: Add_1 (Add), Relu_2 (Relu): read their own results; export it anew",
    ),
    bad.case(
        "softmax in the middle",
        lambda: bad.softmax_inside(),
        "Softmax_3 (Softmax): it may only be the last operator: remove it",
    ),
    bad.case(
        "the three largest",
        lambda: bad.topk(3),
        "TopK_3 (TopK): must find the first largest of all elements, not the 3 largest of axis "
        "1 of (1, 3): use ArgMax over the classes",
    ),
    bad.case(
        "the least",
        lambda: bad.topk(1, largest=0),
        "TopK_3 (TopK): must find the first largest of all elements, not the last or least of "
        "axis 1 of (1, 3): use ArgMax over the classes",
    ),
    bad.case(
        "their values",
        lambda: bad.topk(1, values=True),
        "TopK_3 (TopK): its indices must be the model's output: cut the model there",
    ),
    bad.case(
        "over the batch",
        lambda: bad.argmax(axis=0),
        "ArgMax_3 (ArgMax): must find the first largest of all elements, not the 1 largest of "
        "axis 0 of (1, 3): use ArgMax over the classes",
    ),
    bad.case(
        "the last largest",
        lambda: bad.argmax(axis=1, select_last_index=1),
        "ArgMax_3 (ArgMax): must find the first largest of all elements, not the last or least "
        "of axis 1 of (1, 3): use ArgMax over the classes",
    ),
    bad.case(
        "softmax over channels",
        lambda: bad.after("Softmax", axis=1),
        "Softmax_1 (Softmax): must be over all elements, not over axis 1 of (1, 4, 4, 4): "
        "remove it",
    ),
]

QUANTISERS = [
    bad.case(
        "scale NaN",
        lambda: bad.quantised(scale=float("nan")),
        "IntQuant_3 (IntQuant): scale: element 0 must be finite, not nan: export a model whose "
        "training converged",
    ),
    bad.case(
        "scale infinite",
        lambda: bad.quantised(scale=float("inf")),
        "IntQuant_3 (IntQuant): scale: element 0 must be finite, not inf: export a model whose "
        "training converged",
    ),
    bad.case(
        "scale 0",
        lambda: bad.quantised(scale=0),
        "IntQuant_3 (IntQuant): scale must be above 0, not 0: train anew",
    ),
    bad.case(
        "scale below 0",
        lambda: bad.quantised(scale=-0.5),
        "IntQuant_3 (IntQuant): scale must be above 0, not -0.5: train anew",
    ),
    bad.case(
        "one channel's scale NaN",
        lambda: bad.quantised(scale=[[0.5, float("nan"), 1]]),
        "IntQuant_3 (IntQuant): scale: element 1 must be finite, not nan: export a model whose "
        "training converged",
    ),
    bad.case(
        "zero-point NaN",
        lambda: bad.quantised(zero=float("nan")),
        "IntQuant_3 (IntQuant): zero-point: element 0 must be finite, not nan: export a model "
        "whose training converged",
    ),
    bad.case(
        "half a bit",
        lambda: bad.quantised(bits=2.5),
        "IntQuant_3 (IntQuant): bit width must be a whole number of 1 to 16, not 2.5: quantise "
        "with such a width",
    ),
    bad.case(
        "no bits",
        lambda: bad.quantised(bits=0),
        "IntQuant_3 (IntQuant): bit width must be a whole number of 1 to 16, not 0: quantise "
        "with such a width",
    ),
    bad.case(
        "40 bits",
        lambda: bad.quantised(bits=40),
        "IntQuant_3 (IntQuant): bit width must be a whole number of 1 to 16, not 40: quantise "
        "with such a width",
    ),
    bad.case(
        "bits NaN",
        lambda: bad.quantised(bits=float("nan")),
        "IntQuant_3 (IntQuant): bit width: element 0 must be finite, not nan: export a model "
        "whose training converged",
    ),
    bad.case(
        "unknown rounding",
        lambda: bad.quantised(rounding_mode="NEAREST"),
        "m: IntQuant_3 (IntQuant): rounding_mode 'NEAREST': one of ROUND, HALF_EVEN, CEIL, "
        "FLOOR, UP, DOWN, HALF_UP, HALF_DOWN",
    ),
    bad.case(
        "rounding no text",
        lambda: bad.quantised(rounding_mode=1),
        "m: IntQuant_3 (IntQuant): rounding_mode 1: must be text",
    ),
    bad.case(
        "signed 2",
        lambda: bad.quantised(signed=2),
        "IntQuant_3 (IntQuant): signed must be 0 or 1, not 2: export it anew",
    ),
    bad.case(
        "signed text",
        lambda: bad.quantised(signed="yes"),
        "m: IntQuant_3 (IntQuant): signed 'yes': must be an integer",
    ),
    bad.case(
        "one signed bit in one channel",
        lambda: bad.quantised(bits=[[1, 2, 2]]),
        "IntQuant_3 (IntQuant): has 1 signed bit in some channels only: use 2",
    ),
    bad.case(
        "a scale that depends on the input",
        lambda: bad.live_scale(),
        "IntQuant_4 (IntQuant): its scale must be a constant, not 't3': fold it to an initialiser",
    ),
    bad.case(
        "the input's scale NaN",
        lambda: bad.start(4, scale=float("nan")),
        "IntQuant_0 (IntQuant): scale: element 0 must be finite, not nan: export a model whose "
        "training converged",
    ),
    bad.case(
        "the input's scale 0",
        lambda: bad.start(4, scale=0),
        "IntQuant_0 (IntQuant): scale must be above 0, not 0: train anew",
    ),
    bad.case(
        "the input's scale below 0",
        lambda: bad.start(4, scale=-1),
        "IntQuant_0 (IntQuant): scale must be above 0, not -1: train anew",
    ),
    bad.case(
        "the input's half bit",
        lambda: bad.start(4, bits=2.5),
        "IntQuant_0 (IntQuant): bit width must be a whole number of 1 to 16, not 2.5: quantise "
        "with such a width",
    ),
    bad.case(
        "the input's 40 bits",
        lambda: bad.start(4, bits=40),
        "IntQuant_0 (IntQuant): bit width must be a whole number of 1 to 16, not 40: quantise "
        "with such a width",
    ),
    bad.case(
        "the input's rounding",
        lambda: bad.start(4, rounding_mode="NEAREST"),
        "m: IntQuant_0 (IntQuant): rounding_mode 'NEAREST': one of ROUND, HALF_EVEN, CEIL, "
        "FLOOR, UP, DOWN, HALF_UP, HALF_DOWN",
    ),
    bad.case(
        "the input's sign of scale 0",
        lambda: bad.bipolar(0),
        "BipolarQuant_0 (BipolarQuant): scale must not be 0: train anew",
    ),
    bad.case(
        "a sign of scale 0",
        lambda: (bad.bipolar(0), {"scale": PIXELS}),
        "BipolarQuant_0 (BipolarQuant): scale must not be 0: train anew",
    ),
    bad.case(
        "the input's step 0",
        lambda: bad.linear(0),
        "QuantizeLinear_0 (QuantizeLinear): scale must be above 0, not 0: train anew",
    ),
    bad.case(
        "the input's step NaN",
        lambda: bad.linear(float("nan")),
        "QuantizeLinear_0 (QuantizeLinear): scale: element 0 must be finite, not nan: export a "
        "model whose training converged",
    ),
    bad.case(
        "a step of 0",
        lambda: (bad.linear(0), {"scale": PIXELS}),
        "QuantizeLinear_0 (QuantizeLinear): scale must be above 0, not 0: train anew",
    ),
    bad.case(
        "a step for each block",
        lambda: (bad.blocks(), {"scale": PIXELS}),
        "QuantizeLinear_0 (QuantizeLinear): has a scale for each block: use one for each channel",
    ),
    bad.case(
        "truncated from 40 bits",
        lambda: bad.trunc(40, 4),
        "Trunc_1 (Trunc): bit width must be a whole number of 1 to 16, not 40: quantise with "
        "such a width",
    ),
    bad.case(
        "truncated by an unknown rounding",
        lambda: bad.trunc(6, 4, rounding_mode="NEAREST"),
        "m: Trunc_1 (Trunc): rounding_mode 'NEAREST': one of ROUND, HALF_EVEN, CEIL, FLOOR, "
        "UP, DOWN, HALF_UP, HALF_DOWN",
    ),
    bad.case(
        "truncated without a quantiser",
        lambda: bad.trunc_of_leaky(),
        "Trunc_2 (Trunc): its input must be quantised: put a quantiser before it",
    ),
    bad.case(
        "truncated by far too small a scale",
        lambda: bad.truncated(1e-30),
        "Trunc_1 (Trunc): results from -2e+60 to 1.75e+60 times its scale: give it that of its "
        "input",
    ),
    bad.case(
        "thresholds NaN",
        lambda: bad.thresholds([[0, float("nan"), 1]]),
        "MultiThreshold_1 (MultiThreshold): thresholds must be numbers, not nan: export a "
        "model whose training converged",
    ),
    bad.case(
        "no thresholds",
        lambda: bad.thresholds(np.zeros((1, 0))),
        "MultiThreshold_1 (MultiThreshold): thresholds must be of shape (channels, n), not (1, "
        "0): export it anew",
    ),
    bad.case(
        "thresholds in one row",
        lambda: bad.thresholds([0, 1, 2]),
        "m: MultiThreshold_1 (MultiThreshold): thresholds of shape (3,): must be (channels, steps)",
    ),
    bad.case(
        "thresholds of three channels for two",
        lambda: bad.thresholds([[0, 1]] * 3),
        "m: MultiThreshold_1 (MultiThreshold): thresholds of shape (3, 2): must be (channels, "
        "steps)",
    ),
    bad.case(
        "thresholds' scale NaN",
        lambda: bad.thresholds([[0, 1, 2]], out_scale=float("nan")),
        "MultiThreshold_1 (MultiThreshold): out_scale must be a finite number, not nan: export "
        "it anew",
    ),
    bad.case(
        "thresholds' channels in another place",
        lambda: bad.thresholds([[0, 1, 2]] * 2, data_layout="NHWC"),
        "m: MultiThreshold_1 (MultiThreshold): thresholds of shape (2, 3): must be (channels, "
        "steps)",
    ),
]


@pytest.mark.parametrize(("made", "message"), [*INPUTS, *OPERATORS, *QUANTISERS])
def test_message(made, message, tmp_path):
    assert bad.said(made, tmp_path) == message
