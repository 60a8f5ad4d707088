"""Where a network came from: how its frames are made of another model's inputs, and its outputs.

A network made of a model of another tool keeps, in its provenance, what that model takes and gives:
shapes, layouts, and how real numbers become integer codes and back. With it, inputs and outputs of
both can be compared without knowing how either was made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.network import Network, Tensor

__all__ = ["KEY", "Decoding", "Encoding", "Layout", "Origin", "Rounding", "origin_of"]

KEY = "origin"  #: In a network's provenance.
NEAR = 1e-3  #: Of a step: how far from a multiple a number may be that stands for one.


@dataclass(frozen=True)
class Layout:
    """The order of a tensor's elements in the other model, and in the network.

    Parameters
    ----------
    shape
        There, without the batch.
    view, axes
        Reshaped to ``view`` and transposed to ``axes`` the elements are in the network's order.
    """

    shape: tuple[int, ...]
    view: tuple[int, ...]
    axes: tuple[int, ...]

    def to_network(self, values: NDArray) -> NDArray:
        """Bring a batch ``(n, *shape)`` into the network's order, ``(n, elements)``."""
        axes = (0, *(axis + 1 for axis in self.axes))
        return values.reshape(len(values), *self.view).transpose(axes).reshape(len(values), -1)

    def to_model(self, values: NDArray) -> NDArray:
        """Bring a batch ``(n, elements)`` back into the model's order, ``(n, *shape)``."""
        moved = [self.view[axis] for axis in self.axes]
        back = (0, *(int(axis) + 1 for axis in np.argsort(self.axes)))
        found = values.reshape(len(values), *moved).transpose(back)
        return found.reshape(len(values), *self.shape)


@dataclass(frozen=True)
class Rounding:
    """A quantiser: ``clip(round(x / scale + zero))``, in float32 as the model computes it.

    Parameters
    ----------
    kind
        ``"grid"``: numbers that must be multiples of the scale already, in float64; ``"round"``;
        ``"sign"``: +1 where ``x / scale + zero`` is at least 0, else -1; ``"levels"``: as many as
        are reached of ``levels``, or with a ``low`` of -1 the sign of one.
    scale, zero
        For each channel of the frame, or one for all.
    low, high
        Smallest and largest code, of each channel or of all.
    rounding
        See :mod:`brambling.quant.rounding`.
    behind
        Whether the zero is added behind the rounding.
    levels
        Of each channel, or of all.
    """

    kind: str
    scale: tuple[float, ...]
    zero: tuple[float, ...] = (0.0,)
    low: tuple[int, ...] = (0,)
    high: tuple[int, ...] = (255,)
    rounding: str = "half_even"
    behind: bool = False
    levels: tuple[tuple[float, ...], ...] = ()

    def codes(self, x: NDArray) -> NDArray[np.int64]:
        """Codes of a batch of frames."""
        if self.kind == "levels":
            counts = np.zeros(x.shape, np.int64)
            for level in np.array(self.levels, np.float32).T:
                counts += x.astype(np.float32) >= level
            return 2 * counts - 1 if self.low == (-1,) else counts
        kind = np.float64 if self.kind == "grid" else np.float32
        scale, zero = np.array(self.scale, kind), np.array(self.zero, kind)
        y = x.astype(kind) / scale
        if self.kind == "sign":
            return np.where(y + zero >= 0, 1, -1)
        y = y if self.behind else y + zero
        if self.kind == "grid":
            return self._exact(x, y)
        if not self.behind:
            y = np.clip(y, np.array(self.low, kind), np.array(self.high, kind))
        found = rounded(y, self.rounding) + (zero if self.behind else 0)
        return np.clip(found, self.low, self.high).astype(np.int64)

    def _exact(self, x: NDArray, y: NDArray) -> NDArray[np.int64]:
        found = np.rint(y)
        wrong = ~(np.abs(y - found) <= NEAR) | (found < self.low) | (found > self.high)
        if wrong.any():
            image = int(np.argwhere(wrong)[0][0])
            value = x[tuple(np.argwhere(wrong)[0])]
            raise ConfigError(
                f"image {image}: {value:g} must be one of {self.low[0]} to {self.high[0]} times "
                f"{self.scale[0]:g}: give images in the model's own domain, or its integers"
            )
        return found.astype(np.int64)


def rounded(y: NDArray, rounding: str) -> NDArray:
    """Round an array, in its own type; see :mod:`brambling.quant.rounding`."""
    match rounding:
        case "half_even":
            return np.rint(y)
        case "half_up":
            return np.floor(y + y.dtype.type(0.5))
        case "half_away":
            return np.sign(y) * np.floor(np.abs(y) + y.dtype.type(0.5))
        case "half_zero":
            return np.sign(y) * np.ceil(np.abs(y) - y.dtype.type(0.5))
        case "floor":
            return np.floor(y)
        case "ceil":
            return np.ceil(y)
        case "away":
            return np.sign(y) * np.ceil(np.abs(y))
        case "zero":
            return np.trunc(y)
    raise ConfigError(f"rounding must be that of a quantiser, not {rounding!r}")


@dataclass(frozen=True)
class Encoding:
    """How frames are made: operations in float32, one after the other, then a quantiser.

    Parameters
    ----------
    steps
        ``(operation, numbers)``: ``"add"``, ``"sub"``, ``"mul"`` or ``"div"`` with a number for
        each channel of the frame, or one for all.
    """

    layout: Layout
    steps: tuple[tuple[str, tuple[float, ...]], ...]
    quantiser: Rounding

    def frames(self, x: NDArray, tensor: Tensor) -> NDArray[np.int64]:
        """Make frames ``(n, *shape)`` of a batch in the model's domain, or of a grid's integers."""
        if x.ndim < 1 or len(x) == 0:
            raise ConfigError(f"images must be a batch of at least one, not of shape {x.shape}")
        if x.dtype.kind not in "iuf" or (x.dtype.kind == "f" and not np.isfinite(x).all()):
            raise ConfigError(f"images must be finite numbers, not {x.dtype} with NaN or infinity")
        values = self._laid_out(x, tensor).reshape(len(x), *tensor.shape)
        if self.quantiser.kind == "grid" and x.dtype.kind in "iu":
            return values.astype(np.int64)
        values = values.astype(np.float64 if self.quantiser.kind == "grid" else np.float32)
        operations = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
        for name, numbers in self.steps:
            values = operations[name](values, np.array(numbers, values.dtype))
        return self.quantiser.codes(values)

    def reals(self, x: NDArray) -> NDArray:
        """Return a batch as the model takes it: of a grid's integers the numbers they stand for."""
        if self.quantiser.kind != "grid" or x.dtype.kind not in "iu":
            return x
        scale, zero = self.quantiser.scale[0], self.quantiser.zero[0]
        return ((x.astype(np.float64) - zero) * scale).astype(np.float32)

    def _laid_out(self, x: NDArray, tensor: Tensor) -> NDArray:
        if x.shape[1:] == self.layout.shape:
            return self.layout.to_network(x)
        same = prod(x.shape[1:]) == tensor.size
        if x.shape[1:] == tensor.shape or (same and sum(n > 1 for n in x.shape[1:]) < 3):
            return x.reshape(len(x), -1)
        raise ConfigError(
            f"images must be of shape {self.layout.shape} as in the original model, or "
            f"{tensor.shape} as in the network, not {x.shape[1:]}"
        )


@dataclass(frozen=True)
class Decoding:
    """What the integers of the output stand for: ``gain * n + offset``, and what comes behind.

    Parameters
    ----------
    edge
        Of the network, whose integers these are.
    gain, offset
        For each element in the network's order, or one for all.
    steps
        ``("clip", (low, high))``, ``("leak", slopes)`` or ``("affine", (gain, offset))``, with
        numbers for each element or for all; applied in order.
    last
        ``"softmax"`` or ``"logsoftmax"`` of the elements, in float64; ``"argmax"`` where they are
        the index of a class; else ``""``.
    """

    edge: str
    layout: Layout
    gain: tuple[float, ...]
    offset: tuple[float, ...]
    steps: tuple[tuple[str, tuple[tuple[float, ...], ...]], ...] = ()
    last: str = ""

    def reals(self, integers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return outputs as the model has them, float64, of the edge's ``(n, elements)``."""
        if self.last == "argmax":
            return self.layout.to_model(integers.reshape(-1, 1)).astype(np.float64)
        y = integers * np.array(self.gain) + np.array(self.offset)
        for name, numbers in self.steps:
            first, second = (np.array(row) for row in (*numbers, *numbers[:1])[:2])
            match name:
                case "clip":
                    y = np.clip(y, first, second)
                case "leak":
                    y = np.where(y >= 0, y, y * first)
                case "affine":
                    y = y * first + second
        if self.last:
            y -= y.max(axis=1, keepdims=True)
            total = np.exp(y).sum(axis=1, keepdims=True)
            y = np.exp(y) / total if self.last == "softmax" else y - np.log(total)
        return self.layout.to_model(y)


@dataclass(frozen=True)
class Origin:
    """The model that a network was made of.

    Parameters
    ----------
    form
        ``"qonnx"`` or ``"tflite"``.
    input, output
        See :class:`Encoding` and :class:`Decoding`.
    notes
        What was left out, in words.
    """

    form: str
    input: Encoding
    output: Decoding
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as lists, numbers and text."""
        return asdict(self)

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> Self:
        """Make it of what :meth:`to_json` returned, lists for tuples."""
        given: Any = facts["input"]
        made: Any = facts["output"]
        quantiser: Any = {
            key: tuple(value) if isinstance(value, list | tuple) else value
            for key, value in given["quantiser"].items()
        }
        quantiser["levels"] = tuple(tuple(row) for row in quantiser["levels"])
        steps = tuple((str(name), tuple(numbers)) for name, numbers in given["steps"])
        behind = tuple(
            (str(name), tuple(tuple(row) for row in numbers)) for name, numbers in made["steps"]
        )
        return cls(
            str(facts["form"]),
            Encoding(layout_of(given["layout"]), steps, Rounding(**quantiser)),
            Decoding(
                str(made["edge"]),
                layout_of(made["layout"]),
                tuple(made["gain"]),
                tuple(made["offset"]),
                behind,
                str(made["last"]),
            ),
            tuple(facts["notes"]),
        )


def layout_of(facts: Mapping[str, Sequence[int]]) -> Layout:
    return Layout(tuple(facts["shape"]), tuple(facts["view"]), tuple(facts["axes"]))


def origin_of(network: Network) -> Origin | None:
    """Return where a network came from, if its provenance tells."""
    facts = network.provenance.get(KEY)
    if facts is None:
        return None
    try:
        return Origin.read(facts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{network.name}: its origin is damaged ({error!r})") from None
