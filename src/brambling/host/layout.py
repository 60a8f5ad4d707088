"""How a network's frames and results travel to and from a device."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError, DeviceProblem
from brambling.hw.beat import Beats
from brambling.network import Network, Tensor
from brambling.protocol import Ident, bytes_of_frames, frame_size, results_of_bytes
from brambling.sim import golden

__all__ = ["FrameLayout", "beats_of"]

PROBES = 64  #: Random frames that tell two layouts apart.


@dataclass(frozen=True, slots=True)
class FrameLayout:
    """Beats of a frame and of a result."""

    frame: Beats
    result: Beats

    @classmethod
    def of(cls, network: Network, ident: Ident, frame: int, result: int) -> "FrameLayout":
        """Return the layout that a device has.

        Parameters
        ----------
        frame, result
            What its registers say; 0 where it has none: then the sizes must tell.
        """
        return cls(
            beats_of(network.input, ident.frame_bytes, frame, "a frame"),
            beats_of(network.output, ident.result_bytes, result, "a result"),
        )

    def encode(self, network: Network, images: NDArray) -> list[bytes]:
        """Return images as payloads; refuse those of the wrong shape, and codes out of range."""
        frames = golden.frames(network, images)
        return bytes_of_frames(self.frame, frames.reshape(len(frames), -1))

    def decode(self, network: Network, results: Sequence[bytes]) -> NDArray:
        """Return integers ``(n, *output.shape)``."""
        codes = results_of_bytes(self.result, results)
        return codes.reshape(len(results), *network.output.shape).astype(network.output.fmt.dtype)


def beats_of(tensor: Tensor, size: int, said: int, what: str) -> Beats:
    """Return the beats of ``tensor`` that take ``size`` bytes, as a register has ``said``."""
    if said:
        lanes, pixels = said & 0xFFFF, said >> 16
        try:
            beats = Beats.of(tensor, lanes, pixels)
        except ConfigError as error:
            raise DeviceProblem(
                f"{what} of the device is no {tensor}: {error}: build it again"
            ) from None
        if frame_size(beats) != size:
            raise DeviceProblem(
                f"{what} has {frame_size(beats)} bytes as the device tells its layout, but takes "
                f"{size}: build it again"
            )
        return beats
    found = _candidates(tensor, size)
    if not found:
        raise DeviceProblem(
            f"{what} of the device has {size} bytes, which {tensor} cannot have: build it again"
        )
    rng = np.random.default_rng(0)
    # Any two codes of a format: a bipolar one has no 0.
    probes = rng.choice([tensor.fmt.min, tensor.fmt.max], (PROBES, tensor.size))
    if any(bytes_of_frames(b, probes) != bytes_of_frames(found[0], probes) for b in found[1:]):
        raise DeviceProblem(
            f"the device does not tell the layout of {what}, and {size} bytes mean several: "
            "build again"
        )
    return found[0]


def _candidates(tensor: Tensor, size: int) -> list[Beats]:
    """All ways to send ``tensor`` in that many bytes."""
    whole = Beats.of(tensor, 1)
    every = (
        Beats.of(tensor, lanes, pixels)
        for lanes in range(1, whole.elements + 1)
        for pixels in range(1, whole.columns + 1)
    )
    return [beats for beats in every if frame_size(beats) == size]
