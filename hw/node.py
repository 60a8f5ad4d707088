"""The components of an accelerator and how they are joined, before there is hardware for them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from amaranth.lib import stream
from numpy.typing import NDArray

from brambling.hw.beat import Beats
from brambling.plan import Step

__all__ = ["Edge", "Node", "Port", "Spec", "stream_of"]


class Spec(Protocol):
    """What is known of a component before there is hardware for it."""

    @property
    def o(self) -> Beats: ...
    def build(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Port:
    """An output of a component: its only one, or one of several."""

    node: str
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A component: an engine (with its step), or what joins engines.

    Parameters
    ----------
    sources
        What feeds its inputs, in order; none for the one at the accelerator's input.
    """

    name: str
    spec: Any
    sources: tuple[Port, ...] = ()
    step: Step | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge of the network where it can be seen in the hardware.

    Parameters
    ----------
    name
        The layer that makes it, or ``"input"``.
    node, port
        The component and its stream.
    beats
        How the stream carries it.
    decode
        From what the stream carries, ``(n, elements)``, to the codes of the edge.
    """

    name: str
    node: str
    port: str
    beats: Beats
    decode: Callable[[NDArray[np.int64]], NDArray[np.int64]] = lambda codes: codes


def stream_of(component: Any, side: str, index: int | None) -> stream.Interface:
    """Return a component's stream ``i`` or ``o``, or one of ``i0``, ``i1``, …."""
    return getattr(component, side if index is None else f"{side}{index}")
