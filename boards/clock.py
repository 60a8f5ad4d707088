"""The clock that a plan is likely to reach, and how far the models have been from what was made.

After place and route the slowest path was always one of control: from the counter of a feed, or of
the gate at the input, through the word that says whether a slot is issued to all that waits for it.
It is longer where lines of an image are counted as well, and the further apart the more a design
takes of a part.
"""

from dataclasses import dataclass
from math import log2

from brambling.boards.parts import Part
from brambling.boards.wiring import total
from brambling.network import Network
from brambling.plan import Plan

__all__ = ["CLOCK_ERROR", "LUT_ERROR", "Estimate", "fmax", "summary"]

#: Largest error of the LUTs over all designs of bench/results/designs.json, by family.
LUT_ERROR = {"ecp5": 0.12, "ice40": 0.12, "gowin": 0.11}
#: That of the clock; seen were 15 % (5 designs) and 9 % (4), too few to promise less.
CLOCK_ERROR = {"ecp5": 0.20, "ice40": 0.20}
LEAST = 1000  #: LUTs below which a design is not faster for being small.


@dataclass(frozen=True, slots=True)
class Delay:
    """Nanoseconds of the slowest path.

    Parameters
    ----------
    control
        Of a small design.
    doubling
        By how much longer for twice the LUTs.
    lines
        By how much longer with a line buffer.
    """

    control: float
    doubling: float
    lines: float


# Fitted to the sample of bench/results/designs.json, placed and routed by nextpnr with one seed. Of
# the iCE40 parts only dense networks were routed: what a line buffer adds is that of ECP5, and as
# much longer as the rest.
DELAYS = {
    "ecp5": Delay(7.2, 1.2, 1.0),
    "ice40-hx8k": Delay(8.7, 1.2, 1.0),
    "ice40-up5k": Delay(21.0, 2.5, 2.0),
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A clock in Hz, and the share by which the model has been wrong at most."""

    hz: int
    error: float

    def __str__(self) -> str:
        return f"{self.hz / 1e6:.0f} MHz ± {self.error:.0%}"


def fmax(network: Network, plan: Plan, part: Part) -> Estimate | None:
    """Estimate the clock that a plan reaches; ``None`` where no part of the kind was measured."""
    delay = DELAYS.get(part.name) or DELAYS.get(part.family)
    if delay is None:
        return None
    luts = total(network, plan, part).luts
    lines = any(step.window for step, _ in plan.pairs(network))
    ns = delay.control + delay.doubling * log2(max(luts, LEAST) / LEAST) + delay.lines * lines
    return Estimate(round(1e9 / ns), CLOCK_ERROR[part.family])


def summary(network: Network, plan: Plan, part: Part) -> str:
    """Say what a plan is estimated to take of a part, with the errors of the estimates."""
    needs, clock = total(network, plan, part), fmax(network, plan, part)
    unit = "logic cells" if part.family == "ice40" else "LUTs"
    error = LUT_ERROR.get(part.family)
    words = [f"{needs.luts:,} {unit}" + (f" ± {error:.0%}" if error else ", error not measured")]
    words += [f"{needs.blocks:,} block RAMs", f"{needs.dsps:,} multipliers"]
    if needs.sprams:
        words.append(f"{needs.sprams} SPRAMs")
    words.append(str(clock) if clock else "clock not estimated")
    return ", ".join(words)
