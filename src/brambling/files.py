"""Writing files so that nothing half-written is ever left behind."""

import os
import tempfile
from pathlib import Path

from brambling.errors import FileProblem

__all__ = ["write_atomically"]


def write_atomically(path: Path, contents: bytes | str) -> None:
    """Write beside ``path``, then rename: a reader sees the old file or the whole new one."""
    if isinstance(contents, str):
        contents = contents.encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise FileProblem(f"{path}: cannot be written ({error.strerror})") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(contents)
        umask = os.umask(0)
        os.umask(umask)
        Path(beside).chmod(0o666 & ~umask)
        Path(beside).replace(path)
    except BaseException as error:
        Path(beside).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise FileProblem(f"{path}: cannot be written ({error.strerror})") from None
        raise
