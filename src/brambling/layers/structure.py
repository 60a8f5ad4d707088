"""Layers that join, cut or rearrange tensors, and the arg-max."""

from dataclasses import dataclass
from typing import Any

from brambling.errors import ConfigError
from brambling.layers.base import Layer, Tensor, spanning
from brambling.quant.formats import Fixed

__all__ = ["Add", "ArgMax", "Concat", "Flatten", "Slice"]


@dataclass(frozen=True, eq=False, kw_only=True)
class ArgMax(Layer):
    """Index of the largest element; of equal ones, the lowest index."""

    def output(self, *inputs: Tensor) -> Tensor:
        x = self._one(inputs)
        if len(x.shape) != 1:
            raise ConfigError(f"{self.name}: needs a vector, but {self.inputs[0]!r} is {x}")
        return Tensor((), Fixed.spanning(0, x.size - 1))


@dataclass(frozen=True, eq=False, kw_only=True)
class Join(Layer, kind=False):
    """What joins have in common: radix points are aligned by shifting each input to the left."""

    def _inputs(self, inputs: tuple[Tensor, ...]) -> int:
        """Return the common number of fractional bits; refuse fewer than two inputs."""
        if len(inputs) < 2:
            raise ConfigError(f"{self.name}: needs two inputs or more, not {len(inputs)}")
        shifts = self.shifts(*inputs)
        for source, x, shift in zip(self.inputs, inputs, shifts, strict=True):
            if x.fmt.width + shift > 63:
                raise ConfigError(
                    f"{self.name}: {source!r} is {x}, and shifted left by {shift} bits it could "
                    "overflow 63 bits: requantise it first"
                )
        return max(x.fmt.frac for x in inputs)

    @staticmethod
    def shifts(*inputs: Tensor) -> tuple[int, ...]:
        """Return how far each input is shifted to the left, in bits."""
        frac = max(x.fmt.frac for x in inputs)
        return tuple(frac - x.fmt.frac for x in inputs)


@dataclass(frozen=True, eq=False, kw_only=True)
class Add(Join):
    """Sum of tensors of one shape, exactly; their radix points may differ."""

    def output(self, *inputs: Tensor) -> Tensor:
        frac = self._inputs(inputs)
        for source, x in zip(self.inputs[1:], inputs[1:], strict=True):
            if x.shape != inputs[0].shape:
                raise ConfigError(
                    f"{self.name}: inputs must have one shape, but {self.inputs[0]!r} is "
                    f"{inputs[0]} and {source!r} is {x}"
                )
        shifts = self.shifts(*inputs)
        low = sum(x.fmt.min << n for x, n in zip(inputs, shifts, strict=True))
        high = sum(x.fmt.max << n for x, n in zip(inputs, shifts, strict=True))
        return Tensor(inputs[0].shape, spanning(self.name, low, high, frac))


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Join):
    """Channels of the first input, then of the next, and so on; radix points are aligned."""

    def output(self, *inputs: Tensor) -> Tensor:
        frac = self._inputs(inputs)
        for source, x in zip(self.inputs, inputs, strict=True):
            if not x.shape or x.shape[:-1] != inputs[0].shape[:-1]:
                raise ConfigError(
                    f"{self.name}: inputs must have one height and width, but {self.inputs[0]!r} "
                    f"is {inputs[0]} and {source!r} is {x}"
                )
        shape = (*inputs[0].shape[:-1], sum(x.shape[-1] for x in inputs))
        if all(x.fmt == inputs[0].fmt for x in inputs):
            return Tensor(shape, inputs[0].fmt)
        shifts = self.shifts(*inputs)
        low = min(x.fmt.min << n for x, n in zip(inputs, shifts, strict=True))
        high = max(x.fmt.max << n for x, n in zip(inputs, shifts, strict=True))
        return Tensor(shape, spanning(self.name, low, high, frac))


@dataclass(frozen=True, eq=False, kw_only=True)
class Slice(Layer):
    """Channels ``start`` to ``stop - 1``. A split is a slice for each part."""

    start: int
    stop: int

    def output(self, *inputs: Tensor) -> Tensor:
        x = self._one(inputs)
        channels = x.shape[-1] if x.shape else 0
        if type(self.start) is not int or type(self.stop) is not int:
            raise ConfigError(
                f"{self.name}: start and stop must be integers, "
                f"not {self.start!r} and {self.stop!r}"
            )
        if not 0 <= self.start < self.stop <= channels:
            raise ConfigError(
                f"{self.name}: start and stop must lie in 0 to {channels} in that order, "
                f"not {self.start} and {self.stop}"
            )
        return Tensor((*x.shape[:-1], self.stop - self.start), x.fmt)

    def attributes(self) -> dict[str, Any]:
        return {"start": self.start, "stop": self.stop}


@dataclass(frozen=True, eq=False, kw_only=True)
class Flatten(Layer):
    """An image as a vector, row by row, channels innermost; free in hardware."""

    def output(self, *inputs: Tensor) -> Tensor:
        x = self._one(inputs)
        return Tensor((x.size,), x.fmt)
