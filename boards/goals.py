"""What a plan is asked for."""

import re
from dataclasses import dataclass
from typing import Self

from brambling.errors import ConfigError

__all__ = ["GOALS", "Goal"]

GOALS = ("max-fps", "min-latency", "min-area", "fps=N", "power", "power=N")

NUMBER = r"\d+(?:\.\d+)?(?:e\d+)?"


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal as it is written, for example ``"fps=3000"``.

    Parameters
    ----------
    text
        All of it.
    kind
        What stands in front of ``=``.
    rate
        Frames a second, where they are given.
    """

    text: str
    kind: str
    rate: float | None

    @classmethod
    def of(cls, text: str) -> Self:
        """Read a goal; :class:`ConfigError` lists those that there are."""
        match = re.fullmatch(rf"(max-fps|min-latency|min-area|power|(fps|power)=({NUMBER}))", text)
        if match is None or (match[3] is not None and float(match[3]) <= 0):
            raise ConfigError(f"goal must be one of {', '.join(GOALS)}, not {text!r}")
        return cls(text, match[2] or text, None if match[3] is None else float(match[3]))

    def too_fast(self, clock_hz: int, cycles: int) -> ConfigError:
        """Say that even the fastest accelerator, with such an interval, is too slow."""
        return ConfigError(
            f"goal {self.text}: at {clock_hz / 1e6:g} MHz at most {clock_hz // cycles} frames "
            f"a second are possible, not {self.text.partition('=')[2]}"
        )
