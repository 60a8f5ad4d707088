"""The zoo's convolutional networks, in PyTorch: built of quantised layers, traceable.

All take pixels, uint8 or float ``(n, channels, rows, columns)``, and return logits, float
``(n, 10)``; all begin with a :class:`~brambling.quant.layers.PixelInput`. Convolutions carry no
bias where a batch-norm follows.
"""

import math

import torch
from torch import Tensor, nn

from brambling.quant.layers import PixelInput, QuantActivation, QuantConv2d, QuantLinear
from brambling.quant.quantiser import Quantiser

__all__ = [
    "Residual",
    "Scale",
    "bind_biases",
    "calibrate",
    "cifar_cnn",
    "cnv",
    "lenet5",
    "mnist_cnn",
    "resnet8",
    "resnet_b",
]

CLASSES = 10


class Scale(nn.Module):
    """Logits of the last layer's sums: one positive learned factor for all classes."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-0.5 * math.log(inputs)))

    def forward(self, sums: Tensor) -> Tensor:
        return sums.float() * self.log_scale.exp()


# One-bit weights ----------------------------------------------------------------------------------


def bipolar() -> Quantiser:
    """Quantiser to -1 and +1."""
    return Quantiser(1, signed=True, method="sign")


def bipolar_conv(inputs: int, outputs: int) -> list[nn.Module]:
    """3 x 3 convolution without padding, batch-norm and sign."""
    conv = QuantConv2d(inputs, outputs, 3, quantiser=bipolar())
    return [conv, nn.BatchNorm2d(outputs), QuantActivation(bipolar())]


def bipolar_dense(inputs: int, outputs: int) -> list[nn.Module]:
    """Dense layer, batch-norm and sign."""
    dense = QuantLinear(inputs, outputs, quantiser=bipolar())
    return [dense, nn.BatchNorm1d(outputs), QuantActivation(bipolar())]


def cnv() -> nn.Sequential:
    """CNV of FINN (Umuroglu et al. 2017, section 4.1): CIFAR-10, one-bit weights and activations.

    Six convolutions, two poolings (after the sign, so of single bits) and three dense layers;
    1.5 Mbit of weights. The first layer sees pixels of 8 bits.
    """
    return nn.Sequential(
        PixelInput(128, 1 / 64),
        *bipolar_conv(3, 64),
        *bipolar_conv(64, 64),
        nn.MaxPool2d(2),
        *bipolar_conv(64, 128),
        *bipolar_conv(128, 128),
        nn.MaxPool2d(2),
        *bipolar_conv(128, 256),
        *bipolar_conv(256, 256),
        nn.Flatten(),
        *bipolar_dense(256, 512),
        *bipolar_dense(512, 512),
        QuantLinear(512, CLASSES, quantiser=bipolar()),
        Scale(512),
    )


# Four-bit weights ---------------------------------------------------------------------------------

ACTIVATION_FRAC = 2  #: Activations are u4.2: 0 to 3.75, which batch-norm's outputs rarely exceed.
BRANCH_FRAC = 4  #: What a residual addition sums is s8.4: -8 to 7.9375.
AVERAGE_FRAC = 6  #: Averages of u4.2 are rounded to u8.6, without clipping.


def activation() -> QuantActivation:
    """ReLU to u4.2."""
    quantiser = Quantiser(4, signed=False, method="radix", frac=ACTIVATION_FRAC)
    return QuantActivation(quantiser, relu=True)


def normed_conv(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, bits: int = 4
) -> list[nn.Module]:
    """Convolution that keeps the size, with a learned step for each output, and batch-norm."""
    quantiser = Quantiser(bits, signed=True, method="lsq", channels=outputs)
    padding = kernel // 2
    conv = QuantConv2d(inputs, outputs, kernel, quantiser=quantiser, stride=stride, padding=padding)
    return [conv, nn.BatchNorm2d(outputs)]


def branch(*modules: nn.Module) -> nn.Sequential:
    """Modules whose result is rounded to s8.4, to be added."""
    quantiser = Quantiser(8, signed=True, method="radix", frac=BRANCH_FRAC)
    return nn.Sequential(*modules, QuantActivation(quantiser))


class Residual(nn.Module):
    """Basic block (He et al. 2016, figure 2): two convolutions beside a shortcut.

    The shortcut is a 1 x 1 convolution where the shape changes, else nothing.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = branch(
            *normed_conv(inputs, outputs, stride=stride),
            activation(),
            *normed_conv(outputs, outputs),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = branch(*normed_conv(inputs, outputs, kernel=1, stride=stride))
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + self.shortcut(x))


def head(channels: int, side: int) -> list[nn.Module]:
    """Average of each channel's ``side * side`` pixels, rounded to u8.6, and a dense layer."""
    rounded = Quantiser(8, signed=False, method="radix", frac=AVERAGE_FRAC)
    weights = Quantiser(8, signed=True, method="radix", frac=7)
    return [
        nn.AvgPool2d(side),
        QuantActivation(rounded),
        nn.Flatten(),
        QuantLinear(channels, CLASSES, quantiser=weights, bias=True),
    ]


def resnet8() -> nn.Sequential:
    """ResNet-8 of MLPerf Tiny (Banbury et al. 2021): CIFAR-10, four-bit weights and activations.

    12.5 million products; the first and the last layer have weights of eight bits.
    """
    return nn.Sequential(
        PixelInput(128, 1 / 64),
        *normed_conv(3, 16, bits=8),
        activation(),
        Residual(16, 16),
        Residual(16, 32, stride=2),
        Residual(32, 64, stride=2),
        *head(64, 8),
    )


def resnet_b() -> nn.Sequential:
    """Wider network for CIFAR-10 whose weights still fit small parts: 2.7 Mbit of four bits.

    86 million products; the first and the last layer have weights of eight bits.
    """
    layers: list[nn.Module] = [PixelInput(128, 1 / 64), *normed_conv(3, 24, bits=8), activation()]
    for inputs, outputs in ((24, 64), (64, 128), (128, 192)):
        layers += [*normed_conv(inputs, outputs), activation(), nn.MaxPool2d(2)]
        if outputs != 192:
            layers.append(Residual(outputs, outputs))
    return nn.Sequential(*layers, *head(192, 4))


# MNIST --------------------------------------------------------------------------------------------


def lenet5(bits: int | None) -> nn.Sequential:
    """LeNet-5 (LeCun et al. 1998) with ReLU and maxima: MNIST, 417 thousand products.

    Weights and activations have ``bits`` bits and, each layer for itself, a power-of-two step
    (:func:`calibrate` chooses them); biases are added in the accumulator's step. ``None``: the
    float network, whose weights have the same names.
    """

    def act() -> nn.Module:
        if bits is None:
            return nn.ReLU()
        return QuantActivation(Quantiser(bits, signed=False, method="radix"), relu=True)

    def conv(inputs: int, outputs: int, padding: int) -> nn.Module:
        if bits is None:
            return nn.Conv2d(inputs, outputs, 5, padding=padding)
        quantiser = Quantiser(bits, signed=True, method="radix")
        return QuantConv2d(inputs, outputs, 5, quantiser=quantiser, padding=padding, bias=True)

    def dense(inputs: int, outputs: int) -> nn.Module:
        if bits is None:
            return nn.Linear(inputs, outputs)
        quantiser = Quantiser(bits, signed=True, method="radix")
        return QuantLinear(inputs, outputs, quantiser=quantiser, bias=True)

    return nn.Sequential(
        PixelInput(0, 1 / 256),
        *(conv(1, 6, 2), act(), nn.MaxPool2d(2)),
        *(conv(6, 16, 0), act(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(dense(400, 120), act(), dense(120, 84), act(), dense(84, CLASSES)),
    )


def mnist_cnn() -> nn.Sequential:
    """Small CNN for MNIST: one-bit weights (0.24 Mbit), two-bit activations, 3.2 million products.

    Activations are 0 to 3; the first layer sees pixels of 8 bits.
    """

    def act() -> QuantActivation:
        return QuantActivation(Quantiser(2, signed=False, method="radix"), relu=True)

    def conv(inputs: int, outputs: int) -> list[nn.Module]:
        conv = QuantConv2d(inputs, outputs, 3, quantiser=bipolar())
        return [conv, nn.BatchNorm2d(outputs), act()]

    return nn.Sequential(
        PixelInput(0, 1 / 256),
        *(*conv(1, 32), nn.MaxPool2d(2)),
        *(*conv(32, 64), nn.MaxPool2d(2)),
        *conv(64, 128),
        nn.Flatten(),
        *(QuantLinear(1152, 128, quantiser=bipolar()), nn.BatchNorm1d(128), act()),
        QuantLinear(128, CLASSES, quantiser=bipolar()),
        Scale(128),
    )


def cifar_cnn() -> nn.Sequential:
    """Plain float CNN for CIFAR-10, without batch-norm: 2.9 million products."""
    return nn.Sequential(
        PixelInput(128, 1 / 64),
        *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, CLASSES)),
    )


# Steps that come from data ------------------------------------------------------------------------


@torch.no_grad()
def calibrate(model: nn.Sequential, pixels: Tensor) -> None:
    """Choose the step of each ``radix`` quantiser by the squared error, layer after layer.

    Weights have their own error, activations that on a few hundred images, which have passed
    through the layers rounded before. Then biases get their steps.
    """
    x = pixels
    for module in model:
        if isinstance(module, QuantConv2d | QuantLinear):
            module.quantiser.calibrate(module.weight)
        elif isinstance(module, QuantActivation):
            module.quantiser.calibrate(x.relu() if module.relu else x)
        bind_biases(model)
        x = module(x)


@torch.no_grad()
def bind_biases(model: nn.Module) -> None:
    """Set each layer's ``bias_step``: the scale of its weights times that of its input.

    The input's scale is that of the last module before it, in order, that sets one; poolings
    keep it.
    """
    scale = torch.ones(())
    for module in model.modules():
        if isinstance(module, PixelInput):
            scale = torch.tensor(module.scale)
        elif isinstance(module, QuantActivation):
            scale = module.quantiser.scale
        elif isinstance(module, QuantConv2d | QuantLinear) and module.bias is not None:
            module.bias_step.copy_(module.quantiser.scale * scale)
