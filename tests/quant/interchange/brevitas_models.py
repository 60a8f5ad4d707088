"""Models made with Brevitas and exported by it: a program of the isolated environment.

``brevitas_models.py FOLDER SEED NAME...`` writes ``NAME.onnx`` and ``NAME.npz``: ``inputs``,
``outputs`` of Brevitas itself and ``qonnx``, what the ``qonnx`` package makes of the exported file.

Nothing is trained: a few random batches set the quantisers' scales and the normalisations.
"""
# pyright: reportMissingImports=false

import contextlib
import io
import sys
from pathlib import Path

import brevitas.nn as qnn
import numpy as np
import run_qonnx
import torch
from brevitas.export import export_onnx_qcdq, export_qonnx
from brevitas.quant.binary import SignedBinaryActPerTensorConst, SignedBinaryWeightPerTensorConst
from brevitas.quant.scaled_int import (
    Int8ActPerTensorFloat,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    Int16Bias,
    TruncTo8bit,
)
from torch import nn

BATCH = 16


def main():
    """Make, calibrate, export and execute each model."""
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    run_qonnx.one_thread()
    torch.set_num_threads(1)
    for name in sys.argv[3:]:
        make, shape, export = MODELS[name]
        torch.manual_seed(seed)
        model = make()
        inputs = calibrated(model, shape)
        with torch.no_grad():
            outputs = plain(model(inputs)).numpy()
        file = folder / f"{name}.onnx"
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            export(model, inputs[:1], file)
        tensors = run_qonnx.execute(file, inputs.numpy())
        made = tensors[run_qonnx.onnx.load(file).graph.output[0].name]
        np.savez(folder / f"{name}.npz", inputs=inputs.numpy(), outputs=outputs, qonnx=made)


def calibrated(model, shape):
    """Set a model's scales and statistics by random batches; more of the same to try it with."""
    with torch.no_grad():
        for _ in range(8):
            model(torch.randn(32, *shape))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.momentum = None  # the mean over all that follow
                module.reset_running_stats()
                module.weight.normal_()  # some gains are negative
                module.bias.normal_(std=0.3)
                module.weight[0] = 0
        model.train()
        for _ in range(8):
            model(torch.randn(32, *shape))
    model.eval()
    return torch.randn(BATCH, *shape)


def plain(x):
    """Numbers of a result, whether Brevitas wrapped them or not."""
    return getattr(x, "value", x)


def quantised(model, inputs, file):
    """Export with the current exporter, into one file."""
    export_qonnx(model, args=inputs, export_path=str(file), external_data=False)


def beside(model, inputs, file):
    """Export with the current exporter, weights in a file of their own."""
    export_qonnx(model, args=inputs, export_path=str(file))


def scripted(model, inputs, file):
    """Export with the older exporter."""
    export_qonnx(model, args=inputs, export_path=str(file), dynamo=False, opset_version=13)


def qcdq(model, inputs, file):
    """Export as ONNX' own quantisers."""
    export_onnx_qcdq(model, args=inputs, export_path=str(file), dynamo=False, opset_version=13)


# Models -------------------------------------------------------------------------------------------


def entrance():
    """Quantiser of images."""
    return qnn.QuantIdentity(bit_width=8, return_quant_tensor=True)


def relu(bits):
    return qnn.QuantReLU(bit_width=bits, return_quant_tensor=True)


def lenet():
    """LeNet-5 of four bits; biases on the grid of the products."""
    options = {"weight_bit_width": 4, "bias_quant": Int16Bias}
    return nn.Sequential(
        *(entrance(), qnn.QuantConv2d(1, 6, 5, padding=2, **options), relu(4), nn.MaxPool2d(2)),
        *(qnn.QuantConv2d(6, 16, 5, **options), relu(4), nn.MaxPool2d(2), nn.Flatten()),
        *(qnn.QuantLinear(400, 120, bias=True, **options), relu(4)),
        *(qnn.QuantLinear(120, 84, bias=True, **options), relu(4)),
        qnn.QuantLinear(84, 10, bias=True, weight_bit_width=4),
    )


class Block(nn.Module):
    """Two convolutions beside a connection; both are quantised alike, or each has its own scale."""

    def __init__(self, channels, *, alike, stride=1, outputs=None):
        super().__init__()
        outputs = outputs or channels
        options = {"bias": False, "weight_bit_width": 4}
        self.body = nn.Sequential(
            qnn.QuantConv2d(channels, outputs, 3, stride=stride, padding=1, **options),
            *(nn.BatchNorm2d(outputs), relu(4)),
            qnn.QuantConv2d(outputs, outputs, 3, padding=1, **options),
            nn.BatchNorm2d(outputs),
        )
        self.skip = nn.Identity()
        if stride > 1 or outputs != channels:
            self.skip = nn.Sequential(
                qnn.QuantConv2d(channels, outputs, 1, stride=stride, **options),
                nn.BatchNorm2d(outputs),
            )
        # Brevitas adds quantised tensors of one scale only, others as plain numbers.
        self.left = qnn.QuantIdentity(bit_width=6, return_quant_tensor=alike)
        self.right = self.left if alike else qnn.QuantIdentity(bit_width=6)
        self.relu = relu(4)

    def forward(self, x):
        return self.relu(self.left(self.body(x)) + self.right(self.skip(x)))


def residual(*, alike, pool):
    """A residual network with an average at the end."""
    return nn.Sequential(
        *(entrance(), qnn.QuantConv2d(3, 8, 3, padding=1, bias=False, weight_bit_width=8)),
        *(nn.BatchNorm2d(8), relu(4), Block(8, alike=alike)),
        Block(8, alike=alike, stride=2, outputs=12),
        *(pool(), nn.Flatten(), qnn.QuantLinear(12, 10, bias=True, weight_bit_width=8)),
    )


def truncated():
    """Average of 4 × 4 by the sum's high bits."""
    return qnn.TruncAvgPool2d(4, trunc_quant=TruncTo8bit, bit_width=4)


def averaged():
    """Average of everything, quantised."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), qnn.QuantIdentity(bit_width=8))


def perceptron():
    """Dense layers of two bits."""
    layers = [entrance()]
    for i, o in ((20, 32), (32, 24)):
        layers += [qnn.QuantLinear(i, o, bias=False, weight_bit_width=2), nn.BatchNorm1d(o)]
        layers += [relu(2), nn.Dropout(0.1)]
    return nn.Sequential(*layers, qnn.QuantLinear(24, 10, bias=True, weight_bit_width=2))


def separable():
    """Depthwise and pointwise convolutions of eight bits, a scale for each channel."""
    options = {"weight_quant": Int8WeightPerChannelFloat, "weight_bit_width": 8, "bias": False}
    layers = [entrance(), qnn.QuantConv2d(3, 8, 3, stride=2, padding=1, **options)]
    layers += [nn.BatchNorm2d(8), qnn.QuantReLU(bit_width=8, return_quant_tensor=True)]
    for i, o in ((8, 12), (12, 16)):
        layers += [qnn.QuantConv2d(i, i, 3, padding=1, groups=i, **options), nn.BatchNorm2d(i)]
        layers += [relu(8), qnn.QuantConv2d(i, o, 1, **options), nn.BatchNorm2d(o), relu(8)]
    layers += [nn.AvgPool2d(2), qnn.QuantIdentity(Int8ActPerTensorFloat), nn.Flatten()]
    return nn.Sequential(*layers, qnn.QuantLinear(64, 10, bias=True, weight_bit_width=8))


def binary():
    """One bit of weights and of activations."""
    weight = {"weight_quant": SignedBinaryWeightPerTensorConst, "bias": False}

    def sign():
        return qnn.QuantIdentity(SignedBinaryActPerTensorConst, return_quant_tensor=True)

    return nn.Sequential(
        *(entrance(), qnn.QuantConv2d(3, 8, 3, **weight), nn.BatchNorm2d(8), sign()),
        *(nn.MaxPool2d(2), qnn.QuantConv2d(8, 12, 3, **weight), nn.BatchNorm2d(12), sign()),
        *(nn.Flatten(), qnn.QuantLinear(12, 16, **weight), nn.BatchNorm1d(16), sign()),
        qnn.QuantLinear(16, 10, **weight),
    )


def plain_cnn():
    """A small network that ONNX' own quantisers can say."""
    options = {"weight_quant": Int8WeightPerTensorFloat, "bias": True}
    return nn.Sequential(
        *(entrance(), qnn.QuantConv2d(2, 6, 3, weight_bit_width=4, **options), relu(4)),
        *(nn.MaxPool2d(2), qnn.QuantConv2d(6, 8, 3, weight_bit_width=8, **options), relu(8)),
        *(nn.Flatten(), qnn.QuantLinear(8, 10, weight_bit_width=8, **options)),
    )


MODELS = {
    "lenet": (lenet, (1, 28, 28), quantised),
    "residual-alike": (lambda: residual(alike=True, pool=truncated), (3, 8, 8), quantised),
    "residual-unlike": (lambda: residual(alike=False, pool=averaged), (3, 8, 8), beside),
    "perceptron": (perceptron, (20,), scripted),
    "separable": (separable, (3, 8, 8), scripted),
    "binary": (binary, (3, 8, 8), scripted),
    "qcdq": (plain_cnn, (2, 8, 8), qcdq),
}


if __name__ == "__main__":
    main()
