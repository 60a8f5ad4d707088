"""Board files: what each one may say, strictly read.

A board is one TOML file, ``boards/catalogue/NAME.toml``. Its keys are the fields of
:class:`~brambling.boards.parts.Board`, those of its tables the fields of the classes here. Pins
that the board's platform already has are named, as ``"uart.0"`` or ``"rgb_led.0.g"``; others are
data.
"""

import os
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Self, TypeVar, cast, get_args, get_origin

from brambling.errors import ConfigError, FileProblem

__all__ = [
    "FOLDER",
    "LINKS",
    "Attributes",
    "Constant",
    "Link",
    "Pin",
    "Ref",
    "Resource",
    "fill",
    "read",
]

FOLDER = Path(__file__).parent
LINKS = ("uart", "spi")
DIRECTIONS = ("i", "o", "oe")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ref:
    """A resource of the platform, or one signal of it: ``"led.0"``, ``"rgb_led.0.g"``."""

    name: str
    number: int
    signal: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``NAME.NUMBER`` or ``NAME.NUMBER.SIGNAL``."""
        name, *rest = text.split(".")
        if not name or not rest or not rest[0].isdecimal() or len(rest) > 2 or not rest[-1]:
            raise ConfigError(f"a resource is NAME.NUMBER or NAME.NUMBER.SIGNAL, not {text!r}")
        return cls(name, int(rest[0]), *rest[1:])

    def __str__(self) -> str:
        signal = "" if self.signal is None else f".{self.signal}"
        return f"{self.name}.{self.number}{signal}"


@dataclass(frozen=True, slots=True)
class Attributes:
    """Names with values, in order: of a pin (``IO_TYPE``), or of a platform (``device``)."""

    items: tuple[tuple[str, str | int | bool], ...] = ()

    @classmethod
    def parse(cls, table: dict[str, Any]) -> Self:
        """Take a table of texts, integers and booleans."""
        for key, value in table.items():
            if type(value) not in {str, int, bool}:
                raise ConfigError(f"{key} must be a text, an integer or a boolean, not {value!r}")
        return cls(tuple(table.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One pin of a resource.

    Parameters
    ----------
    signal
        Name of the signal in the resource; ``"io"``: the resource is this one pin.
    pin
        Ball or pin of the package, or of the connector.
    dir
        ``"i"``, ``"o"`` or ``"oe"``, as the FPGA sees it.
    invert
        Whether it is active low.
    """

    signal: str
    pin: str
    dir: str
    invert: bool = False

    def __post_init__(self) -> None:
        if self.dir not in DIRECTIONS:
            raise ConfigError(
                f"{self.signal}: dir must be one of {', '.join(DIRECTIONS)}, not {self.dir!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """Pins that the platform does not name.

    Parameters
    ----------
    connector
        ``"pmod.0"``: pins are those of this connector, which the platform has.
    hz
        Clock that comes in here.
    attrs
        Of all pins: ``IO_TYPE``, ``PULLMODE``, as the vendor calls them.
    """

    name: str
    number: int
    pins: tuple[Pin, ...]
    connector: Ref | None = None
    hz: int | None = None
    attrs: Attributes = Attributes()

    def __post_init__(self) -> None:
        signals = [pin.signal for pin in self.pins]
        if len(set(signals)) != len(signals) or ("io" in signals and len(signals) > 1):
            raise ConfigError(
                f"{self.name}.{self.number}: signals must differ, and io stands alone, "
                f"not {', '.join(signals)}"
            )
        if self.hz is not None and signals != ["io"]:
            raise ConfigError(
                f"{self.name}.{self.number}: a clock is one pin, io, not {', '.join(signals)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A way in and out.

    Parameters
    ----------
    kind
        ``"uart"`` or ``"spi"``; of the latter the FPGA is the peripheral.
    baud
        Bits a second that the host uses unless told otherwise.
    wiring
        What to plug in where, for people.
    """

    kind: str
    resource: Ref
    baud: int
    wiring: str

    def __post_init__(self) -> None:
        if self.kind not in LINKS:
            raise ConfigError(f"kind must be one of {', '.join(LINKS)}, not {self.kind!r}")
        if self.baud < 1:
            raise ConfigError(f"baud must be at least 1, not {self.baud}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """An output that must be held at a level for the board to work."""

    resource: Ref
    value: int

    def __post_init__(self) -> None:
        if self.value not in {0, 1}:
            raise ConfigError(f"value must be 0 or 1, not {self.value}")


# Reading ----------------------------------------------------------------------------------------


def convert(expected: Any, value: Any, where: str) -> Any:
    """Return ``value`` of a TOML file as ``expected``; :class:`ConfigError` where it is not."""
    if get_origin(expected) is UnionType:
        expected = next(kind for kind in get_args(expected) if kind is not NoneType)
    if get_origin(expected) is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{where} must be a list, not {value!r}")
        inner = get_args(expected)[0]
        return tuple(convert(inner, item, f"{where}[{n}]") for n, item in enumerate(value))
    written = {Ref: str, Attributes: dict}.get(expected, expected)
    if written is expected and is_dataclass(expected):
        return fill(cast("type", expected), value, where)
    if type(value) is not written:
        raise ConfigError(f"{where} must be {written.__name__}, not {value!r}")
    try:
        return value if written is expected else expected.parse(value)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def values(kind: Any, table: Any, where: str, given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a table, not {table!r}")
    known = {field.name: field for field in fields(kind) if field.name not in given}
    for key in table:
        if key not in known:
            raise ConfigError(f"{where}: keys are {', '.join(known)}, not {key!r}")
    for key, field in known.items():
        if key in table:
            yield key, convert(field.type, table[key], f"{where}: {key}")
        elif field.default is MISSING:
            raise ConfigError(f"{where}: {key} is missing")


def fill(kind: type[T], table: Any, where: str, **given: Any) -> T:
    """Make a dataclass of a table; :class:`ConfigError` for an unknown, missing or mistyped key.

    Parameters
    ----------
    where
        What the table is, for messages.
    given
        Fields that the table may not have.
    """
    found = dict(values(kind, table, where, given))
    try:
        return kind(**given, **found)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read one TOML file; :class:`FileProblem` where it is none."""
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileProblem(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise FileProblem(f"{path}: a board must be UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise FileProblem(f"{path}: not TOML ({error})") from None
