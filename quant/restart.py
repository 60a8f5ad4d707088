"""Training that goes on from an exported network of one bit: :func:`begin_as`.

What is published of a network are its integers: signs of weights, and one level a channel. They
are enough to begin another round of training at the accuracy of the last one (a warm restart,
Loshchilov and Hutter 2017), since an optimiser moves the latent weights far from where they were
within some epochs anyway.
"""

from typing import cast

import torch
from torch import Tensor, nn

from brambling.errors import ConfigError
from brambling.layers import Conv, Dense, Thresholds
from brambling.network import Network
from brambling.quant.formats import Bipolar
from brambling.quant.layers import PixelInput, QuantActivation, QuantConv2d, QuantLinear

__all__ = ["begin_as"]


@torch.no_grad()
def begin_as(model: nn.Sequential, network: Network, pixels: Tensor) -> None:
    """Set ``model`` so that in evaluation it computes what ``network`` does.

    Latent weights become -1 and +1, at the end of their range. Each batch-norm has gain 1, the
    mean and variance of ``pixels`` (uint8, ``(n, channels, rows, columns)``) where it stands, and
    the bias that puts its sign half a unit below the network's level.

    Raises
    ------
    ConfigError
        Where the model is not a chain of one-bit layers as they are in the network.
    """
    rest = [layer for layer in network.layers if isinstance(layer, Conv | Dense | Thresholds)]
    scale, offset = 1.0, 0  #: Of the codes that come in: ``(code - offset) * scale``.
    product: Tensor | None = None  #: Weights before the batch-norm.
    x = pixels
    model.eval()
    for module in model:
        if isinstance(module, PixelInput):
            scale, offset = module.scale, module.offset
        elif isinstance(module, QuantConv2d | QuantLinear):
            product = take_weights(module, network, rest)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and product is not None:
            layer = rest.pop(0) if rest else None
            if not isinstance(layer, Thresholds) or layer.fmt != Bipolar() or layer.falling.any():
                raise unlike(network, "one rising level a channel")
            level = torch.tensor(layer.levels[:, 0]).double() - 0.5
            centre(module, x, (level - offset * product.flatten(1).sum(dim=1)) * scale)
        elif isinstance(module, QuantActivation):
            scale, offset = 1.0, 0
        x = cast(Tensor, module(x))
    if rest:
        raise unlike(network, f"no layer {rest[0].name}")


def take_weights(
    module: QuantConv2d | QuantLinear, network: Network, rest: list[Conv | Dense | Thresholds]
) -> Tensor:
    """Copy the next layer's weights, and return them, ``(outputs, inputs, ...)``, in double."""
    layer = rest.pop(0) if rest else None
    if not isinstance(layer, Conv | Dense) or layer.fmt != Bipolar() or module.bias is not None:
        raise unlike(network, "one-bit weights and no bias")
    weights = torch.tensor(layer.weights)
    weights = weights.permute(0, 3, 1, 2) if weights.dim() == 4 else weights
    if weights.shape != module.weight.shape:
        raise unlike(network, f"{layer.name} of {tuple(module.weight.shape)} weights")
    module.weight.copy_(weights)
    return weights.double()


def centre(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor, level: Tensor) -> None:
    """Set a batch-norm to the statistics of ``x`` and to a result of 0 at each ``level``."""
    over = [axis for axis in range(x.dim()) if axis != 1]
    mean, variance = x.double().mean(over), x.double().var(over)
    deviation = (variance + norm.eps).sqrt()
    for target, value in (
        (norm.running_mean, mean),
        (norm.running_var, variance),
        (norm.weight, torch.ones_like(mean)),
        (norm.bias, (mean - level) / deviation),
    ):
        cast(Tensor, target).copy_(value)


def unlike(network: Network, what: str) -> ConfigError:
    """Return the error for a network that is not the recipe's."""
    return ConfigError(
        f"{network.name}: the recipe's network has {what}, which this one has not where it should; "
        f"only networks of that recipe, of one bit, can be gone on from"
    )
