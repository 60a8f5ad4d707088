"""What was built, as values and in words."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from brambling.boards.flow import Clock
from brambling.boards.process import Usage

__all__ = [
    "Attempt",
    "Built",
    "ClockFigure",
    "Resource",
    "SeedFigure",
    "Step",
    "main_clock",
    "to_markdown",
]

SOURCE = "placed and routed by the tools named here"


class _Clocked(Protocol):
    @property
    def required_hz(self) -> float: ...

    @property
    def fmax_hz(self) -> float: ...


T = TypeVar("T", bound=_Clocked)


def main_clock(clocks: Sequence[T], clock_hz: float) -> T:
    """Return the accelerator's clock: of those that must reach ``clock_hz`` the slowest."""
    return min(clocks, key=lambda clock: (abs(clock.required_hz / clock_hz - 1), clock.fmax_hz))


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """How much of something a design takes, of how much.

    ``planned`` is the planner's estimate for the accelerator alone, without link, pads and PLL.
    """

    name: str
    used: int
    available: int
    planned: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockFigure:
    """A clock of the routed design; slack is what is left of its period."""

    name: str
    required_hz: float
    fmax_hz: float
    slack_ns: float

    @classmethod
    def of(cls, clock: Clock) -> "ClockFigure":
        """Return that of a clock."""
        return cls(
            name=clock.name,
            required_hz=clock.required_hz,
            fmax_hz=clock.fmax_hz,
            slack_ns=clock.slack_ns,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedFigure:
    """What one seed of place and route came to; ``fmax_hz`` is of the tightest clock."""

    seed: int
    fmax_hz: float | None
    passed: bool
    holds: int
    holds_excused: int
    failed: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step and what it took; ``usage`` is ``None`` where an earlier result was taken again."""

    name: str
    usage: Usage | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A clock that was tried, the highest that was routed for it, and the seeds of it."""

    clock_hz: float
    reached_hz: float
    passed: bool
    seeds: tuple[SeedFigure, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A design that was placed and routed.

    Parameters
    ----------
    link
        ``None`` for a bare part.
    clock_hz
        The accelerator's clock, which it reaches wherever there is a bitstream.
    bitstream
        ``None`` for a bare part, and where a clock was missed.
    planned_fmax_hz
        The planner's estimate of the clock; ``None`` where it has none for the part.
    holds, holds_excused
        Hold-time violations that matter, and those that nextpnr reports by mistake.
    attempts
        One for each clock that was tried; the last but one is the better where the last failed.
    tools
        By name: version, and where it was found.
    """

    network: str
    board: str
    part: str
    family: str
    goal: str
    link: str | None
    clock_hz: float
    folder: Path
    bitstream: Path | None
    seed: int
    clocks: tuple[ClockFigure, ...]
    planned_fmax_hz: float | None
    resources: tuple[Resource, ...]
    flip_flops: int
    holds: int
    holds_excused: int
    attempts: tuple[Attempt, ...]
    steps: tuple[Step, ...]
    tools: Mapping[str, tuple[str, str]]

    @property
    def fmax_hz(self) -> float:
        """Highest clock of the accelerator, as routed."""
        return main_clock(self.clocks, self.clock_hz).fmax_hz

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON has it; paths as text."""
        found = asdict(self)
        found["folder"] = str(self.folder)
        found["bitstream"] = None if self.bitstream is None else str(self.bitstream)
        found["fmax_hz"] = self.fmax_hz
        found["source"] = SOURCE
        return found

    @property
    def missed(self) -> bool:
        """Whether a clock is slower than it must be."""
        return any(clock.slack_ns < 0 for clock in self.clocks)


# Words --------------------------------------------------------------------------------------------


def mhz(hertz: float | None) -> str:
    """Return a clock in MHz, to 10 kHz."""
    return "-" if hertz is None else f"{hertz / 1e6:.2f}"


def deviation(resource: Resource) -> str:
    """Return how far the estimate is from what was placed; ``-`` where there is none."""
    if resource.planned is None or not resource.used:
        return "-"
    return f"{resource.planned / resource.used - 1:+.1%}"


def verdict(made: Built) -> str:
    """Say whether there is a bitstream, and why not."""
    if made.bitstream is not None:
        return f"bitstream: {made.bitstream.name}"
    if made.missed:
        return "no bitstream: the clock is missed"
    return "no bitstream: hold times are violated" if made.link else "no bitstream: no board"


def table(head: str, rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; ``head`` has its columns, all but the first to the right."""
    columns = head.split(" | ")
    ruler = ["---"] + ["---:"] * (len(columns) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (columns, ruler, *rows))


def usage_cells(usage: Usage | None) -> tuple[str, str, str]:
    """Return seconds, seconds of processors and MB; that an earlier result was taken otherwise."""
    if usage is None:
        return "earlier result", "-", "-"
    cpu = "-" if usage.cpu_seconds is None else f"{usage.cpu_seconds:,.1f}"
    memory = "-" if usage.memory_bytes is None else f"{usage.memory_bytes / 1e6:,.0f}"
    return f"{usage.seconds:,.1f}", cpu, memory


def seed_words(seed: SeedFigure) -> str:
    """Say what came of a seed."""
    if seed.failed:
        return seed.failed.splitlines()[0].replace("|", "/")
    holds = f", {seed.holds} hold-time violations" if seed.holds else ""
    return ("passed" if seed.passed else "missed") + holds


def hold_words(made: Built) -> str:
    """Say how many hold-time violations nextpnr reports, and how many of them matter."""
    if not made.holds_excused:
        return f"{made.holds} hold-time violations"
    return (
        f"{made.holds} hold-time violations, and {made.holds_excused} that are a known mistake of "
        "nextpnr's (docs/board-gowin.md)"
    )


def likely_words(made: Built) -> str:
    """Compare the clock that the planner expects with the one that was routed; may be empty."""
    if made.planned_fmax_hz is None:
        return ""
    share = made.planned_fmax_hz / made.fmax_hz - 1
    return f"\nPlanned: {mhz(made.planned_fmax_hz)} MHz, {share:+.1%} of what was routed.\n"


def resource_rows(made: Built) -> list[tuple[str, ...]]:
    """Return name, used, available, share, estimate and its deviation, of each resource."""
    return [
        (
            row.name,
            f"{row.used:,}",
            f"{row.available:,}",
            f"{row.used / row.available:.1%}",
            "-" if row.planned is None else f"{row.planned:,}",
            deviation(row),
        )
        for row in made.resources
    ]


def clock_rows(made: Built) -> list[tuple[str, ...]]:
    """Return name, clock needed, clock routed and slack, of each clock."""
    return [
        (clock.name, mhz(clock.required_hz), mhz(clock.fmax_hz), f"{clock.slack_ns:+.2f}")
        for clock in made.clocks
    ]


def to_markdown(made: Built) -> str:
    """Return the report as Markdown."""
    over = f" over {made.link}" if made.link else ", no board"
    holds = f"\n{hold_words(made)}.\n" if made.holds or made.holds_excused else ""
    seeds = [
        (mhz(attempt.clock_hz), str(seed.seed), mhz(seed.fmax_hz), seed_words(seed))
        for attempt in made.attempts
        for seed in attempt.seeds
    ]
    steps = [(step.name, *usage_cells(step.usage)) for step in made.steps]
    tools = [(name, version or "-", origin) for name, (version, origin) in made.tools.items()]
    return f"""# {made.network} on {made.board} ({made.part}), goal {made.goal}{over}

{verdict(made)}. The accelerator's clock is {made.clock_hz / 1e6:g} MHz.

Every figure here is of the design as it was {SOURCE}, with seed {made.seed}, but for
those called *planned*: these are the planner's estimate of the accelerator alone, without link,
pads and PLL.

{table("resource | used | available | share | planned | planned, deviation", resource_rows(made))}

Flip-flops before packing: {made.flip_flops:,}.

{table("clock | needed, MHz | routed, MHz | slack, ns", clock_rows(made))}
{likely_words(made)}{holds}
{table("clock tried, MHz | seed | routed, MHz | result", seeds)}

{table("step | seconds | of processors | memory, MB", steps)}

{table("tool | version | from", tools)}
"""
