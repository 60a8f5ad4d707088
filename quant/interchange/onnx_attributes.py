"""Attributes of a node: of the right kind, and in range, before anything is made of them."""

from collections.abc import Collection, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from brambling.errors import ConfigError
from brambling.quant.interchange.graph import Node

__all__ = ["axis_of", "flag", "integer", "integers", "real", "refuse", "text"]

SHOWN = 40  #: Characters of a value in a message.
LARGEST = 2**31  #: No size in a network is larger.
FLOAT32 = float(np.finfo(np.float32).max)


def refuse(node: Node, key: str, rule: str, value: Any, remedy: str = "export it anew") -> Any:
    """Raise an error that says what an attribute must be, and what it is."""
    shown = "an array" if isinstance(value, np.ndarray) else repr(value)
    shown = shown if len(shown) <= SHOWN else shown[: SHOWN - 1] + "…"
    raise ConfigError(f"{node}: {key} must be {rule}, not {shown}: {remedy}")


def given(node: Node, key: str, default: Any) -> Any:
    """Return an attribute, or the default if there is one."""
    value = node.attributes.get(key, default)
    if value is None:
        raise ConfigError(f"{node}: has no {key}, which it needs: export it anew")
    return value


def integer(
    node: Node, key: str, default: int | None = None, least: int = -LARGEST, most: int = LARGEST
) -> int:
    """Return an attribute that is an integer; without a default it must be there."""
    value = given(node, key, default)
    if not isinstance(value, int) or not least <= value <= most:
        refuse(node, key, f"an integer of {least} to {most}", value)
    return value


def flag(node: Node, key: str, default: bool = False) -> bool:
    """Return an attribute that is 0 or 1."""
    value = given(node, key, int(default))
    if not isinstance(value, int) or value not in {0, 1}:
        refuse(node, key, "0 or 1", value)
    return bool(value)


def real(node: Node, key: str, default: float) -> Fraction:
    """Return an attribute that is a finite number, as the float32 that it is."""
    value = given(node, key, default)
    if not isinstance(value, int | float) or not abs(value) <= FLOAT32:  # which NaN is not
        refuse(node, key, "a finite number", value)
    return Fraction(float(np.float32(value)))


def text(node: Node, key: str, default: str, known: Collection[str] = ()) -> str:
    """Return an attribute that is text, one of ``known`` where those are given."""
    value = given(node, key, default)
    if not isinstance(value, str) or (known and value not in known):
        refuse(node, key, f"one of {', '.join(known)}" if known else "text", value)
    return value


def integers(
    node: Node, key: str, default: Sequence[int] | None = None, count: int | None = None
) -> tuple[int, ...]:
    """Return an attribute that is a list of integers, so many if ``count`` is given."""
    value = given(node, key, default)
    many = "" if count is None else f"{count} "
    if (
        not isinstance(value, Sequence)
        or not all(isinstance(n, int) for n in value)
        or count not in {None, len(value)}
    ):
        refuse(node, key, f"{many}integers", value)
    return tuple(value)


def axis_of(node: Node, default: int | None, rank: int, key: str = "axis") -> int:
    """Return an attribute that names a dimension of so many, counted from the first."""
    value = integer(node, key, default, -rank, rank - 1)
    return value % rank
