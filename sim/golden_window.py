"""Windows of the golden model: convolution and pooling of batches of images, exactly."""

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import DTypeLike, NDArray

from brambling.layers import Conv, Pool, Tensor, Window

__all__ = ["convolve", "pool"]

BLOCK = 1 << 18  #: Elements of patches made at a time, so that they stay in the cache.


def padded(values: NDArray, window: Window, fill: int, dtype: DTypeLike) -> NDArray:
    """Copy images ``(n, height, width, channels)`` as ``dtype``, with ``fill`` around them."""
    top, bottom, left, right = window.padding
    n, height, width, channels = values.shape
    shape = n, height + top + bottom, width + left + right, channels
    if shape == values.shape:
        return values.astype(dtype, copy=False)
    result = np.full(shape, fill, dtype)
    result[:, top : top + height, left : left + width] = values
    return result


def patches(image: NDArray, window: Window) -> NDArray:
    """View padded images as ``(n, rows, columns, channels, kernel height, kernel width)``."""
    down, across = window.dilation
    view = sliding_window_view(image, window.span, axis=(1, 2))
    return view[:, :: window.stride[0], :: window.stride[1], :, ::down, ::across]


def convolve(layer: Conv, values: NDArray, dtype: DTypeLike) -> NDArray:
    """Compute ``layer`` with sums of ``dtype``, which must hold every partial sum."""
    window = layer.window
    image = padded(values, window, layer.pad_value, dtype)
    n, height, width, channels = image.shape
    if layer.weights.shape[3] == 1 and layer.groups > 1:
        return depthwise(layer, image)
    if window.point and layer.groups == 1:
        y = image.reshape(-1, channels) @ layer.matrix.T.astype(dtype)
        return y.reshape(n, height, width, -1)
    view = patches(image, window)
    _, rows, columns = view.shape[:3]
    groups, outputs = layer.groups, len(layer.weights) // layer.groups
    # (groups, elements, outputs of a group), elements by row, column, channel of the window.
    w = layer.matrix.reshape(groups, outputs, -1).transpose(0, 2, 1).astype(dtype)
    y = np.empty((n, rows * columns, len(layer.weights)), dtype)
    step = max(1, BLOCK // (view[0].size))
    for start in range(0, n, step):
        block = view[start : start + step].transpose(0, 1, 2, 4, 5, 3)
        if groups == 1:
            here = y[start : start + step].reshape(-1, len(layer.weights))
            np.matmul(block.reshape(-1, w.shape[1]), w[0], out=here)
            continue
        split = block.reshape(*block.shape[:5], groups, -1).transpose(5, 0, 1, 2, 3, 4, 6)
        found = split.reshape(groups, -1, w.shape[1]) @ w
        y[start : start + step] = found.transpose(1, 0, 2).reshape(-1, *y.shape[1:])
    return y.reshape(n, rows, columns, -1)


def depthwise(layer: Conv, image: NDArray) -> NDArray:
    """Convolve padded images where each output sees one channel: tap by tap, no matrix product."""
    view = patches(image, layer.window)
    outputs = len(layer.weights) // layer.groups
    w = layer.weights[..., 0].reshape(layer.groups, outputs, *layer.window.kernel)
    y = np.zeros((*view.shape[:4], outputs), image.dtype)
    for row, column in np.ndindex(*layer.window.kernel):
        y += view[..., row, column, None] * w[..., row, column].astype(image.dtype)
    return y.reshape(*y.shape[:3], -1)


def pool(layer: Pool, x: Tensor, values: NDArray, dtype: DTypeLike) -> NDArray:
    """Compute ``layer`` on images of ``x``; ``dtype`` must hold every partial sum."""
    window = layer.window(x)
    largest = layer.kind == "max"
    image = padded(values, window, x.fmt.min if largest else 0, dtype)
    combine = np.maximum if largest else np.add
    # First over the rows of each window, then over the columns of what is left.
    for axis in (1, 2):
        image = slide(combine, image, axis, window.kernel[axis - 1], window.stride[axis - 1])
    return image


def slide(
    combine: Callable[..., NDArray], image: NDArray, axis: int, kernel: int, stride: int
) -> NDArray:
    """Combine ``kernel`` neighbours along ``axis``, at every ``stride``-th place."""
    count = (image.shape[axis] - kernel) // stride + 1
    places = [slice(None)] * image.ndim
    result: NDArray | None = None
    for tap in range(kernel):
        places[axis] = slice(tap, tap + (count - 1) * stride + 1, stride)
        part = image[tuple(places)]
        result = part.copy() if result is None else combine(result, part, out=result)
    assert result is not None
    return result
