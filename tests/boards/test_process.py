"""Programs that run for long: logs, failures, and that none is left behind."""

import os
import pathlib
import signal
import sys
import threading
import time

import pytest

from brambling.boards.process import (
    Processes,
    Stopped,
    failure,
    last_lines,
    terminable,
)
from brambling.errors import ToolProblem


def python(code):
    return [sys.executable, "-ISc", code]


def alive(pid):
    """Whether a process runs; one that has ended and that nobody has asked for does not."""
    try:
        with pathlib.Path(f"/proc/{pid}/stat").open() as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_it_says_is_told_and_kept(tmp_path):
    said = []
    log = tmp_path / "x.log"
    with Processes() as processes:
        usage = processes.run("x", python("print('one'); print('two')"), tmp_path, log, said.append)
    assert said == ["one", "two"]
    assert log.read_text() == "one\ntwo\n"
    assert usage.seconds > 0
    assert usage.cpu_seconds is not None
    assert usage.cpu_seconds > 0
    assert usage.memory_bytes is not None
    assert usage.memory_bytes > 1e6


def test_a_log_of_its_own_is_followed_and_completed(tmp_path):
    said = []
    code = "open('own.log', 'w').write('pass 1\\n'); print('and an error')"
    with Processes() as processes:
        processes.run(
            "x",
            python(code),
            tmp_path,
            tmp_path / "x.out",
            said.append,
            follow=tmp_path / "own.log",
        )
    assert said == ["pass 1"]
    assert (tmp_path / "own.log").read_text() == "pass 1\nand an error\n"
    assert not (tmp_path / "x.out").exists()


def test_environment_and_folder(tmp_path):
    code = "import os; print(os.environ['BRAMBLING_X'], os.getcwd())"
    with Processes() as processes:
        processes.run(
            "x", python(code), tmp_path, tmp_path / "x.log", environment={"BRAMBLING_X": "7"}
        )
    assert (tmp_path / "x.log").read_text() == f"7 {tmp_path}\n"


def fail(tmp_path, code):
    with Processes() as processes, pytest.raises(ToolProblem) as caught:
        processes.run("nextpnr-ecp5", python(code), tmp_path, tmp_path / "x.log")
    return str(caught.value)


def remedy(tmp_path):
    return (
        "name a native one (--tool nextpnr-ecp5=PATH), build fewer seeds at a time (--jobs 1), or "
        f"plan a smaller design (--goal min-area or fps=N); log: {tmp_path / 'x.log'}"
    )


def test_a_failure_shows_the_end_of_the_log(tmp_path):
    code = "for n in range(20): print('line', n)\nraise SystemExit(3)"
    assert fail(tmp_path, code) == (
        f"nextpnr-ecp5 failed with status 3; log: {tmp_path / 'x.log'}; its end:\n"
        + "\n".join(f"line {n}" for n in range(12, 20))
    )


def test_killed(tmp_path):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert fail(tmp_path, code) == (
        "nextpnr-ecp5 was killed (signal 9), as systems do where memory runs out: "
        + remedy(tmp_path)
    )


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("std::bad_alloc", "ran out of memory"),
        ("MemoryError: failed to allocate", "ran out of memory"),
        ("wasm trap: call stack exhausted", "ran out of stack"),
        (
            "wasm trap: wasm `unreachable` instruction executed",
            "was stopped by WebAssembly, whose memory ends at 4 GB",
        ),
    ],
)
def test_exhausted(tmp_path, said, what):
    code = f"print({said!r}); raise SystemExit(134)"
    assert fail(tmp_path, code) == f"nextpnr-ecp5 {what}: {remedy(tmp_path)}"


def test_a_failed_assertion_is_not_taken_for_want_of_memory(tmp_path):
    (tmp_path / "x.log").write_text("Assertion failure: x > 0\nwasm trap: unreachable\n")
    assert str(failure("x", 1, tmp_path / "x.log")).startswith("x failed with status 1; log: ")


def test_errors_are_shown_though_much_comes_after_them(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("".join(f"{n}\n" for n in range(9)) + "ERROR: the reason\n" + "more\n" * 30)
    assert last_lines(log, 3) == ["ERROR: the reason", "more", "more"]
    log.write_text("x" * 1000)
    assert [len(line) for line in last_lines(log)] == [160]
    assert last_lines(tmp_path / "absent.log") == []


def test_a_program_that_is_not_there(tmp_path):
    with Processes() as processes, pytest.raises(ToolProblem) as caught:
        processes.run("x", ["/nowhere/x"], tmp_path, tmp_path / "x.log")
    assert str(caught.value).startswith("x: /nowhere/x does not start ([Errno 2] No such file")


SLEEPER = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
if not os.fork():
    open('child', 'w').write(str(os.getpid()))
    time.sleep(60)
open('parent', 'w').write(str(os.getpid()))
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no groups of processes")
def test_an_error_ends_all_that_was_started(tmp_path, monkeypatch):
    monkeypatch.setattr("brambling.boards.process.PATIENCE", 0.2)
    ended = []

    def run(processes):
        try:
            processes.run("x", python(SLEEPER), tmp_path, tmp_path / "x.log")
        except Stopped:
            ended.append("stopped")

    def written(name):
        return (tmp_path / name).exists() and (tmp_path / name).read_text()

    def interrupted(processes):
        with processes:
            thread.start()
            wait_for(lambda: written("child") and written("parent"))
            raise KeyboardInterrupt

    processes = Processes()
    thread = threading.Thread(target=run, args=(processes,))
    with pytest.raises(KeyboardInterrupt):
        interrupted(processes)
    thread.join(10)
    assert ended == ["stopped"]
    for name in ("child", "parent"):
        wait_for(lambda name=name: not alive(int((tmp_path / name).read_text())))
    with pytest.raises(Stopped):
        processes.run("x", python("pass"), tmp_path, tmp_path / "y.log")


def test_an_interrupt_while_it_is_watched_ends_it(tmp_path):
    def interrupt(line):
        raise KeyboardInterrupt

    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with Processes() as processes, pytest.raises(KeyboardInterrupt):
        processes.run("x", python(code), tmp_path, tmp_path / "x.log", interrupt)
    wait_for(lambda: not alive(int((tmp_path / "x.log").read_text().split()[0])))


def test_termination_is_an_interrupt_within_and_not_after():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminable():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
