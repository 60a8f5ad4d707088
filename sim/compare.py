"""What came out, compared with the golden model."""

import numpy as np
from numpy.typing import NDArray

from brambling.errors import Mismatch

__all__ = ["compare_codes"]


def compare_codes(what: str, codes: NDArray, wanted: NDArray) -> None:
    """Raise :class:`Mismatch`, which names the first difference, unless all codes are as wanted.

    Parameters
    ----------
    what
        Edge, and what else tells where.
    codes, wanted
        ``(frames, elements)``.
    """
    if codes.shape != wanted.shape:
        raise Mismatch(f"{what}: {len(codes)} frames, not {len(wanted)}")
    if not np.array_equal(codes, wanted):
        frame, element = np.argwhere(codes != wanted)[0]
        raise Mismatch(
            f"{what}: frame {frame}, element {element} is {codes[frame, element]}, "
            f"golden is {wanted[frame, element]}"
        )
