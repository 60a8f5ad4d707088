"""QONNX's operators in NumPy, in the float32 steps in which the ``qonnx`` package takes them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError

__all__ = ["ROUNDING", "run", "supported"]

Values = list[NDArray]


def _half_up(x: NDArray) -> NDArray:
    return np.sign(x) * np.floor(np.abs(x) + 0.5)


def _half_down(x: NDArray) -> NDArray:
    return np.sign(x) * np.ceil(np.abs(x) - 0.5)


#: Rounding modes by name, in capitals.
ROUNDING: Mapping[str, Callable[[NDArray], NDArray]] = {
    "ROUND": np.round,
    "HALF_EVEN": np.round,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda x: np.sign(x) * np.ceil(np.abs(x)),
    "DOWN": np.trunc,
    "HALF_UP": _half_up,
    "HALF_DOWN": _half_down,
}


def _rounding(attributes: Mapping[str, Any], default: str) -> Callable[[NDArray], NDArray]:
    name = str(attributes.get("rounding_mode", default))
    if name.upper() not in ROUNDING:
        raise ConfigError(f"rounding_mode {name!r}: one of {', '.join(ROUNDING)}")
    return ROUNDING[name.upper()]


def _range(bits: NDArray, *, signed: bool, narrow: bool) -> tuple[NDArray, NDArray]:
    """Return the least and the greatest integer of so many bits."""
    two = np.asarray(2, dtype=bits.dtype)
    if signed:
        return -(two ** (bits - 1)) + int(narrow), two ** (bits - 1) - 1
    return bits * 0, two**bits - (1 + int(narrow))


def _clamp(y: NDArray, low: NDArray, high: NDArray) -> NDArray:
    y = np.where(y > high, high.astype(y.dtype), y)
    return np.where(y < low, low.astype(y.dtype), y)


def _int_quant(inputs: Values, attributes: Mapping[str, Any], version: int) -> NDArray:
    x, scale, zero, bits = inputs
    signed, narrow = bool(attributes.get("signed", 1)), bool(attributes.get("narrow", 0))
    y = x / scale + zero
    rounded = _rounding(attributes, "ROUND")(_clamp(y, *_range(bits, signed=signed, narrow=narrow)))
    if signed:  # one signed bit stands for −1 and +1: old exports of Brevitas meant that
        one = np.ones((), dtype=y.dtype)
        rounded = np.where(bits == 1, np.where(y >= 0, one, -one), rounded)
    return ((rounded - zero) * scale).astype(np.float32)


def _bipolar_quant(inputs: Values, attributes: Mapping[str, Any], version: int) -> NDArray:
    x, scale = inputs
    one = np.ones((), dtype=x.dtype)
    return np.where(x >= 0, one, -one) * scale


def _trunc(inputs: Values, attributes: Mapping[str, Any], version: int) -> NDArray:
    if version >= 2:
        return _trunc_2(inputs, attributes)
    x, scale, zero, bits, out_bits = inputs
    y = np.round(x / scale + zero)
    y = _rounding(attributes, "FLOOR")(y / 2.0 ** (bits - out_bits))
    return (y - zero) * scale


def _trunc_2(inputs: Values, attributes: Mapping[str, Any]) -> NDArray:
    x, scale, zero, _, out_scale, out_bits = inputs
    signed, narrow = bool(attributes.get("signed", 1)), bool(attributes.get("narrow", 0))
    shift = 2 ** np.round(np.log2(out_scale / scale))
    y = np.round(x / scale + zero) / shift
    y = _rounding(attributes, "FLOOR")(_clamp(y, *_range(out_bits, signed=signed, narrow=narrow)))
    return (y - zero / shift) * out_scale


def _float_quant(inputs: Values, attributes: Mapping[str, Any], version: int) -> NDArray:
    x, scale, exponent, mantissa, bias, most = inputs
    x = x / scale
    grid = np.floor(np.log2(np.abs(x) + np.finfo(x.dtype).tiny)) - mantissa
    grid = np.exp2(np.maximum(grid, 1.0 - bias - mantissa))
    y = grid * _rounding(attributes, "ROUND")(x / grid)
    if mantissa.size != 1:
        raise ConfigError("mantissa's width: one number for the whole tensor")
    ones = np.sum(2.0 ** np.arange(0, np.float32(-1.0 * mantissa.item() - 1.0), -1.0))
    top = np.minimum(ones * 2 ** (2.0**exponent - 1.0 - bias), most)
    above, below, infinite = y > top, y < -top, np.isinf(y)
    y = np.clip(y, -top, top)
    if not attributes.get("saturation", 1):
        y = _overflow(y, attributes, above, below, infinite)
    return (y * scale).astype(np.float32)


def _overflow(
    y: NDArray, attributes: Mapping[str, Any], above: NDArray, below: NDArray, infinite: NDArray
) -> NDArray:
    """Return what a float quantiser that does not saturate makes of too large values."""
    if attributes.get("has_inf", 0):
        return np.where(above, np.inf, np.where(below, -np.inf, y))
    if attributes.get("has_nan", 0):
        return np.where(above | below | infinite, np.nan, y)
    raise ConfigError("saturation 0: needs has_inf or has_nan")


def _multithreshold(inputs: Values, attributes: Mapping[str, Any], version: int) -> NDArray:
    x, thresholds = inputs
    axis = channel_axis(str(attributes.get("data_layout", "")), x.ndim)
    v = x.swapaxes(axis, 1)
    channels = thresholds.shape[0]
    if thresholds.ndim != 2 or channels not in {1, v.shape[1]}:
        raise ConfigError(f"thresholds of shape {thresholds.shape}: must be (channels, steps)")
    count = np.zeros(v.shape, dtype=np.int64)
    for column in thresholds.T:  # one at a time: all at once would need so much more memory
        count += v >= column.reshape(channels, *(1,) * (v.ndim - 2))
    scale, bias = float(attributes.get("out_scale", 1.0)), float(attributes.get("out_bias", 0.0))
    return (scale * count.astype(x.dtype) + bias).swapaxes(axis, 1)


def channel_axis(layout: str, rank: int) -> int:
    """Return the axis of the channels; where no layout is given, that which QONNX supposes."""
    if rank < 2:
        raise ConfigError(f"a tensor of {rank} dimensions: needs a batch and channels")
    guessed = layout or {2: "NC", 3: "NWC", 4: "NCHW"}.get(rank, "")
    axis = guessed.find("C")
    axis = 1 if axis < 0 else axis
    if axis >= rank:
        raise ConfigError(f"data_layout {layout!r}: the tensor has {rank} dimensions")
    return axis


_OPS: Mapping[str, tuple[int | tuple[int, ...], Callable[..., NDArray]]] = {
    "IntQuant": (4, _int_quant),
    "BipolarQuant": (2, _bipolar_quant),
    "Trunc": ((5, 6), _trunc),
    "FloatQuant": (6, _float_quant),
    "MultiThreshold": (2, _multithreshold),
}


def supported() -> frozenset[str]:
    """Return the operators of QONNX's general domain that :func:`run` has."""
    return frozenset(_OPS)


def run(op: str, inputs: Values, attributes: Mapping[str, Any], version: int) -> NDArray:
    """Compute one of QONNX's quantisers."""
    counts, compute = _OPS[op]
    if op == "Trunc":
        counts = 6 if version >= 2 else 5
    if len(inputs) != counts:
        raise ConfigError(f"{len(inputs)} inputs: takes {counts}")
    with np.errstate(
        all="ignore"
    ):  # what comes of a scale of zero or NaN is no number, not a crash
        return np.asarray(compute(inputs, attributes, version))
