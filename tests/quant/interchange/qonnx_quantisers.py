"""Random quantisers of three dialects, for random QONNX graphs."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .qonnx_build import GENERAL, Builder, Value

__all__ = ["ROUNDINGS", "Integers", "Weights", "bias", "quantise", "requantise", "trunc", "weights"]

ROUNDINGS = ("ROUND", "FLOOR", "CEIL", "HALF_EVEN", "UP", "DOWN", "HALF_UP", "HALF_DOWN")
WIDTHS = (8, 4, 2, 3, 5, 6, 7, 8, 6, 4, 3, 1)
EXACT_WIDTHS = (4, 3, 2, 4, 3, 4, 3, 1)


@dataclass(frozen=True)
class Integers:
    """Range and rounding of a quantiser.

    Parameters
    ----------
    bits, signed, narrow
        Range of the codes.
    rounding
        One of :data:`ROUNDINGS`.
    zero
        Code of zero.
    """

    bits: int
    signed: bool
    narrow: bool = False
    rounding: str = "ROUND"
    zero: int = 0

    @property
    def limits(self) -> tuple[int, int]:
        if self.signed:
            half = 1 << self.bits - 1
            return -half + self.narrow, half - 1
        return 0, (1 << self.bits) - 1 - self.narrow


@dataclass(frozen=True)
class Weights:
    """Quantised weights.

    Parameters
    ----------
    name
        Of the tensor that a product reads.
    spread
        Roughly the standard deviation of its elements.
    scale
        Of the codes: one number, or one for each output.
    """

    name: str
    spread: float
    scale: NDArray


def width(b: Builder) -> int:
    """Bits of a quantiser."""
    return b.choices.pick(EXACT_WIDTHS if b.style.exact else WIDTHS)


# QONNX --------------------------------------------------------------------------------------------


def int_quant(b: Builder, x: Value, integers: Integers, scale: NDArray) -> Value:
    """Add an integer quantiser."""
    old = b.style.domain != GENERAL
    rounding, choices = integers.rounding, b.choices
    attributes: dict = {"signed": int(integers.signed), "narrow": int(integers.narrow)}
    if rounding != "ROUND" or choices.chance(50):
        attributes["rounding_mode"] = rounding.lower() if choices.chance(20) else rounding
    made = b.apply(
        "Quant" if old or choices.chance(50) else "IntQuant",
        x,
        b.constant(scale),
        b.constant(np.full(choices.pick([(), scale.shape]), integers.zero)),
        b.constant(integers.bits, np.int64 if choices.chance(10) else np.float32),
        domain=b.style.domain,
        **attributes,
    )
    positive = not integers.signed and not integers.zero
    return replace(made, bits=integers.bits, scale=scale, positive=positive)


def bipolar(b: Builder, x: Value, scale: NDArray) -> Value:
    """Add a quantiser to two values."""
    made = b.apply("BipolarQuant", x, b.constant(scale), domain=b.style.domain)
    return replace(made, bits=1, scale=scale)


def integers_for(b: Builder, positive: bool) -> Integers:
    """Range and rounding for an activation."""
    choices, bits = b.choices, width(b)
    signed = choices.chance(15) and bits > 1 if positive else not choices.chance(15)
    narrow = choices.chance(25) and bits > 1
    made = Integers(
        bits, signed, narrow, choices.pick(ROUNDINGS) if choices.chance(60) else "ROUND"
    )
    shifted = bits > 1 and (signed == positive or choices.chance(10))
    low, high = made.limits
    return replace(made, zero=int(b.rng.integers(low, high + 1))) if shifted else made


def step(x: Value, integers: Integers) -> float:
    """Distance of codes that covers a value's range."""
    low, high = integers.limits
    reach = 2 if x.positive and not integers.zero else 4
    return x.spread * min(reach / max(high - low, 1), 0.7)


def sized(b: Builder, x: Value, scale: NDArray) -> NDArray:
    """One scale in one of the shapes that files have."""
    return scale.reshape(b.choices.pick([(), (1,), (1,) * len(x.shape)]))


# Thresholds ---------------------------------------------------------------------------------------


def thresholds(b: Builder, x: Value) -> Value:
    """Add a count of thresholds, as FINN has it."""
    choices, bits = b.choices, width(b)
    rows = choices.pick([x.channels, 1])
    levels = np.sort(b.numbers((rows, 2**bits - 1), x.spread), axis=1)
    levels = np.abs(levels)[:, ::-1] if x.positive else levels
    scale, offset, kind = 1.0, 0.0, f"UINT{bits}"
    if bits == 1:
        scale, offset, kind = 2.0, -1.0, "BIPOLAR"
    elif choices.chance(40):
        offset, kind = -(2.0 ** (bits - 1)), f"INT{bits}"
    if choices.chance(30):
        factor = float(b.scale(x.spread / 2 ** (bits - 1)))
        scale, offset = scale * factor, offset * factor
    layout = {2: "NC", 3: "NCW", 4: "NCHW"}[len(x.shape)]
    attributes: dict = {"out_dtype": kind, "data_layout": layout}
    if (scale, offset) != (1, 0) or choices.chance(20):
        attributes |= {"out_scale": scale, "out_bias": offset}
    made = b.apply("MultiThreshold", x, b.constant(levels), domain=b.style.domain, **attributes)
    spread = scale * 2.0 ** (bits - 1)
    scale = np.float32(scale).reshape(())
    return replace(made, spread=spread, bits=bits, scale=scale, positive=not offset)


# QCDQ ---------------------------------------------------------------------------------------------


def qcdq(b: Builder, x: Value, integers: Integers, scale: NDArray, axis: int = 1) -> Value:
    """Add ``QuantizeLinear``, ``Clip`` where the range is not that of the type, the way back."""
    dtype = np.int8 if integers.signed else np.uint8
    low, high = integers.limits
    zeros = np.full(scale.shape, integers.zero)
    parameters = [b.constant(scale), b.constant(zeros, dtype)]
    attributes: dict = {"axis": axis} if scale.ndim else {}
    (name,) = b.add("QuantizeLinear", [x.name, *parameters], **attributes)
    if (low, high) != (np.iinfo(dtype).min, np.iinfo(dtype).max):
        (name,) = b.add("Clip", [name, b.constant(low, dtype), b.constant(high, dtype)])
    (name,) = b.add("DequantizeLinear", [name, *parameters], **attributes)
    positive = not integers.signed and not integers.zero
    return Value(name, x.shape, x.spread, integers.bits, scale, positive)


def clips(b: Builder) -> bool:
    """Whether ``Clip`` takes integers, and quantisers an axis."""
    return b.style.opset >= 13


def stored(b: Builder, raw: NDArray, integers: Integers, scale: NDArray, axis: int) -> str:
    """Add weights that lie in the file as integers, and their way to numbers."""
    shape = [-1 if n == axis and scale.ndim else 1 for n in range(raw.ndim)]
    codes = np.clip(np.round(raw / scale.reshape(shape)), *integers.limits)
    zero = [b.constant(np.zeros(scale.shape), np.int8)] if b.choices.chance(50) else []
    name = b.constant(codes, np.int8)
    if clips(b) and b.choices.chance(50):  # as Brevitas does
        low, high = (b.constant(limit, np.int8) for limit in integers.limits)
        (name,) = b.add("Clip", [name, low, high])
    names = [name, b.constant(scale), *zero]
    attributes: dict = {"axis": axis} if scale.ndim else {}
    return b.add("DequantizeLinear", names, **attributes)[0]


# What layers use ----------------------------------------------------------------------------------


def quantise(b: Builder, x: Value) -> Value:
    """Add a quantiser of an activation, with one scale."""
    if b.style.dialect == "finn" and not b.choices.chance(20):
        return thresholds(b, x)
    integers = integers_for(b, x.positive)
    if b.style.dialect == "qcdq":
        integers = replace(integers, rounding="ROUND", bits=integers.bits if clips(b) else 8)
        integers = integers if clips(b) else replace(integers, narrow=False)
        low, high = integers.limits
        integers = replace(integers, zero=min(max(integers.zero, low), high))
        return qcdq(b, x, integers, b.scale(step(x, integers)))
    if not x.positive and b.choices.chance(10):
        return bipolar(b, x, sized(b, x, b.scale(x.spread)))
    return int_quant(b, x, integers, sized(b, x, b.scale(step(x, integers))))


def requantise(b: Builder, x: Value) -> Value:
    """Add a quantiser with a scale for each channel."""
    integers = integers_for(b, x.positive)
    about = step(x, integers) * b.rng.uniform(0.5, 2, x.channels)
    scale = b.scale(about).reshape(1, -1, *(1 for _ in x.space))
    return int_quant(b, x, integers, scale)


def weights(b: Builder, shape: tuple[int, ...], axis: int) -> Weights:
    """Add weights whose outputs lie along an axis."""
    choices, dialect = b.choices, b.style.dialect
    spread = float(b.rng.uniform(0.1, 1))
    raw = (b.rng.normal(size=shape) * spread).astype(np.float32)
    if dialect == "finn" and choices.chance(60):
        codes = np.clip(np.round(raw / np.float32(spread) * 2), -7, 7)
        return Weights(b.constant(codes), 2, np.ones((), np.float32))
    integers = Integers(width(b), True, choices.chance(40), "ROUND")
    if choices.chance(25):
        integers = replace(integers, rounding=choices.pick(ROUNDINGS))
    channels = shape[axis] if choices.chance(50) else 1
    ramp = b.rng.uniform(0.5, 2, channels) if channels > 1 else np.ones(1)
    scale = b.scale(spread * ramp * 5 / (2**integers.bits - 1))
    if dialect == "qcdq":
        return Weights(_qcdq_weights(b, raw, integers, scale, axis), spread, scale)
    x = Value(b.constant(raw), shape, spread)
    around = [-1 if n == axis else 1 for n in range(len(shape))] if channels > 1 else []
    if integers.bits == 1 and choices.chance(50):
        return Weights(bipolar(b, x, scale.reshape(around)).name, float(scale[0]), scale)
    if choices.chance(5):
        integers = replace(integers, signed=False, zero=int(integers.bits > 1))
    elif choices.chance(5) and integers.bits > 1:
        integers = replace(integers, zero=1)
    return Weights(int_quant(b, x, integers, scale.reshape(around)).name, spread, scale)


def _qcdq_weights(b: Builder, raw: NDArray, integers: Integers, scale: NDArray, axis: int) -> str:
    if not clips(b) or scale.size == 1:
        scale = scale[0].reshape(())
    bits = max(integers.bits, 2) if clips(b) else 8
    integers = replace(integers, bits=bits, narrow=integers.narrow and clips(b), rounding="ROUND")
    if b.choices.chance(50) or not clips(b):
        return stored(b, raw, integers, scale, axis)
    return qcdq(b, Value(b.constant(raw), raw.shape, 1), integers, scale, axis).name


def bias(b: Builder, count: int, x: Value, made: Weights, spread: float) -> str:
    """Add a bias: plain, or quantised with the scale of the products."""
    values = b.numbers((count,), spread)
    plain = x.scale is None or x.scale.size > 1 or b.style.dialect == "finn"
    if plain or b.choices.chance(40):
        return b.constant(values)
    assert x.scale is not None
    scale = (x.scale.reshape(()) * made.scale.reshape(-1)).astype(np.float32)
    scale = scale if scale.size == count else scale[0].reshape(())
    if b.style.dialect == "qcdq":
        codes = np.round(values / scale).clip(-(2**20), 2**20)
        scale = scale if clips(b) else scale.reshape(-1)[0]
        attributes: dict = {"axis": 0} if scale.ndim else {}
        names = [b.constant(codes, np.int32), b.constant(scale)]
        return b.add("DequantizeLinear", names, **attributes)[0]
    integers = Integers(b.choices.pick([16, 8, 12]), True, b.choices.chance(30))
    return int_quant(b, Value(b.constant(values), (count,), spread), integers, scale).name


def trunc(b: Builder, x: Value, count: int, share: float) -> Value:
    """Add what makes a sum of codes an average: the sum without its low bits.

    ``share`` is 1 where the value is the sum of ``count`` codes, or one part in ``count``.
    """
    assert x.scale is not None
    extra = int(np.ceil(np.log2(count)))
    scale = np.asarray(x.scale.reshape(()) * np.float32(share))
    zero, before, after = b.constant(0), b.constant(x.bits + extra), b.constant(x.bits)
    names = [b.constant(scale), zero, before]
    rounding = b.choices.pick(["FLOOR", "ROUND", "CEIL"])
    attributes: dict = {"rounding_mode": rounding.lower() if b.choices.chance(30) else rounding}
    if b.style.trunc > 1:
        scale = np.asarray(scale * np.float32(2**extra))
        names.append(b.constant(scale))
        attributes |= {"signed": b.choices.integer(0, 1), "narrow": b.choices.integer(0, 1)}
    made = b.apply("Trunc", x, *names, after, domain=b.style.domain, **attributes)
    return replace(made, bits=x.bits, scale=scale, positive=x.positive)
