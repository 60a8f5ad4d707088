"""The folding solver: how parallel each engine of a network is.

The initiation interval of an accelerator is the largest of its engines'. An interval is feasible if
every engine has a folding at least as fast, and their needs together fit the part, with what
regroups lanes and pixels between them. Bisection finds the smallest feasible one. Of the foldings
within an interval those that take the smallest sum of shares of the resources are kept, so that no
engine is faster than it must be.

Engines take as many pixels at a time as the engine before makes, unless they have a line buffer or
read an image as a vector; so all that hang together without one choose their pixels together.

How far a plan can be from the best one is known: see :func:`bound`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import ceil

from brambling.boards.goals import GOALS, Goal
from brambling.boards.memories import Needs
from brambling.boards.options import LUT_SHARE, Options, available, excess
from brambling.boards.parts import Board
from brambling.boards.refusals import no_fit, refusal
from brambling.boards.search import Search
from brambling.boards.soonest import soonest, soonest_bound
from brambling.errors import ConfigError
from brambling.network import Network
from brambling.plan import Plan, Stage

__all__ = [
    "GOALS",
    "LUT_SHARE",
    "Bound",
    "Options",
    "Solver",
    "available",
    "bound",
    "excess",
    "fold",
    "refusal",
]

NOTHING = Needs()


@dataclass(frozen=True)
class Solver:
    """A network that is to be folded for a board.

    Parameters
    ----------
    fill
        Share of the part's LUTs that a plan may take.
    """

    network: Network
    board: Board
    fill: float = LUT_SHARE

    @cached_property
    def search(self) -> Search:
        """All foldings, and what is found among them."""
        return Search(Options.of(self.network, self.board, self.fill))

    def fold(
        self,
        goal: str,
        clock_hz: int | None = None,
        reserve: Needs = NOTHING,
        latency: Callable[[Plan], int] | None = None,
    ) -> Plan:
        """Choose the folding of every engine; see :func:`fold`."""
        wanted, clock_hz = self._asked(goal, clock_hz)
        options = self.search.options
        most = available(self.board, reserve, self.fill)
        match wanted.kind:
            case "max-fps":
                found = self.search.fastest(most)
            case "min-area":
                found = self.search.smallest(options.intervals[-1], most)
            case "fps":
                found = self._of_rate(wanted, clock_hz, most)
            case "power":
                found = self.search.fastest(most)
                if found is not None:
                    clock_hz = self._slowest_clock(wanted, clock_hz, found, most)
            case _:
                found = soonest(self.search, most, lambda s: self._latency(s, latency))
        if found is None:
            raise no_fit(self.network, self.search, wanted, clock_hz, most)
        return self._plan(goal, clock_hz, found)

    def _asked(self, goal: str, clock_hz: int | None) -> tuple[Goal, int]:
        clock_hz = self.board.clock_hz if clock_hz is None else clock_hz
        if clock_hz < 1:
            raise ConfigError(f"clock must be at least 1 Hz, not {clock_hz}")
        wanted, fastest = Goal.of(goal), self.search.options.fastest
        if wanted.rate is not None and wanted.rate * fastest > clock_hz:
            raise wanted.too_fast(clock_hz, fastest)
        return wanted, clock_hz

    def _plan(self, goal: str, clock_hz: int, stages: tuple[Stage, ...]) -> Plan:
        return Plan(
            network=self.network.name,
            board=self.board.name,
            goal=goal,
            clock_hz=clock_hz,
            stages=stages,
        )

    def _latency(
        self, stages: tuple[Stage, ...], latency: Callable[[Plan], int] | None
    ) -> int | None:
        if latency is None:
            return None
        return latency(self._plan("min-latency", self.board.clock_hz, stages))

    def _of_rate(self, goal: Goal, clock_hz: int, most: Needs) -> tuple[Stage, ...] | None:
        """Fold with shorter intervals until adapters too, known only afterwards, keep the rate.

        Lanes that do not divide each other can cost an adapter a cycle more than the engines.
        """
        assert goal.rate is not None
        options = self.search.options
        wanted = limit = min(options.intervals[-1], int(clock_hz / goal.rate))
        found = self.search.smallest(limit, most)
        cycles = 0
        while found is not None:
            cycles = options.polish.slowest(found)
            if cycles <= wanted or limit <= options.fastest:
                break
            limit = max(options.fastest, min(limit - 1, limit * wanted // cycles))
            found = self.search.smallest(limit, most)
        if found is not None and cycles > wanted:
            raise goal.too_fast(clock_hz, cycles)
        return found

    def _slowest_clock(
        self, goal: Goal, clock_hz: int, stages: tuple[Stage, ...], most: Needs
    ) -> int:
        """Return the clock with which stages make the frames a second that are asked for."""
        cycles = self.search.options.polish.slowest(stages)
        rate = self.rate(goal.text, clock_hz)
        if rate * cycles > clock_hz:
            raise no_fit(self.network, self.search, goal, clock_hz, most)
        return ceil(rate * cycles)

    def rate(self, goal: str, clock_hz: int | None = None) -> float:
        """Frames a second that ``"power"`` means: without a number, those of the smallest plan."""
        wanted, clock_hz = self._asked(goal, clock_hz)
        return wanted.rate or clock_hz / self._slowest

    @cached_property
    def _slowest(self) -> int:
        """Interval of the smallest accelerator."""
        options = self.search.options
        stages = self.search.smallest(options.intervals[-1], options.most)
        return options.intervals[-1] if stages is None else options.polish.slowest(stages)

    def bound(self, goal: str, clock_hz: int | None = None) -> "Bound":
        """Return what no plan can be better than; see :func:`bound`."""
        wanted, clock_hz = self._asked(goal, clock_hz)
        options, most = self.search.options, self.search.options.most
        shortest = self.search.shortest(most)
        if shortest is None:
            raise no_fit(self.network, self.search, wanted, clock_hz, most)
        match wanted.kind:
            case "max-fps":
                return Bound(shortest, "cycles from frame to frame")
            case "power":
                return Bound(ceil(self.rate(goal, clock_hz) * shortest), "Hz")
            case "min-latency":
                cycles = soonest_bound(self.network, self.search, shortest)
                return Bound(cycles, "cycles of latency")
        limit = options.intervals[-1]
        if wanted.rate is not None:
            limit = min(limit, int(clock_hz / wanted.rate))
        return Bound(self.search.cheapest(limit, most), "shares of the part")


@dataclass(frozen=True, slots=True)
class Bound:
    """What no plan for a goal can be better than.

    Parameters
    ----------
    value, unit
        A number, and of what.
    """

    value: float
    unit: str


def fold(
    network: Network,
    board: Board,
    goal: str,
    clock_hz: int | None = None,
    reserve: Needs = NOTHING,
    fill: float = LUT_SHARE,
) -> Plan:
    """Choose the folding of every engine; FIFOs and queues are left at their defaults.

    Parameters
    ----------
    goal
        One of :data:`GOALS`.
    clock_hz
        Clock, for ``"power"`` the fastest that may be; the board's where ``None``.
    reserve
        Kept free for what is not yet planned.
    fill
        Share of the LUTs that may be taken.

    Raises
    ------
    DoesNotFit
        With the numbers, and with what would fit.
    """
    return Solver(network, board, fill).fold(goal, clock_hz, reserve)


def bound(
    network: Network,
    board: Board,
    goal: str,
    clock_hz: int | None = None,
    fill: float = LUT_SHARE,
) -> Bound:
    """Return a proven bound: what no plan for a goal can be better than, as far as estimates go.

    It is that of a relaxation: FIFOs and queues take nothing, adapters stand only between an
    engine and the first that it reads, and resources need not be taken by the piece, beyond what an
    exact choice without adapters proves. For ``"max-fps"`` the interval; for ``"power"`` the clock;
    for ``"min-area"`` and ``"fps=N"`` the sum of the shares of the part's resources; for
    ``"min-latency"`` the cycles of a frame, where nothing but its way from the input to the output
    takes time.
    """
    return Solver(network, board, fill).bound(goal, clock_hz)
