"""The plan: how a network is computed. Data, readable and editable by a person.

It has a :class:`Stage` for each step of the network, in order.
"""

import os
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import tomli_w

from brambling.errors import BramblingError, ConfigError, FileProblem
from brambling.files import write_atomically
from brambling.network import Network
from brambling.steps import PARTED, Step, steps

__all__ = ["LEAST_FIFO", "STORES", "Plan", "Stage", "Step", "steps"]

#: Kinds of on-chip memory. SPRAM, a single-port RAM without initial contents, is for weights only.
STORES = ("block", "lut", "spram")
LEAST_FIFO = 3  #: Beats.
STYLES = ("dsp", "lut", "planes")  #: Ways to multiply.


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
        Output and input elements a cycle. Matrix-vector units have both, ``"argmax"`` has
        ``pe == 1``, every other engine ``pe == simd``.
    pixels
        Positions of the output, neighbours in a row, that are computed together.
    style
        How a ``"product"``, ``"depthwise"`` or ``"requantise"`` engine multiplies: ``"dsp"``,
        ``"lut"`` or ``"planes"`` (bit planes; ``"product"`` only). Elsewhere ``"lut"``.
    weights, levels, lines
        Memory of the weights, of the levels and of the line buffer: ``"block"`` or ``"lut"``;
        weights also ``"spram"``: they are loaded after configuration.
    fifo
        Beats of the FIFO in front of each input: 0 for none, else at least 3.
    queue
        Places in the queue behind.
    """

    layer: str
    engine: str
    pe: int
    simd: int
    pixels: int = 1
    style: str = "lut"
    weights: str = "block"
    levels: str = "lut"
    lines: str = "block"
    fifo: tuple[int, ...] = (0,)
    queue: int = 1

    def __post_init__(self) -> None:
        filled = tuple(store for store in STORES if store != "spram")
        memories = ((self.weights, STORES), (self.levels, filled), (self.lines, filled))
        for store, known in memories:
            if store not in known:
                raise ConfigError(
                    f"{self.layer}: a memory must be one of {', '.join(known)}, not {store!r}"
                )
        if self.style not in STYLES:
            raise ConfigError(
                f"{self.layer}: style must be one of {', '.join(STYLES)}, not {self.style!r}"
            )
        for depth in self.fifo:
            if depth != 0 and depth < LEAST_FIFO:
                raise ConfigError(
                    f"{self.layer}: fifo must be 0 or at least {LEAST_FIFO}, not {depth}"
                )
        if self.queue < 1:
            raise ConfigError(f"{self.layer}: queue must be at least 1, not {self.queue}")

    def check(self, step: Step) -> None:
        """Raise :class:`ConfigError` unless this stage can be the engine of ``step``."""
        if self.engine != step.engine:
            raise ConfigError(f"{self.layer}: engine must be {step.engine!r}, not {self.engine!r}")
        if len(self.fifo) != len(step.sources):
            raise ConfigError(
                f"{self.layer}: fifo must have {len(step.sources)} depths, one for each input, "
                f"not {len(self.fifo)}"
            )
        most_pe = 1 if self.engine == "argmax" else step.outputs
        limits = [("pe", self.pe, most_pe), ("simd", self.simd, step.inputs)]
        limits.append(("pixels", self.pixels, step.positions[1]))
        for key, value, most in limits:
            if not 1 <= value <= most:
                raise ConfigError(f"{self.layer}: {key} must be 1 to {most}, not {value}")
        if self.engine != "argmax" and not step.products and self.pe != self.simd:
            raise ConfigError(f"{self.layer}: pe must equal simd, {self.simd}, not {self.pe}")
        if step.chunks > 1 and (step.outputs % self.pe or step.inputs % self.simd):
            raise ConfigError(
                f"{self.layer}: pe and simd must divide the {step.outputs} outputs and "
                f"{step.inputs} inputs of a group, not {self.pe} and {self.simd}"
            )
        if step.engine in PARTED and (common := step.grain) % self.simd:
            raise ConfigError(
                f"{self.layer}: simd must divide {common}, so that no beat has channels of two "
                f"parts, not {self.simd}"
            )
        if self.style == "planes" and self.engine != "product":
            raise ConfigError(
                f"{self.layer}: style must be 'lut' or 'dsp' for {self.engine}, not 'planes'"
            )


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
        if expected == tuple[int, ...]:
            if not isinstance(value, list) or any(type(n) is not int for n in value):
                raise ConfigError(f"{where}: {key} must be a list of integers, not {value!r}")
            value = tuple(value)
        elif type(value) is not expected:
            kind_name = getattr(expected, "__name__", str(expected))
            raise ConfigError(f"{where}: {key} must be {kind_name}, not {value!r}")
        yield key, value
    needed = [k for k, f in known.items() if f.default is f.default_factory and k not in table]
    if needed:
        raise ConfigError(f"{where}: {needed[0]} is missing")
