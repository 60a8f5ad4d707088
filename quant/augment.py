"""Random changes to training images that leave their class as it is."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

__all__ = ["CHUNK", "MARGIN", "crop", "cut_out", "distort", "grey", "pad"]

CHUNK = 250  #: Images that are distorted or labelled at a time; larger ones leave the cache.
MARGIN = 4  #: Pixels of mirror image around a colour image, and its largest shift.
MIDDLE = 128  #: Pixel that means nothing: the networks subtract it.


def grey(images: NDArray[np.uint8]) -> Tensor:
    """Pixels as floats of 0 to 1, ``(n, 1, 28, 28)``."""
    return torch.from_numpy(images.astype(np.float32) / 255).unsqueeze(1)


def distort(images: Tensor, strength: float, source: torch.Generator) -> Tensor:
    """Randomly distorted copies of grey images, float ``(n, 1, 28, 28)``, same shape.

    At full strength: up to 0.3 radians and as much shear, 20 % of size, 2.5 pixels of shift, and
    an elastic field of 6 x 6 normal vectors of 1.3 pixels (Simard, Steinkraus and Platt 2003).
    """
    n = len(images)
    share = strength * torch.rand(n, generator=source)

    def spread(limit: float) -> Tensor:
        return share * limit * (2 * torch.rand(n, generator=source) - 1)

    angle, shear = spread(0.3), spread(0.3)
    wide, high = 1 + spread(0.2), 1 + spread(0.2)
    cosine, sine = angle.cos(), angle.sin()
    rows = [wide * cosine, shear - sine, spread(0.18), sine, high * cosine, spread(0.18)]
    affine = torch.stack(rows, dim=1).view(n, 2, 3)
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    coarse = torch.randn(n, 2, 6, 6, generator=source) * (0.09 * share).view(n, 1, 1, 1)
    field = functional.interpolate(coarse, images.shape[2:], mode="bicubic", align_corners=True)
    return functional.grid_sample(images, grid + field.permute(0, 2, 3, 1), align_corners=False)


def pad(images: NDArray[np.uint8]) -> Tensor:
    """Images ``(n, rows, columns, channels)`` with :data:`MARGIN` mirrored pixels all around."""
    margin = MARGIN, MARGIN
    return torch.from_numpy(np.pad(images, ((0, 0), margin, margin, (0, 0)), mode="reflect"))


def crop(padded: Tensor, rows: Tensor, shift: int, source: torch.Generator) -> Tensor:
    """Images of those ``rows``, each shifted by up to ``shift`` pixels, half of them mirrored.

    ``padded`` is what :func:`pad` made, uint8; so is the result, ``(n, channels, rows, columns)``
    with the channels innermost in memory.
    """
    n, (high, wide) = len(rows), (size - 2 * MARGIN for size in padded.shape[1:3])
    low, end = MARGIN - shift, MARGIN + shift + 1
    down = torch.randint(low, end, (n, 1), generator=source) + torch.arange(high)
    right = torch.randint(low, end, (n, 1), generator=source) + torch.arange(wide)
    mirrored = torch.rand(n, 1, generator=source) < 0.5
    right = torch.where(mirrored, right.flip(1), right)
    return padded[rows[:, None, None], down[:, :, None], right[:, None]].permute(0, 3, 1, 2)


def cut_out(images: Tensor, size: int, source: torch.Generator) -> Tensor:
    """Images with a grey square around a random pixel each (DeVries and Taylor 2017).

    The square reaches ``size // 2`` pixels to all sides, as far as the image does.
    """
    n, side = len(images), images.shape[2]
    centre = torch.randint(0, side, (2, n, 1), generator=source)
    down, right = (torch.arange(side) - centre).abs() <= size // 2
    return images.masked_fill((down[:, :, None] & right[:, None])[:, None], MIDDLE)
