"""The verb ``host``: a device in Python behind a line, or behind a real port."""

import json

import numpy as np
import pytest

from brambling.host import Device, ModelDevice
from brambling.host.terminal import Terminal
from brambling.sim import golden


@pytest.fixture
def case(small_network, hand_plan, tmp_path):
    """A network, its plan and images as files; the classes that are right."""
    network = small_network((11, 6, 5), seed=3)
    plan = hand_plan(network, [(4, 4), (2, 3), (1, 2), (1, 1)])
    images = np.random.default_rng(5).integers(0, 256, (40, 11)).astype(np.uint8)
    network.save(tmp_path / "small.safetensors")
    plan.save(tmp_path / "plan.toml")
    np.save(tmp_path / "images.npy", images)
    last = network.layers[-1].name
    found = golden.run(network, images, edges=(last,))[last]
    return network, plan, found, tmp_path


def arguments(folder, *more):
    return (
        "host",
        folder / "small.safetensors",
        "--plan",
        folder / "plan.toml",
        "--images",
        folder / "images.npy",
        *more,
    )


def test_simulated(case, run):
    network, plan, found, folder = case
    status, out, _ = run(*arguments(folder, "--simulate", "--selftest", "--registers", "--json"))
    assert status == 0
    report = json.loads(out)
    classes, counts = np.unique(found, return_counts=True)
    expected = {str(index): int(n) for index, n in zip(classes, counts, strict=True)}
    model = ModelDevice.of(network, plan)
    assert report["classes"] == expected
    assert (report["frames"], report["selftest"], report["simulated"]) == (40, True, True)
    assert (report["port"], report["clock_hz"]) == ("model", plan.clock_hz)
    assert report["latency_cycles"] == model.latency
    assert report["registers"]["frames"] == 40
    assert report["frames_per_second"] == pytest.approx(40 / report["seconds"])
    assert not any(report["losses"].values())


def test_on_a_port(case, run):
    pytest.importorskip("serial")
    pytest.importorskip("termios")
    network, plan, _, folder = case
    with Terminal(ModelDevice.of(network, plan)) as terminal:
        status, out, _ = run(*arguments(folder, "--port", terminal.port, "--frames", 7))
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == f"small on {terminal.port}, 100 MHz"
    assert lines[1].split() == ["class", "images"]
    assert sum(int(line.split()[1]) for line in lines[2:] if len(line.split()) == 2) == 7
    assert any(line.startswith("7 frames in ") and "line included" in line for line in lines)
    assert lines[-1].startswith("lost on the line: ")


def test_accuracy(case, run):
    _, _, found, folder = case
    labels = found.copy()
    labels[:10] = (labels[:10] + 1) % 5
    header = (0x801).to_bytes(4, "big") + len(labels).to_bytes(4, "big")
    (folder / "labels").write_bytes(header + labels.astype(np.uint8).tobytes())
    status, out, _ = run(*arguments(folder, "--simulate", "--labels", folder / "labels"))
    assert status == 0
    assert "accuracy: 75.00%" in out.splitlines()


def test_only_what_is_asked_for(case, run):
    _, _, _, folder = case
    model = folder / "small.safetensors", "--plan", folder / "plan.toml"
    status, out, _ = run("host", *model, "--simulate", "--selftest")
    assert status == 0
    assert out.splitlines() == [
        "small on model, 100 MHz",
        "self-test: passed",
        "lost on the line: nothing",
    ]


def test_a_failed_selftest_is_the_status(case, run, monkeypatch):
    _, _, _, folder = case
    monkeypatch.setattr(Device, "selftest", lambda self: False)
    status, out, _ = run(*arguments(folder, "--simulate", "--selftest"))
    assert status == 1
    assert "self-test: FAILED" in out


def test_refusals(case, refused):
    _, _, _, folder = case
    model = folder / "small.safetensors"
    assert refused("host", model, "--load") == (
        "--load needs the plan that the device was built from: give --plan"
    )
    assert refused("host", model, "--simulate", "--port", "/dev/x") == (
        "--simulate needs no port: give --port or --simulate, not both"
    )
    pytest.importorskip("serial")
    assert refused(*arguments(folder, "--port", "/dev/absent")) == (
        "/dev/absent: no such port: connect the board, or name another with --port"
    )
