"""Loading a bitstream into a board, by openFPGALoader."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from brambling.boards.family import FLOWS
from brambling.boards.parts import Board
from brambling.boards.process import Processes, Tell, last_lines, terminable
from brambling.boards.tools import LIBRARY, find
from brambling.errors import ConfigError, FileProblem, ToolProblem

__all__ = ["load_bitstream"]

ABSENT = re.compile(
    r"unable to open ftdi device|device not found|no .*found|can't find|libusb_error_not_found|"
    r"JTAG init failed|cable not found",
    re.IGNORECASE,
)
DENIED = re.compile(r"LIBUSB_ERROR_ACCESS|permission denied|usb_open\(\) failed", re.IGNORECASE)


def load_bitstream(
    path: Path,
    board: Board,
    tools: Mapping[str, str] | None = None,
    tell: Tell = lambda job, what: None,
) -> None:
    """Load a bitstream into the configuration memory of a board that is plugged in.

    Raises
    ------
    ConfigError, FileProblem
        The board cannot be loaded so; the file is none of its bitstreams.
    ToolProblem
        openFPGALoader is missing or finds no board.
    """
    if not board.programmer or board.part.family not in FLOWS:
        raise ConfigError(f"{board.name}: openFPGALoader has no arguments for it: load it yourself")
    suffix = FLOWS[board.part.family].suffix
    if path.suffix != f".{suffix}":
        raise FileProblem(f"{path}: a bitstream for {board.name} is a .{suffix} file")
    if not path.is_file() or not path.stat().st_size:
        raise FileProblem(f"{path}: no bitstream; make one: brambling build")
    found = find("openFPGALoader", tools)
    with terminable(), Processes() as processes, tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "load.log"
        command = (*found.command, *board.programmer, str(path.absolute()))
        try:
            processes.run(
                "openFPGALoader",
                command,
                Path(folder),
                log,
                lambda line: tell("loading", line.strip()),
            )
        except ToolProblem as error:
            raise _reason(board, log, error) from None


def _reason(board: Board, log: Path, error: ToolProblem) -> ToolProblem:
    """Return what a failure means for the user."""
    lines = last_lines(log)
    said = "\n".join(lines)
    if library := LIBRARY.search(said):
        return ToolProblem(
            f"openFPGALoader does not start, {library[1]} is missing: "
            "apt install libusb-1.0-0 libftdi1-2"
        )
    if DENIED.search(said):
        return ToolProblem(
            f"{board.name}: no permission to use its USB port: add udev rules for it "
            "(openFPGALoader's 99-openfpgaloader.rules), or load as root"
        )
    if ABSENT.search(said):
        return ToolProblem(
            f"{board.name}: openFPGALoader finds no such board: plug it in, by a cable with data "
            f"lines ({lines[-1]})"
        )
    status = str(error).partition(";")[0].removeprefix("openFPGALoader ")
    return ToolProblem(f"openFPGALoader {status}; its end:\n{said}")
