"""Plain loops over fractions: what QONNX's operators do, and cases to try them on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, prod
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from brambling.quant.formats import Fixed

from .small_models import GENERAL, LAST, Maker

__all__ = [
    "BYTE", "CASES", "HALF", "ONE", "QUARTER", "ZERO", "Case", "Net", "case", "convolved",
    "exactly", "forms", "images", "quantised", "row", "slid", "whole",
]  # fmt: skip

QUARTER: Any = Fraction(1, 4)
HALF, ZERO, ONE = 2 * QUARTER, 0 * QUARTER, 4 * QUARTER
BYTE = Fixed(8, 0)


class Net(Maker):
    """A model whose input stands for quarters."""

    def __init__(self, *shape: int, opset: int = 13, version: int = 1, domain: str = GENERAL):
        super().__init__((1, *shape), opset)
        self.version, self.domain = version, domain

    def rounds(self, scale: Any = 0.25, bits: Any = 8, zero: Any = 0, op="Quant", **attributes):
        given = (self.const(value) for value in (scale, zero, bits))
        self.then(op, *given, domain=self.domain, **attributes)

    def whole(self, *values: int) -> str:
        return self.const(values, np.int64)

    def model(self, kind: int = TensorProto.FLOAT):
        model = super().model(kind)
        del model.opset_import[:]
        opsets = [("", self.opset), (self.domain, self.version), (LAST, 1)]
        model.opset_import.extend(helper.make_opsetid(*opset) for opset in opsets)
        return model


@dataclass(frozen=True, eq=False)
class Case:
    """A model, integers for its input, and what it makes of their quarters: fractions."""

    net: Net
    codes: Any
    expected: Any
    fmt: Fixed = BYTE
    kind: Any = TensorProto.FLOAT


CASES: dict[str, Callable[[], Iterator[Case]]] = {}


def case(function):
    CASES[function.__name__] = function
    return function


# Plain loops over fractions -----------------------------------------------------------------------


def row(*numbers: float):
    return np.array(numbers, np.float32)


def exactly(array: Any) -> Any:
    """Numbers, or fractions, as fractions."""
    array = np.asarray(array).astype(object)
    found = np.empty(array.shape, object)
    for place in np.ndindex(array.shape):
        found[place] = Fraction(array[place])
    return found


def whole(y, mode):
    """Round a fraction."""
    sign, size = (1 if y >= 0 else -1), abs(y)
    return {
        "ROUND": lambda: round(y),  # Python's own goes to even
        "HALF_EVEN": lambda: round(y),
        "CEIL": lambda: ceil(y),
        "FLOOR": lambda: floor(y),
        "UP": lambda: sign * ceil(size),
        "DOWN": lambda: sign * floor(size),
        "HALF_UP": lambda: sign * floor(size + HALF),
        "HALF_DOWN": lambda: sign * ceil(size - HALF),
    }[mode.upper()]()


def quantised(
    x, scale: Any = 0.25, bits: Any = 8, zero: Any = 0, signed=1, narrow=0, rounding_mode="ROUND"
):
    """IntQuant, element by element."""
    parts = [np.broadcast_to(exactly(np.float32(part)), x.shape) for part in (scale, zero, bits)]
    made = np.empty(x.shape, object)
    for place in np.ndindex(x.shape):
        s, z, b = (part[place] for part in parts)
        y = x[place] / s + z
        if signed and b == 1:
            code = 1 if y >= 0 else -1
        else:
            half = Fraction(2) ** (int(b) - 1)
            low, high = (-half + narrow, half - 1) if signed else (0, 2 * half - 1 - narrow)
            code = whole(min(max(y, low), high), rounding_mode)
        made[place] = (code - z) * s
    return made


def windows(x, kernel, stride=(1, 1), pads=(0, 0, 0, 0), dilation=(1, 1), value=ZERO):
    """Windows of images ``(n, c, h, w)``: place in the result, and ``(n, c, taps)``."""
    top, left, bottom, right = pads
    around = ((0, 0), (0, 0), (top, bottom), (left, right))
    full = np.pad(x, around, constant_values=value)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    counts = [(n - s) // t + 1 for n, s, t in zip(full.shape[2:], spans, stride, strict=True)]
    for i, j in np.ndindex(*counts):
        rows = slice(i * stride[0], i * stride[0] + spans[0], dilation[0])
        columns = slice(j * stride[1], j * stride[1] + spans[1], dilation[1])
        yield (i, j), counts, full[:, :, rows, columns].reshape(*x.shape[:2], -1)


def slid(x, make, channels, *args, **options):
    """Result of a function of windows, ``(n, channels)`` each."""
    made = None
    for (i, j), counts, window in windows(x, *args, **options):
        made = np.empty((len(x), channels, *counts), object) if made is None else made
        made[:, :, i, j] = make(window)
    assert made is not None
    return made


def convolved(x, w, groups=1, **options):
    """Convolution with ``w``, ``(outputs, channels of a group, h, w)``."""
    rows, size = exactly(w).reshape(len(w), -1), len(w) // groups

    def make(window):
        parts = window.reshape(len(window), groups, -1)
        return np.stack([(parts[:, o // size] * rows[o]).sum(1) for o in range(len(w))], 1)

    return slid(x, make, len(w), w.shape[2:], **options)


def forms(*rows: Any) -> Any:
    """Rows to try, one after the other."""
    return rows


def images(*shape, low=-30, high=31, count=4):
    """Random integers, and the quarters that they stand for."""
    codes = np.random.default_rng(prod(shape)).integers(low, high, (count, *shape))
    return codes, exactly(codes) * QUARTER
