"""What every layer of a network has, and the tensors between layers."""

from dataclasses import MISSING, dataclass, fields
from math import prod
from typing import Any, ClassVar, Self, get_origin

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.quant.formats import Fixed, Format, parse_format

__all__ = ["Layer", "Tensor", "frozen", "integers", "spanning"]

LIMIT = 1 << 62  #: Every value and every sum on the way to it is smaller: int64 holds them.


@dataclass(frozen=True, slots=True)
class Tensor:
    """Shape (without the batch) and number format of the values on one edge of the network.

    Channels come last: ``(channels,)``, ``(height, width, channels)``; ``()`` is one value.
    """

    shape: tuple[int, ...]
    fmt: Format

    def __post_init__(self) -> None:
        if not all(type(n) is int and n > 0 for n in self.shape):
            raise ConfigError(f"a shape must be positive integers, not {self.shape}")

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape)) or 'scalar'}:{self.fmt}"


def frozen(array: NDArray, dtype: type[np.generic], what: str) -> NDArray:
    """Copy ``array`` as read-only ``dtype``; refuse what is not an integer or does not fit."""
    array = np.asarray(array)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ConfigError(f"{what}: values must be finite integers, not NaN or infinity")
    if array.dtype.kind not in "iu":
        raise ConfigError(f"{what}: values must be integers, not {array.dtype}")
    copy = array.astype(dtype)
    if not np.array_equal(copy, array):
        raise ConfigError(f"{what}: values must fit {np.dtype(dtype)}, not {array.dtype}")
    copy.setflags(write=False)
    return copy


def integers(values: object, count: int, least: int | None = None) -> bool:
    """Whether ``values`` is a tuple of ``count`` integers, none below ``least``."""
    return (
        isinstance(values, tuple)
        and len(values) == count
        and all(type(n) is int and (least is None or n >= least) for n in values)
    )


def spanning(layer: str, low: int, high: int, frac: int) -> Fixed:
    """Narrowest format of ``low`` to ``high``; errors begin with ``layer``."""
    if max(-low, high) >= LIMIT:
        raise ConfigError(f"{layer}: results of {low} to {high} could overflow 63 bits")
    return Fixed.spanning(low, high, frac)


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """A node of the network: ``inputs`` are the names of earlier layers, or ``"input"``.

    A subclass says what it makes of its inputs (:meth:`output`), which arrays are its parameters
    (:meth:`arrays`), and how it is written to a file (:meth:`attributes`, :meth:`read`). What its
    values are is the golden model's business, :mod:`brambling.sim.golden`.
    """

    name: str
    inputs: tuple[str, ...]

    kinds: ClassVar[dict[str, type["Layer"]]] = {}

    def __init_subclass__(cls, *, kind: bool = True) -> None:
        super().__init_subclass__()
        if kind:
            Layer.kinds[cls.__name__] = cls

    def output(self, *inputs: Tensor) -> Tensor:
        """Infer the output; raise :class:`ConfigError` where the inputs do not fit."""
        raise NotImplementedError

    def arrays(self) -> dict[str, NDArray]:
        """Parameters, as they are stored."""
        return {}

    def attributes(self) -> dict[str, Any]:
        """Everything else that :meth:`read` needs, as JSON."""
        return {}

    @classmethod
    def read(cls, attributes: dict[str, Any], arrays: dict[str, NDArray], **names: Any) -> Self:
        """Make the layer from what :meth:`attributes` and :meth:`arrays` returned.

        JSON has lists where the layer has tuples, and formats as text. What is missing has its
        default, if it has one.
        """
        row: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in attributes.items()
        }
        if "fmt" in row:
            row["fmt"] = parse_format(row["fmt"])
        parameters: dict[str, Any] = {**names, **row, **arrays}
        for field in fields(cls):
            if field.default is MISSING and field.name not in parameters:
                tensor = get_origin(field.type) is np.ndarray
                what = f"tensor {names['name']}.{field.name}" if tensor else field.name
                raise ConfigError(f"{names['name']}: {what} is missing")
        return cls(**parameters)

    def macs(self, *inputs: Tensor) -> int:
        """Multiply-accumulate operations of one frame; the taps of padding count too."""
        return 0

    @property
    def weight_bits(self) -> int:
        """Bits of weights, as stored on chip without compression."""
        return 0

    def _one(self, inputs: tuple[Tensor, ...]) -> Tensor:
        if len(inputs) != 1:
            raise ConfigError(f"{self.name}: needs one input, not {len(inputs)}")
        return inputs[0]

    def _image(self, x: Tensor, source: str) -> tuple[int, int, int]:
        """Height, width and channels of ``x``; refuse what is not an image."""
        if len(x.shape) != 3:
            raise ConfigError(
                f"{self.name}: needs an image (height, width, channels), but {source!r} is {x}"
            )
        height, width, channels = x.shape
        return height, width, channels
