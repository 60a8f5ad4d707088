"""Layers that slide a window over an image, repeat its pixels or take them apart."""

from dataclasses import dataclass
from math import prod
from typing import Any, Self

from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.layers.base import Layer, Tensor, integers, spanning

__all__ = ["DepthToSpace", "Pool", "Upsample", "Window"]

POOLS = ("max", "sum", "average")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A window that slides over an image; see :class:`brambling.layers.Conv` for the terms."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def span(self) -> tuple[int, int]:
        """Rows and columns from the first to the last tap, both included."""
        down, across = ((n - 1) * d + 1 for n, d in zip(self.kernel, self.dilation, strict=True))
        return down, across

    @property
    def point(self) -> bool:
        """Whether every window is one pixel, and every pixel a window: nothing slides."""
        return self.kernel == self.stride == (1, 1) and not any(self.padding)

    def extent(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of windows that lie in the padded image."""
        top, bottom, left, right = self.padding
        rows = (height + top + bottom - self.span[0]) // self.stride[0] + 1
        return rows, (width + left + right - self.span[1]) // self.stride[1] + 1

    def check(self, layer: str, source: str, height: int, width: int) -> None:
        """Refuse what makes no sense on an image of that size; errors begin with ``layer``."""
        for key, least, wanted in (
            ("kernel", 1, 2),
            ("stride", 1, 2),
            ("dilation", 1, 2),
            ("padding", 0, 4),
        ):
            values = getattr(self, key)
            if not integers(values, wanted, least):
                raise ConfigError(
                    f"{layer}: {key} must be {wanted} integers of at least {least}, not {values}"
                )
        top, bottom, left, right = self.padding
        for what, span, step, size, pad in (
            ("rows", self.span[0], self.stride[0], height, (top, bottom)),
            ("columns", self.span[1], self.stride[1], width, (left, right)),
        ):
            if span > size + sum(pad):
                raise ConfigError(
                    f"{layer}: kernel spans {span} {what}, but {source!r} with padding has "
                    f"{size + sum(pad)}: pad more, or use a smaller kernel"
                )
            if max(pad) >= span:
                raise ConfigError(
                    f"{layer}: padding must be less than the {span} {what} that the kernel spans, "
                    f"not {max(pad)}"
                )
            if step > span and self.kernel != (1, 1):
                raise ConfigError(
                    f"{layer}: a stride of {step} {what} skips pixels, the kernel spans {span}: "
                    "use a stride that is no larger"
                )


@dataclass(frozen=True, eq=False, kw_only=True)
class Pool(Layer):
    """Largest element, sum or average of each channel over a sliding window.

    ``"average"`` is for windows of 2**n pixels without padding: its codes are the sums, its radix
    point lies n places further left, so it is exact. Any other average is a ``"sum"`` and a
    :class:`Requantise`. Padding takes no part: it is the smallest code for ``"max"``, else 0.

    Parameters
    ----------
    kind
        ``"max"``, ``"sum"`` or ``"average"``.
    kernel
        Rows and columns of the window; ``None`` for the whole image (global).
    stride
        ``None``: as the kernel.
    padding
        Rows above and below, columns left and right.
    """

    kind: str
    kernel: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        if self.kind not in POOLS:
            raise ConfigError(
                f"{self.name}: kind must be one of {', '.join(POOLS)}, not {self.kind!r}"
            )

    def window(self, x: Tensor) -> Window:
        """Return the window, for an input ``x``."""
        kernel = (x.shape[0], x.shape[1]) if self.kernel is None else self.kernel
        stride = kernel if self.stride is None else self.stride
        return Window(kernel=kernel, stride=stride, padding=self.padding)

    def output(self, *inputs: Tensor) -> Tensor:
        x = self._one(inputs)
        height, width, channels = self._image(x, self.inputs[0])
        window = self.window(x)
        window.check(self.name, self.inputs[0], height, width)
        rows, columns = window.extent(height, width)
        if self.kind == "max":
            return Tensor((rows, columns, channels), x.fmt)
        taps, frac = prod(window.kernel), x.fmt.frac
        if self.kind == "average":
            if taps & (taps - 1) or any(self.padding):
                raise ConfigError(
                    f"{self.name}: an average must be over 2**n pixels without padding, not {taps}"
                    f"{' with padding' if any(self.padding) else ''}: use kind 'sum' and a "
                    "Requantise that divides"
                )
            frac += taps.bit_length() - 1
        fmt = spanning(self.name, taps * x.fmt.min, taps * x.fmt.max, frac)
        return Tensor((rows, columns, channels), fmt)

    def attributes(self) -> dict[str, Any]:
        return {
            "pool": self.kind,  # In a file "kind" is that of the layer.
            "kernel": None if self.kernel is None else list(self.kernel),
            "stride": None if self.stride is None else list(self.stride),
            "padding": list(self.padding),
        }

    @classmethod
    def read(cls, attributes: dict[str, Any], arrays: dict[str, NDArray], **names: Any) -> Self:
        row = {"kind" if key == "pool" else key: value for key, value in attributes.items()}
        return super().read(row, arrays, **names)


@dataclass(frozen=True, eq=False, kw_only=True)
class Upsample(Layer):
    """Every pixel repeated ``factor`` times, down and across (nearest neighbour)."""

    factor: tuple[int, int]

    def __post_init__(self) -> None:
        if not integers(self.factor, 2, 1):
            raise ConfigError(
                f"{self.name}: factor must be 2 integers of at least 1, not {self.factor}"
            )

    def output(self, *inputs: Tensor) -> Tensor:
        x = self._one(inputs)
        height, width, channels = self._image(x, self.inputs[0])
        return Tensor((height * self.factor[0], width * self.factor[1], channels), x.fmt)

    def attributes(self) -> dict[str, Any]:
        return {"factor": list(self.factor)}


@dataclass(frozen=True, eq=False, kw_only=True)
class DepthToSpace(Layer):
    """Every pixel taken apart into a block of pixels, each with a part of its channels.

    Also called pixel shuffle. Of ``block`` rows by columns, with ``C`` channels each, the pixel in
    row ``i`` and column ``j`` has the channels from ``(i * columns + j) * C`` on: mode DCR of ONNX.
    In mode CRD these are the channels ``i * columns + j``, every ``rows * columns`` of them: it is
    the same with the channels in another order, which whatever makes them can have.
    """

    block: tuple[int, int]

    def __post_init__(self) -> None:
        if not integers(self.block, 2, 1):
            raise ConfigError(
                f"{self.name}: block must be 2 integers of at least 1, not {self.block}"
            )

    def output(self, *inputs: Tensor) -> Tensor:
        x = self._one(inputs)
        height, width, channels = self._image(x, self.inputs[0])
        rows, columns = self.block
        if channels % (rows * columns):
            raise ConfigError(
                f"{self.name}: a block of {rows} by {columns} pixels must divide the channels, but "
                f"{self.inputs[0]!r} is {x}"
            )
        return Tensor((height * rows, width * columns, channels // (rows * columns)), x.fmt)

    def attributes(self) -> dict[str, Any]:
        return {"block": list(self.block)}
