"""How long a step keeps a frame back: the part of the latency that its folding decides."""

from functools import lru_cache

import numpy as np

from brambling.layers.image import Window
from brambling.plan import Step
from brambling.steps import Runs

__all__ = ["tail"]


def tail(step: Step, pixels: int, runs: Runs) -> int:
    """Cycles from the last input beat of a frame to the last result, at the least.

    A bound, whatever the engines around do: pipelines and adapters come on top. A step without a
    line buffer repeats its last vector for all folds but the first, which ends with that beat.
    Behind a line buffer, all positions are still to come from the first one that sees the last
    pixel; where none does it is 0, and the last result may come before that beat.
    """
    if step.window is None:
        return (runs.folds - 1) * runs.beats
    rows, columns, _ = step.x.shape
    late = _late(step.window, (rows, columns), step.positions, pixels)
    return late * runs.chunks * runs.folds * runs.beats


@lru_cache(maxsize=1 << 12)
def _late(window: Window, image: tuple[int, int], positions: tuple[int, int], pixels: int) -> int:
    """Count groups of ``pixels`` positions from the first one on that sees the last pixel.

    0 where none does.
    """
    seen = []
    for n in range(2):
        if positions[n] != window.extent(*image)[n]:  # Images that grow: pixels are seen in turn.
            return 1
        first = np.arange(positions[n]) * window.stride[n] - window.padding[2 * n]
        last = first + (window.kernel[n] - 1) * window.dilation[n]
        seen.append(np.flatnonzero(last >= image[n] - 1))
    if not all(len(places) for places in seen):
        return 0
    groups = -(-positions[1] // pixels)
    row, column = int(seen[0][0]), int(seen[1][0])
    return (positions[0] - row) * groups - column // pixels
