"""Cycle counts, stated once and used by the RTL, its tests and the cycle model."""

from dataclasses import dataclass

__all__ = ["Timing"]


@dataclass(frozen=True, slots=True)
class Timing:
    """What an engine promises: ``beats`` input beats in, ``folds`` output beats out.

    Each fold takes ``beats`` cycles, the first one as the input arrives, the others from a buffer:
    the initiation interval is exactly ``beats * folds`` when nothing stalls.

    Parameters
    ----------
    beats
        Input beats of a vector, one a cycle.
    folds
        Output beats that are made of one vector.
    latency
        Clock edges from the last cycle of a fold to the write of its result into the output queue.
    """

    beats: int
    folds: int
    latency: int

    QUEUE = 2  #: Clock edges from the write into a queue to the offer at its output.
    CREDIT = 1  #: Clock edges from the transfer of a result to its place being free again.

    @property
    def interval(self) -> int:
        """Cycles from one vector to the next when nothing stalls."""
        return self.beats * self.folds

    @property
    def queue(self) -> int:
        """Places in the output queue below which results would wait for room at full rate."""
        return -(-(self.latency + self.QUEUE + self.CREDIT) // self.beats)
