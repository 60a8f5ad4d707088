"""The plan: how a network is computed. Data, readable and editable by a person.

A network is cut into steps, each the work of one engine; a :class:`Plan` has a :class:`Stage` for
each step, in order.
"""

import os
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import tomli_w

from brambling.errors import BramblingError, ConfigError, FileProblem, UnsupportedLayer
from brambling.files import write_atomically
from brambling.network import INPUT, ArgMax, Dense, Layer, Network, Thresholds
from brambling.quant.formats import Bipolar

__all__ = ["LEAST_FIFO", "STORES", "Plan", "Stage", "Step", "steps"]

STORES = ("block", "lut")  #: Kinds of on-chip memory.
LEAST_FIFO = 3  #: Beats.


@dataclass(frozen=True, slots=True)
class Step:
    """Layers that one engine computes together, and how far it can be parallel.

    Parameters
    ----------
    engine
        ``"xnor"``, ``"thresholds"`` or ``"argmax"``.
    layers
        The layers, first to last.
    inputs, outputs
        Elements of a frame that go in and come out.
    """

    engine: str
    layers: tuple[Layer, ...]
    inputs: int
    outputs: int

    @property
    def name(self) -> str:
        """The first layer's name; a stage is called by it."""
        return self.layers[0].name

    @property
    def output(self) -> str:
        """The last layer's name: the edge that leaves the engine."""
        return self.layers[-1].name


def steps(network: Network) -> tuple[Step, ...]:
    """Cut ``network`` into steps; :class:`UnsupportedLayer` where no engine fits."""
    found = []
    previous = INPUT
    layers = list(network.layers)
    while layers:
        layer = layers.pop(0)
        if layer.inputs != (previous,):
            raise UnsupportedLayer(
                f"{layer.name}: reads {', '.join(layer.inputs)}, but engines form a chain, "
                f"in which it can only read {previous}"
            )
        group = [layer]
        if layers and _absorbs(network, layer, layers[0]):
            group.append(layers.pop(0))
        source, result = network.tensors[previous], network.tensors[group[-1].name]
        engine = _engine(layer, network)
        found.append(Step(engine, tuple(group), source.size, result.size))
        previous = group[-1].name
    return tuple(found)


def _absorbs(network: Network, layer: Layer, after: Layer) -> bool:
    """Whether the engine of ``layer`` computes the thresholds ``after`` on the way out."""
    return (
        isinstance(layer, Dense)
        and isinstance(after, Thresholds)
        and network.consumers(layer.name) == (after,)
        and after.fmt == Bipolar()
    )


def _engine(layer: Layer, network: Network) -> str:
    source = network.tensors[layer.inputs[0]]
    match layer:
        case Dense():
            if layer.fmt != Bipolar() or source.fmt != Bipolar():
                raise UnsupportedLayer(
                    f"{layer.name}: Dense has an engine for bipolar weights and inputs, "
                    f"not for {layer.fmt} weights and {source.fmt} inputs"
                )
            return "xnor"
        case Thresholds():
            if len(layer.levels) > 1 and len(source.shape) > 1:
                raise UnsupportedLayer(
                    f"{layer.name}: Thresholds by channel have an engine for vectors, "
                    f"not for {source}"
                )
            return "thresholds"
        case ArgMax():
            return "argmax"
    raise UnsupportedLayer(
        f"{layer.name}: {type(layer).__name__} has no engine; Dense, Thresholds and ArgMax have"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One engine.

    Parameters
    ----------
    layer
        Name of the first layer that it computes.
    engine
        As the step's.
    pe, simd
        Output and input elements a cycle. ``"thresholds"`` has ``pe == simd``, ``"argmax"`` has
        ``pe == 1``.
    weights, levels
        Memory of the weights and of the levels: ``"block"`` or ``"lut"``.
    fifo
        Beats of the FIFO in front: 0 for none, else at least 3.
    queue
        Places in the queue behind.
    """

    layer: str
    engine: str
    pe: int
    simd: int
    weights: str = "block"
    levels: str = "lut"
    fifo: int = 0
    queue: int = 1

    def __post_init__(self) -> None:
        for store in (self.weights, self.levels):
            if store not in STORES:
                raise ConfigError(
                    f"{self.layer}: a memory must be one of {', '.join(STORES)}, not {store!r}"
                )
        if self.fifo != 0 and self.fifo < LEAST_FIFO:
            raise ConfigError(
                f"{self.layer}: fifo must be 0 or at least {LEAST_FIFO}, not {self.fifo}"
            )
        if self.queue < 1:
            raise ConfigError(f"{self.layer}: queue must be at least 1, not {self.queue}")

    def check(self, step: Step) -> None:
        """Raise :class:`ConfigError` unless this stage can be the engine of ``step``."""
        if self.engine != step.engine:
            raise ConfigError(f"{self.layer}: engine must be {step.engine!r}, not {self.engine!r}")
        most_pe = 1 if self.engine == "argmax" else step.outputs
        for key, value, most in (("pe", self.pe, most_pe), ("simd", self.simd, step.inputs)):
            if not 1 <= value <= most:
                raise ConfigError(f"{self.layer}: {key} must be 1 to {most}, not {value}")
        if self.engine == "thresholds" and self.pe != self.simd:
            raise ConfigError(f"{self.layer}: pe must equal simd, {self.simd}, not {self.pe}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The engines of a network, for a board.

    Parameters
    ----------
    network
        Name of the network.
    board
        Name of the board or part.
    goal
        What the plan was made for; ``"hand"`` when edited.
    clock_hz
        Clock of the design.
    stages
        One for each step of the network, in order.
    """

    network: str
    board: str
    goal: str
    clock_hz: int
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if self.clock_hz < 1:
            raise ConfigError(f"clock_hz must be at least 1, not {self.clock_hz}")

    def pairs(self, network: Network) -> tuple[tuple[Step, Stage], ...]:
        """Each step of ``network`` with its stage; :class:`ConfigError` where they do not fit."""
        wanted = {step.name: step for step in steps(network)}
        for stage in self.stages:
            if stage.layer not in wanted:
                raise ConfigError(
                    f"the plan has a stage for {stage.layer!r}, but the engines of {network.name} "
                    f"start at {', '.join(wanted)}"
                )
        names = [stage.layer for stage in self.stages]
        for name in wanted:
            if names.count(name) != 1:
                raise ConfigError(
                    f"the plan must have one stage for {name!r}, not {names.count(name)}"
                )
        if names != list(wanted):
            raise ConfigError(
                f"the plan's stages must be in the order {', '.join(wanted)}, "
                f"not {', '.join(names)}"
            )
        pairs = tuple(zip(wanted.values(), self.stages, strict=True))
        for step, stage in pairs:
            stage.check(step)
        return pairs

    # Files ------------------------------------------------------------------------------------

    def to_toml(self) -> str:
        """Return the plan as TOML; :meth:`from_toml` reads it."""
        table = asdict(self)
        table["stage"] = [asdict(stage) for stage in self.stages]
        del table["stages"]
        return tomli_w.dumps(table)

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Read a plan; :class:`ConfigError` for a missing, unknown or mistyped key."""
        try:
            table: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"not TOML ({error})") from None
        rows = table.pop("stage", [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ConfigError("stages must be written as [[stage]] tables")
        stages = tuple(
            Stage(**dict(_checked(Stage, row, f"stage {n}"))) for n, row in enumerate(rows)
        )
        return cls(stages=stages, **dict(_checked(cls, table, "plan", without=("stages",))))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan to ``path``; an interrupted write leaves the old file as it was."""
        write_atomically(Path(path), self.to_toml())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a plan from a file."""
        try:
            return cls.from_toml(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise FileProblem(f"{path}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise FileProblem(f"{path}: a plan must be UTF-8 text") from None
        except BramblingError as error:
            raise FileProblem(f"{path}: {error}") from None


def _checked(
    kind: type, table: dict[str, Any], where: str, without: tuple[str, ...] = ()
) -> Iterator[tuple[str, Any]]:
    known = {field.name: field for field in fields(kind) if field.name not in without}
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"{where}: keys are {', '.join(known)}, not {key!r}")
        expected = known[key].type
        if type(value) is not expected:
            kind_name = getattr(expected, "__name__", str(expected))
            raise ConfigError(f"{where}: {key} must be {kind_name}, not {value!r}")
        yield key, value
    needed = [k for k, f in known.items() if f.default is f.default_factory and k not in table]
    if needed:
        raise ConfigError(f"{where}: {needed[0]} is missing")
