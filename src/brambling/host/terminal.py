"""A pseudo-terminal with a simulated device at its other end: a serial port without a board."""

import os
import threading
from typing import Self

from brambling.errors import ConfigError
from brambling.host.transport import Transport

__all__ = ["Terminal"]

STEP = 0.002  #: Seconds, of the device, in which it may say something before bytes are looked for.
BLOCK = 4096


class Terminal:
    """Serves ``transport`` on a pseudo-terminal until it is closed; only on POSIX systems.

    Attributes
    ----------
    port
        What to open: a path that pyserial takes. The baud rate has no meaning.
    """

    def __init__(self, transport: Transport) -> None:
        try:
            import termios
            import tty
        except ImportError:
            raise ConfigError(
                "pseudo-terminals are not on this system: use the transport itself"
            ) from None
        self._transport = transport
        self._ours, self._theirs = os.openpty()
        tty.setraw(self._theirs, termios.TCSANOW)
        os.set_blocking(self._ours, False)
        self.port = os.ttyname(self._theirs)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                heard = os.read(self._ours, BLOCK)
            except BlockingIOError:
                heard = b""
            if heard:
                self._transport.write(heard)
            said = self._transport.read(STEP)
            while said and not self._stop.is_set():
                try:
                    said = said[os.write(self._ours, said) :]
                except BlockingIOError:
                    self._stop.wait(STEP)
            if not heard:
                self._stop.wait(STEP / 4)

    def close(self) -> None:
        """End the thread, then the terminal and the device."""
        self._stop.set()
        self._thread.join()
        self._transport.close()
        os.close(self._ours)
        os.close(self._theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
