"""What a simulation is asked to do, and what was seen: the same for every engine."""

import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np
from amaranth.hdl import UnusedElaboratable, Value
from amaranth.lib import wiring
from numpy.typing import ArrayLike, NDArray

from brambling.errors import BramblingError, ConfigError, FileProblem, Mismatch
from brambling.sim.progress import Progress

__all__ = ["Design", "EdgeTrace", "Job", "OutOfCycles", "Runner", "Trace", "pattern", "waveform"]

RESET_CYCLES = 2  #: Clock edges with ``rst`` high before cycle 0.
NAME = re.compile(r"[a-z][a-z0-9_]*")  #: Needs no escape in Verilog, and no mangling but of ``_``.

# Patterns -----------------------------------------------------------------------------------------

DENSITIES = (0.1, 0.3, 0.6, 0.9)  #: Of "random": each stretch of 32 cycles has one of them.
BURST = 16  #: Longest run of a "burst".


def pattern(kind: str, seed: int = 0, length: int = 997) -> NDArray[np.bool_]:
    """Return flags by cycle for :class:`Job`, the same for the same arguments.

    ``"none"``: always; ``"alternate"``: every other cycle; ``"random"``: stretches of several
    densities; ``"burst"``: runs of random length, on and off. The default length is a prime, so
    that two patterns, or a pattern and a frame, do not fall into step.
    """
    if length < 1:
        raise ConfigError(f"length must be at least 1, not {length}")
    rng = np.random.default_rng(seed)
    match kind:
        case "none":
            flags = np.ones(length, np.bool_)
        case "alternate":
            flags = (np.arange(length) + seed) % 2 == 0
        case "random":
            density = np.repeat(rng.choice(DENSITIES, -(-length // 32)), 32)[:length]
            flags = rng.random(length) < density
        case "burst":
            runs = rng.integers(1, BURST + 1, length)
            flags = np.repeat(np.arange(length) % 2 == 0, runs)[:length]
        case _:
            raise ConfigError(f"pattern must be none, alternate, random or burst, not {kind!r}")
    flags[seed % length] = True  # Never a pattern without any.
    flags.setflags(write=False)
    return flags


def _flags(flags: ArrayLike, what: str) -> NDArray[np.bool_]:
    array = np.array(flags, np.bool_)
    if array.ndim != 1 or not array.size:
        raise ConfigError(f"{what} must be a row of flags, not of shape {array.shape}")
    array.setflags(write=False)
    return array


# What to do ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class Job:
    """What the world outside the design does.

    Cycle 0 is the first clock edge at which ``rst`` is low; a beat is transferred in cycle t if
    valid and ready are high just before that edge. The source holds a beat that it has offered,
    unchanged, until it is taken; it may offer the next one in the cycle right after.

    Parameters
    ----------
    beats
        Payload bits of the input beats, ``uint8 (n, bytes)``, least significant byte first.
    outputs
        Stop behind the cycle in which this many output beats have been seen.
    limit
        Give up after this many cycles, with :class:`OutOfCycles`.
    until
        Do not stop before this cycle: engines may still work on what no result depends on.
    offer
        In cycle t a new beat may be offered if ``offer[t % len(offer)]``.
    accept
        ``o.ready`` in cycle t is ``accept[t % len(accept)]``.
    """

    beats: NDArray[np.uint8]
    outputs: int
    limit: int
    until: int = 0
    offer: NDArray[np.bool_] = field(default_factory=lambda: pattern("none", length=1))
    accept: NDArray[np.bool_] = field(default_factory=lambda: pattern("none", length=1))

    def __post_init__(self) -> None:
        if self.beats.ndim != 2 or self.beats.dtype != np.uint8:
            raise ConfigError(
                f"beats must be uint8 of shape (n, bytes), "
                f"not {self.beats.dtype} of shape {self.beats.shape}"
            )
        if self.outputs < 1:
            raise ConfigError(f"outputs must be at least 1, not {self.outputs}")
        if self.limit < 1:
            raise ConfigError(f"limit must be at least 1 cycle, not {self.limit}")
        object.__setattr__(self, "offer", _flags(self.offer, "offer"))
        object.__setattr__(self, "accept", _flags(self.accept, "accept"))


class OutOfCycles(BramblingError):
    """A simulation reached its limit; ``got`` of ``wanted`` output beats had come."""

    def __init__(self, engine: str, got: int, wanted: int, limit: int) -> None:
        self.got = got
        self.wanted = wanted
        self.limit = limit
        super().__init__(f"{engine}: only {got:,} of {wanted:,} output beats in {limit:,} cycles")


# What to do it with -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Design:
    """A component to simulate.

    It has streams ``i`` and ``o``, and for each other edge that is observed a ``tap_<edge>``, a
    stream that is always ready and valid in exactly the cycles in which a beat is there.

    Parameters
    ----------
    name
        Of the top module, in lower case.
    make
        Makes the component anew.
    edges
        Names and payload widths; the first is ``"input"``, the last ``"output"``.
    key
        Stands for all that the component is made from, the sources of its generator included:
        designs with the same key share a compiled simulator without being elaborated. Empty: the
        elaborated design is compared instead.
    """

    name: str
    make: Callable[[], wiring.Component]
    edges: tuple[tuple[str, int], ...]
    key: str = ""

    def __post_init__(self) -> None:
        names = [name for name, _ in self.edges]
        for name in (self.name, *names):
            if not NAME.fullmatch(name):
                raise ConfigError(f"a name must match {NAME.pattern}, not {name!r}")
        if len(names) < 2 or names[0] != "input" or names[-1] != "output":
            raise ConfigError(f"edges must run from input to output, not {', '.join(names)}")
        if len(set(names)) < len(names):
            raise ConfigError(f"edges must have different names, not {', '.join(names)}")
        for name, width in self.edges:
            if width < 1:
                raise ConfigError(f"{name} must have a payload of at least 1 bit, not {width}")

    @classmethod
    def of(cls, name: str, make: Callable[[], wiring.Component], key: str = "") -> "Design":
        """Make a component once and read its edges from its ports."""
        top = make()
        taps = [port for port in vars(top) if port.startswith("tap_")]
        widths = {port: len(Value.cast(getattr(top, port).payload)) for port in ("i", *taps, "o")}
        with warnings.catch_warnings():  # It is not elaborated, and that is meant.
            warnings.simplefilter("ignore", UnusedElaboratable)
            del top
        edges = [("input", widths.pop("i")), ("output", widths.pop("o"))]
        taps = [(port.removeprefix("tap_"), width) for port, width in widths.items()]
        return cls(name, make, (edges[0], *taps, edges[1]), key)

    @property
    def taps(self) -> tuple[tuple[str, int], ...]:
        """The edges that are observed through a tap."""
        return self.edges[1:-1]

    def check(self, job: Job) -> None:
        """Refuse beats that are not of the input's width."""
        width = self.edges[0][1]
        if job.beats.shape[1] != -(-width // 8):
            raise ConfigError(
                f"beats must have {-(-width // 8)} bytes for the {width} bits of the input of "
                f"{self.name}, not {job.beats.shape[1]}"
            )
        if width % 8 and (high := job.beats[:, -1] >> width % 8).any():
            raise ConfigError(
                f"beats must fit the {width} bits of the input of {self.name}, "
                f"beat {int(np.flatnonzero(high)[0])} does not"
            )


# What was seen ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class EdgeTrace:
    """The beats seen on one edge.

    Parameters
    ----------
    cycles
        Of each beat, ``int64 (n,)``, ascending.
    payloads
        ``uint8 (n, bytes)``, least significant byte first.
    """

    cycles: NDArray[np.int64]
    payloads: NDArray[np.uint8]

    @classmethod
    def of(cls, beats: list[tuple[int, int]], width: int) -> "EdgeTrace":
        """From cycles and payloads as integers."""
        size = -(-width // 8)
        cycles = np.array([cycle for cycle, _ in beats], np.int64)
        packed = b"".join(payload.to_bytes(size, "little") for _, payload in beats)
        return cls(cycles, np.frombuffer(packed, np.uint8).reshape(-1, size))

    def value(self, beat: int) -> int:
        """Payload of a beat as an integer."""
        return int.from_bytes(self.payloads[beat].tobytes(), "little")

    def difference(self, other: "EdgeTrace") -> str | None:
        """First beat in which ``other`` differs, in words; the cycle of a beat comes first."""
        common = min(len(self.cycles), len(other.cycles))
        late = self.cycles[:common] != other.cycles[:common]
        wrong = (self.payloads[:common] != other.payloads[:common]).any(axis=1)
        if (late | wrong).any():
            beat = int(np.argmax(late | wrong))
            if late[beat]:
                return f"beat {beat} in cycle {other.cycles[beat]}, not {self.cycles[beat]}"
            return f"beat {beat} is {other.value(beat):#x}, not {self.value(beat):#x}"
        if len(self.cycles) != len(other.cycles):
            return f"{len(other.cycles)} beats, not {len(self.cycles)}"
        return None


@dataclass(frozen=True, eq=False)
class Trace:
    """The beats seen on every edge; an edge is found by its name."""

    edges: Mapping[str, EdgeTrace]

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", MappingProxyType(dict(self.edges)))

    def __getitem__(self, edge: str) -> EdgeTrace:
        return self.edges[edge]

    def check(self, other: "Trace", what: str) -> None:
        """Raise :class:`Mismatch`, naming edge, beat and both values, unless ``other`` is equal.

        Edges that only one of the two has are left out.
        """
        for name in self.edges.keys() & other.edges.keys():
            if difference := self[name].difference(other[name]):
                raise Mismatch(f"{what}, {name}: {difference}")


class Runner(Protocol):
    """An engine: runs a job on a design, to the same trace as every other engine."""

    name: str

    def run(
        self,
        design: Design,
        job: Job,
        *,
        vcd: Path | None = None,
        progress: Progress | None = None,
    ) -> Trace:
        """Simulate; ``vcd`` also writes a waveform there.

        Raises
        ------
        OutOfCycles
            The job's limit was reached.
        ToolProblem
            A program that the engine needs is missing, or failed.
        """
        ...


@contextmanager
def waveform(path: Path | None) -> Iterator[Path | None]:
    """Where to write the waveform ``path``: it gets its name when the simulation is over.

    A simulation that ran out of cycles leaves its waveform too: that is when it is needed.
    """
    if path is None:
        yield None
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise FileProblem(f"{path}: cannot be written ({error.strerror})") from None
    with folder as name:
        beside = Path(name) / path.name
        try:
            yield beside
        except OutOfCycles:
            beside.replace(path)
            raise
        beside.replace(path)
