"""Damaged files are imported, or refused in one line: no traceback, no hang, no flood of memory."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tflite")

WORKER = Path(__file__).with_name("tflite_mutations.py")


def outcomes(first, last, folder):
    """What came of each case, tried in a process with limits."""
    done = subprocess.run(
        [sys.executable, str(WORKER), str(first), str(last), str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == last - first, f"case {first + len(lines)} ended it: {done.stderr[-2000:]}"
    wrong = [f"case {first + n}: {line}" for n, line in enumerate(lines) if line[0] not in "=-"]
    assert not wrong, "\n".join(wrong[:20])
    return lines


def test_damaged_files(tmp_path):
    lines = outcomes(0, 300, tmp_path)
    assert sum(line.startswith("-") for line in lines) > 100
    assert sum(line.startswith("=") for line in lines) > 20


@pytest.mark.slow
@pytest.mark.parametrize("first", range(300, 10_300, 1000))
def test_many_damaged_files(first, tmp_path):
    outcomes(first, first + 1000, tmp_path)
