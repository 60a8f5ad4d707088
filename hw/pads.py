"""Pins as data, for Amaranth's platforms."""

from collections.abc import Iterable, Mapping
from typing import Any

from amaranth.build import Attrs, Clock, Pins, Resource, Subsignal
from amaranth.build.res import ResourceError

from brambling.errors import ConfigError

__all__ = ["request", "resource"]

ALONE = "io"  #: Name of the signal of a resource that is one pin.


def resource(
    name: str,
    number: int,
    pins: Iterable[tuple[str, str, str, bool]],
    *,
    connector: tuple[str, int] | None = None,
    hz: int | None = None,
    attrs: Mapping[str, str | int | bool] | None = None,
) -> Resource:
    """Return a resource of one pin each of the signals.

    Parameters
    ----------
    pins
        ``(signal, pin, direction, inverted)``; a signal ``"io"`` stands alone.
    connector
        What the pins are numbers of; else they are the package's.
    hz
        Clock that comes in.
    """
    more: list[Any] = [Attrs(**dict(attrs or {}))]
    if hz is not None:
        more.append(Clock(hz))
    made = [
        (signal, Pins(pin, dir=direction, invert=inverted, conn=connector, assert_width=1))
        for signal, pin, direction, inverted in pins
    ]
    if [signal for signal, _ in made] == [ALONE]:
        return Resource(name, number, made[0][1], *more)
    return Resource(name, number, *(Subsignal(signal, pin) for signal, pin in made), *more)


def request(platform: Any, names: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Any]:
    """Ask ``platform`` for resources; return their ports, without buffers.

    Raises
    ------
    ConfigError
        There is no such resource, or two of them have a pin in common.
    """
    try:
        return {
            (name, number): platform.request(name, number, dir="-")
            for name, number in dict.fromkeys(names)
        }
    except (ResourceError, NameError) as error:
        raise ConfigError(f"{error}: give it other pins in the board's file") from None
