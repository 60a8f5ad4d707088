"""A line that loses, changes and invents bytes, and counts what it does."""

from collections import Counter

import numpy as np

NOISE = 12  #: Most bytes of a burst of noise.


class FaultyLine:
    """Spoils what is written to and read from another line, each block with some probability.

    Parameters
    ----------
    line
        The line behind it.
    share
        Of the blocks that are spoilt, in each direction.
    """

    def __init__(self, line, share, seed):
        self.line = line
        self.share = share
        self.rng = np.random.default_rng(seed)
        self.injected = Counter()
        self.written = 0
        self.name, self.byte_seconds = line.name, line.byte_seconds

    def now(self):
        return self.line.now()

    def write(self, data):
        self.written += 1
        self.line.write(self._spoilt(data, "to device"))

    def read(self, timeout):
        return self._spoilt(self.line.read(timeout), "to host")

    def close(self):
        """Stay open: hosts come and go."""

    def _spoilt(self, data, way):
        if not data or self.rng.random() >= self.share:
            return data
        kind = str(self.rng.choice(["flip", "drop", "insert", "truncate", "swallow", "repeat"]))
        self.injected[f"{kind} {way}"] += 1
        spoilt = bytearray(data)
        at = int(self.rng.integers(len(spoilt)))
        match kind:
            case "flip":
                for _ in range(int(self.rng.integers(1, 4))):
                    spoilt[int(self.rng.integers(len(spoilt)))] ^= 1 << int(self.rng.integers(8))
            case "drop":
                del spoilt[at : at + int(self.rng.integers(1, 4))]
            case "insert":
                spoilt[at:at] = self.rng.bytes(int(self.rng.integers(1, NOISE)))
            case "truncate":
                del spoilt[at:]
            case "swallow":
                spoilt.clear()
            case "repeat":
                spoilt += spoilt[at:]
        return bytes(spoilt)
