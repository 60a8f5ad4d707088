"""A device on a line: who it is, what it says of frames, and what was lost on the way."""

import secrets
import zlib
from collections import deque
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brambling.digest import digest
from brambling.errors import ConfigError, DeviceProblem
from brambling.host.exchange import Answered, Exchange, Losses, Lost
from brambling.host.layout import FrameLayout
from brambling.host.transport import BAUD, SerialTransport, Transport, find_port
from brambling.network import Network
from brambling.protocol import (
    LOAD_WORDS,
    VERSION,
    Answer,
    Flag,
    Ident,
    Kind,
    Reason,
    Register,
    register_of,
)
from brambling.sim.progress import Progress

__all__ = ["Device"]

TIMEOUT = 1.0  #: Seconds; above the device's own time-out, so that it is ready again behind it.
TRIES = 8  #: Of a frame.
KNOCKS = 4  #: Tries of the first request; what another host left half sent swallows one.
LONGEST = 64  #: Bytes of the longest answer to anything but a frame.


class Device:
    """A network on a board, or in a simulation, through its link.

    A result is accepted only if its CRC fits, and session, sequence number and the CRC of the
    request that it repeats are those of the frame. What is lost is asked for again.

    >>> with Device.open(network=network) as device:  # doctest: +SKIP
    ...     classes = device.classify(images)

    Parameters
    ----------
    transport
        The line. It is closed with the device.
    network
        What must be on the device.
    timeout
        Seconds without a valid answer, beyond what the bytes under way take, after which all that
        is under way counts as lost. More than the device's own time-out (50 ms as it is built).
    tries
        How often a frame is sent at most.
    session
        Drawn at random where ``None``.

    Attributes
    ----------
    ident : Ident
        What the device says of itself.
    losses : Losses
        What was lost so far.
    layout : FrameLayout
        How frames and results travel.
    exchange : Exchange
        Requests that wait, and what was lost.
    cycles : NDArray[np.int64]
        Of each frame of the last :meth:`run`: clock cycles from its first beat in to its last out.

    Raises
    ------
    DeviceProblem
        It does not answer, answers at another rate or in another version, or has another network.
    """

    def __init__(
        self,
        transport: Transport,
        network: Network,
        *,
        timeout: float = TIMEOUT,
        tries: int = TRIES,
        session: int | None = None,
    ) -> None:
        if not timeout > 0:
            raise ConfigError(f"timeout must be above 0 s, not {timeout:g}")
        if tries < 1:
            raise ConfigError(f"tries must be at least 1, not {tries}")
        self.network = network
        self.timeout = timeout
        self.tries = tries
        self.cycles = np.zeros(0, np.int64)
        self._line = transport
        self.exchange = Exchange(secrets.randbits(16) if session is None else session, LONGEST)
        self._until = 0.0  # When what was written has left, as far as the line's rate tells.
        try:
            self.ident = self._identify()
            self.layout = self._read_layout()
        except BaseException:
            transport.close()
            raise

    @classmethod
    def open(
        cls, port: str | None = None, *, network: Network, baud: int = BAUD, **options: Any
    ) -> Self:
        """Open the device on a serial port: the only one on USB where ``None``.

        ``options`` are those of the class.
        """
        return cls(SerialTransport(port or find_port(), baud), network, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the line back."""
        self._line.close()

    @property
    def port(self) -> str:
        """Name of the line."""
        return self._line.name

    def now(self) -> float:
        """Return seconds on the line's own clock."""
        return self._line.now()

    @property
    def losses(self) -> Losses:
        return self.exchange.losses

    # Who it is --------------------------------------------------------------------------------

    def _identify(self) -> Ident:
        payload = self._knock()
        try:
            ident = Ident.decode(payload)
        except ConfigError as error:
            raise DeviceProblem(f"{self._line.name}: {error}: build the device again") from None
        wanted = digest(self.network)
        if ident.digest != wanted:
            raise DeviceProblem(
                f"{self._line.name}: the device has another network ({ident.digest.hex()}), not "
                f"{self.network.name} ({wanted.hex()}): load its bitstream, or give its model"
            )
        if not ident.credits:
            raise DeviceProblem(f"{self._line.name}: the device takes no frames: build it again")
        self.exchange.expect(ident.result_bytes)
        return ident

    def _knock(self) -> bytes:
        answer = self._attempt(Kind.IDENT, b"", KNOCKS)
        if isinstance(answer, bytes):
            return answer
        where = self._line.name
        version = self.exchange.strange
        if version is None and answer == Reason.KIND:
            version = 0
        if version is not None:
            spoken = f"version {version}" if version else "another version"
            raise DeviceProblem(
                f"{where}: the device speaks {spoken} of the protocol, this host version "
                f"{VERSION}: build it again, or use the host that it was built with"
            )
        if self.exchange.heard:
            raise DeviceProblem(
                f"{where}: {self.exchange.heard:,} bytes came, but no valid answer: give the "
                "--baud that the device was built for"
            )
        raise DeviceProblem(
            f"{where}: no answer to {KNOCKS} requests, {self.timeout:g} s each: load the "
            "bitstream, reset the board, or choose another --port"
        )

    def _read_layout(self) -> FrameLayout:
        frame, result = (
            self.register(number) for number in (Register.FRAME_LAYOUT, Register.RESULT_LAYOUT)
        )
        return FrameLayout.of(self.network, self.ident, frame, result)

    # Single requests --------------------------------------------------------------------------

    def _attempt(self, kind: Kind, payload: bytes, tries: int) -> bytes | Reason | None:
        """Ask until an answer comes; return it, else why the last one did not."""
        reason = None
        self.exchange.forget()
        for attempt in range(tries):
            self.losses.repeated += attempt > 0
            self._send(kind, payload)
            while self.exchange.waiting:
                for event in self._listen():
                    if isinstance(event, Answered):
                        return event.payload
                    reason = event.reason
                    self._rest(event)
        return reason

    def _ask(self, kind: Kind, payload: bytes = b"") -> bytes:
        answer = self._attempt(kind, payload, self.tries)
        if isinstance(answer, bytes):
            return answer
        why = "no answer" if answer is None else f"refused ({answer.name.lower()})"
        raise DeviceProblem(
            f"{self._line.name}: {kind.name}: {why} in {self.tries} tries ({self.losses}): check "
            "cable and baud rate, or reset the board"
        )

    def register(self, number: Register) -> int:
        """Return the value of a register, 32 bits."""
        for _ in range(self.tries):
            found, value = register_of(self._ask(Kind.READ, bytes([number])))
            if found == number:
                return value
            self.losses.mismatched += 1
        raise DeviceProblem(f"{self._line.name}: the device answers with other registers: reset it")

    def registers(self) -> Mapping[Register, int]:
        """Return all registers by number. The cycle counter's halves belong together."""
        return {number: self.register(number) for number in Register}

    def clear(self) -> None:
        """Set the device's counters to 0."""
        self._ask(Kind.CLEAR)

    def selftest(self) -> bool:
        """Run the vectors inside the device; return whether all results were right."""
        if Flag.HAS_SELFTEST not in self.ident.flags:
            raise ConfigError(
                f"{self._line.name}: the device was built without a self-test: build it with one"
            )
        payload = self._ask(Kind.SELFTEST)
        self._refresh()
        return payload == b"\1"

    def _refresh(self) -> None:
        self.ident = Ident.decode(self._ask(Kind.IDENT))

    # Weights ----------------------------------------------------------------------------------

    def load(self, words: ArrayLike, progress: Progress | None = None) -> None:
        """Load the weights, words of 16 bits in the device's order, and check their CRC."""
        if Flag.NEEDS_LOAD not in self.ident.flags:
            raise ConfigError(
                f"{self._line.name}: the device has its weights inside: nothing to load"
            )
        data = np.asarray(words).astype("<u2")
        at = idle = 0
        while at < len(data):
            chunk = data[at : at + LOAD_WORDS]
            answer = self._ask(Kind.LOAD, at.to_bytes(4, "little") + chunk.tobytes())
            done = int.from_bytes(answer, "little")
            idle = idle + 1 if done <= at else 0
            if idle >= self.tries or done > len(data):
                raise DeviceProblem(
                    f"{self._line.name}: {done:,} words are loaded where {len(data):,} are to be: "
                    "reset the board, then load again"
                )
            at = done
            if progress:
                progress("load", at, len(data))
        if self.register(Register.LOAD_CRC) != zlib.crc32(data.tobytes()):
            raise DeviceProblem(
                f"{self._line.name}: the weights inside are not those that were sent: reset the "
                "board, then load again"
            )
        self._refresh()

    # Frames -----------------------------------------------------------------------------------

    def classify(self, images: NDArray, progress: Progress | None = None) -> NDArray[np.int64]:
        """Return the class of each image ``(n,)``: the index of the largest output.

        See :meth:`run`.
        """
        results = self.run(images, progress)
        if results.ndim == 1:
            return results.astype(np.int64)
        return results.reshape(len(results), -1).argmax(axis=1)

    def run(self, images: NDArray, progress: Progress | None = None) -> NDArray:
        """Return the integers of the network's output, ``(n, *output.shape)``.

        Parameters
        ----------
        images
            ``(n, …)`` integers in the format of the network's input.

        Raises
        ------
        ConfigError
            Images of the wrong shape, or with values out of range; nothing is sent.
        DeviceProblem
            The weights are not loaded; or a frame has no valid answer in all its tries.
        """
        payloads = self.layout.encode(self.network, np.asarray(images))
        if Flag.NEEDS_LOAD in self.ident.flags and Flag.LOADED not in self.ident.flags:
            raise self._not_loaded()
        answers = self._stream(payloads, progress)
        self.cycles = np.array([answer.cycles for answer in answers], np.int64)
        return self.layout.decode(self.network, [answer.result for answer in answers])

    def _not_loaded(self) -> DeviceProblem:
        return DeviceProblem(
            f"{self._line.name}: the device's weights are not loaded: load them first (--load)"
        )

    def _stream(self, payloads: list[bytes], progress: Progress | None) -> list[Answer]:
        """Keep as many frames in flight as the device takes, until each has its answer."""
        self.exchange.forget()
        answers: dict[int, Answer] = {}
        tries = [0] * len(payloads)
        queue = deque(range(len(payloads)))
        room = self.ident.credits
        while len(answers) < len(payloads):
            while queue and self.exchange.waiting < room:
                frame = queue.popleft()
                tries[frame] += 1
                self.losses.repeated += tries[frame] > 1
                self._send(Kind.FRAME, payloads[frame], frame)
            again: list[int] = []
            for event in self._listen():
                frame = event.request.tag
                if isinstance(event, Answered):
                    answers[frame] = Answer.decode(event.payload)
                else:
                    self._check_lost(event, tries[frame])
                    again.append(frame)
                    # What the device still works on is not ours to see: let it be done first.
                    room = 1 if event.reason == Reason.CREDIT else room
                if progress:
                    progress("frames", len(answers), len(payloads))
            queue.extendleft(reversed(again))
            if not again:
                room = self.ident.credits
        return [answers[frame] for frame in range(len(payloads))]

    def _check_lost(self, event: Lost, tries: int) -> None:
        if event.reason == Reason.LOAD:
            raise self._not_loaded()
        self._rest(event)
        if tries >= self.tries:
            raise DeviceProblem(
                f"{self._line.name}: frame {event.request.tag}: no valid answer in {tries} tries "
                f"({self.losses}): check cable and baud rate, or reset the board"
            )

    # Line -------------------------------------------------------------------------------------

    def _rest(self, event: Lost) -> None:
        """Let the device finish what is not asked for any longer, if that is its trouble."""
        if event.reason == Reason.CREDIT and not self.exchange.waiting:
            self.exchange.receive(self._line.read(self.timeout / 4))

    def _send(self, kind: Kind, payload: bytes, tag: int = 0) -> None:
        data = self.exchange.ask(kind, payload, tag)
        self._line.write(data)
        reply = LONGEST + self.exchange.result_bytes
        now = self._line.now()
        self._until = max(self._until, now) + (len(data) + reply) * self._line.byte_seconds

    def _listen(self) -> list[Answered | Lost]:
        """Return what became of requests, as soon as something did."""
        deadline = max(self._until, self._line.now()) + self.timeout
        while (left := deadline - self._line.now()) > 0:
            if events := self.exchange.receive(self._line.read(left)):
                return events
        return self.exchange.silence()
