"""What carries bytes between host and device: a serial port, or anything with the same methods."""

import time
from typing import Any, Protocol

from brambling.errors import ConfigError, DeviceProblem

__all__ = ["BAUD", "SerialTransport", "Transport", "find_port"]

BAUD = 115_200
PATIENCE = 0.02  #: Seconds of one wait; to change it would set up the port anew each time.
BITS = 10  #: Of a byte on a serial line: start, 8, stop.


class Transport(Protocol):
    """A line to a device.

    Attributes
    ----------
    name
        Of the line, for messages.
    byte_seconds
        How long a byte takes, on the line's own clock.
    """

    name: str
    byte_seconds: float

    def now(self) -> float:
        """Seconds, on the line's own clock: that of a simulation, or of the world."""
        ...

    def write(self, data: bytes) -> None:
        """Send bytes; they may still be under way when it returns."""
        ...

    def read(self, timeout: float) -> bytes:
        """Return what has come; wait ``timeout`` seconds for it at most. Empty: nothing came."""
        ...

    def close(self) -> None:
        """Give the line back. Nothing else is called after it."""
        ...


def pyserial() -> Any:
    """Return the module ``serial``."""
    try:
        import serial
    except ImportError:
        raise ConfigError(
            "serial ports need pyserial, which is not installed: pip install 'brambling[host]'"
        ) from None
    return serial


def find_port() -> str:
    """Return the only serial port on USB; say which there are where there is not just one."""
    pyserial()
    from serial.tools import list_ports

    found = sorted(port.device for port in list_ports.comports() if port.vid is not None)
    if len(found) == 1:
        return found[0]
    if not found:
        raise DeviceProblem("no serial port on USB: connect the board, or name a port with --port")
    raise DeviceProblem(f"several serial ports, {', '.join(found)}: choose one with --port")


class SerialTransport:
    """A serial port, 8N1, through pyserial.

    Parameters
    ----------
    port
        ``/dev/ttyUSB0``, ``COM3``, or what else pyserial opens.
    baud
        Bits a second, as the device was built for.

    Raises
    ------
    DeviceProblem
        The port is absent, in use by another program, or may not be opened.
    """

    def __init__(self, port: str, baud: int = BAUD) -> None:
        serial = pyserial()
        if baud < 1:
            raise ConfigError(f"baud must be at least 1, not {baud}")
        self.name = port
        self.byte_seconds = BITS / baud
        self._broken = (serial.SerialException, OSError)
        try:
            # Exclusive: two hosts on one line would take each other's answers.
            self._port = serial.Serial(port, baud, timeout=PATIENCE, exclusive=True)
        except (serial.SerialException, OSError, ValueError) as error:
            raise _refused(port, baud, error) from None
        self._port.reset_input_buffer()

    def now(self) -> float:
        """See :class:`Transport`."""
        return time.monotonic()

    def write(self, data: bytes) -> None:
        """See :class:`Transport`."""
        try:
            self._port.write(data)
        except self._broken as error:
            raise self._lost(error) from None

    def read(self, timeout: float) -> bytes:
        """See :class:`Transport`."""
        try:
            end = self.now() + timeout
            while not (first := self._port.read(1)) and self.now() < end:
                pass
            return first + self._port.read(self._port.in_waiting) if first else b""
        except self._broken as error:
            raise self._lost(error) from None

    def close(self) -> None:
        """See :class:`Transport`."""
        self._port.close()

    def _lost(self, error: Exception) -> DeviceProblem:
        return DeviceProblem(f"{self.name}: the port went away ({error}): connect the board again")


def _refused(port: str, baud: int, error: Exception) -> DeviceProblem | ConfigError:
    """Say why a port cannot be opened, and what helps."""
    text = str(error)
    number = getattr(error, "errno", None)
    if isinstance(error, ValueError):
        return ConfigError(f"{port}: {baud:,} baud is no rate of this port: choose another --baud")
    if isinstance(error, FileNotFoundError) or number == 2 or "FileNotFoundError" in text:
        return DeviceProblem(
            f"{port}: no such port: connect the board, or name another with --port"
        )
    if "lock" in text or number in {11, 16} or "busy" in text.lower():
        return DeviceProblem(f"{port}: in use by another program: close it, or choose another port")
    if number == 13 or "Permission" in text or "Access is denied" in text:
        return DeviceProblem(
            f"{port}: may not be opened: join the group that owns it (often dialout), or close the "
            "program that uses it"
        )
    return DeviceProblem(f"{port}: cannot be opened ({text}): name another port with --port")
