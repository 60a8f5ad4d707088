import importlib
import json
import re

import pytest

from brambling import verbs_precision
from brambling.cli import main

torch = pytest.importorskip("torch")
floats = pytest.importorskip("brambling.quant.floats")
models = pytest.importorskip("brambling.quant.models")


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A LeNet-5 with random weights; few images."""
    monkeypatch.setattr(verbs_precision, "IMAGES", 20)
    monkeypatch.setattr(verbs_precision, "CALIBRATION", 8)
    torch.manual_seed(0)
    file = tmp_path / "lenet5.safetensors"
    floats.save_float(file, models.lenet5(None), "lenet5", {})
    return file


def test_table(path, capsys):
    assert main(["precision", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "lenet5 on MNIST: 20 test images, 8 to calibrate"
    columns = ["method", "data bits", "weight bits", "data step", "weight step", "accuracy", "loss"]
    assert re.split(r" {2,}", lines[1].strip()) == columns
    methods = [line.split()[0] for line in lines[2:12]]
    assert methods == ["float", *["static", "dynamic"] * 4, "dynamic"]
    assert [line.split()[1:3] for line in lines[3:11:2]] == [[n, n] for n in ("16", "8", "6", "4")]
    assert "8 or 4" in lines[11]
    assert max(map(len, lines)) <= 80


def test_json(path, capsys):
    assert main(["precision", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["dataset"], found["images"]) == ("lenet5", "MNIST", 20)
    assert len(found["rows"]) == 10
    assert found["rows"][1]["choice"]["weights"]["1"].keys() == {"bits", "frac"}


def test_unknown_model(capsys):
    assert main(["precision", "alexnet"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "brambling: error: a float model is a .safetensors file or one of the zoo"
    )
    assert error.endswith("not 'alexnet'\n")


def test_a_network_is_no_float_model(capsys):
    path = verbs_precision.zoo.FOLDER / "tfc-w1a1.safetensors"
    assert main(["precision", str(path)]) == 2
    assert "float model version must be '1', not None" in capsys.readouterr().err


def test_missing_data(path, tmp_path, capsys):
    assert main(["precision", str(path), "--data", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


MINE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 5, stride=4), nn.Linear(144, 10)
        self.act, self.pool = nn.ReLU(), nn.Flatten()

    def forward(self, x):
        return self.fc(self.pool(self.act(self.conv(x.float() / 256))))

def three():
    return 3

def broken():
    raise ValueError("first\\nsecond")
"""


@pytest.fixture
def mine(path, tmp_path, monkeypatch):
    """A module with a network, in the working folder; weights for it."""
    (tmp_path / "mine_of_mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("mine_of_mine")
    weights = tmp_path / "mine.safetensors"
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file(module.Net().state_dict(), weights)
    return weights


def test_network_of_ones_own(mine, capsys):
    argv = ["precision", "mine_of_mine:Net", "--weights", str(mine), "--dataset", "MNIST", "--json"]
    assert main(argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["dataset"], found["images"]) == ("Net", "MNIST", 20)
    assert found["rows"][1]["choice"]["weights"].keys() == {"conv", "fc"}
    assert found["rows"][1]["choice"]["data"].keys() == {"act"}


@pytest.mark.parametrize(
    ("name", "dataset", "message"),
    [
        ("no_such_module:Net", "MNIST", "cannot be called (ModuleNotFoundError: No module named"),
        ("mine_of_mine:Nothing", "MNIST", "cannot be called (AttributeError: "),
        ("mine_of_mine:broken", "MNIST", "cannot be called (ValueError: first)"),
        ("mine_of_mine:three", "MNIST", "must return a torch.nn.Module, not int"),
        ("mine_of_mine:Net", "CIFAR-10", "fails on pixels (2, 3, 32, 32) (RuntimeError: "),
        ("torch.nn:Flatten", "MNIST", "tensor conv.bias must be absent for torch.nn:Flatten, not"),
    ],
)
def test_network_of_ones_own_that_does_not_work(mine, capsys, name, dataset, message):
    assert main(["precision", name, "--weights", str(mine), "--dataset", dataset]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_network_of_ones_own_needs_weights_and_images(path, capsys):
    for argv, message in (
        (["mine:Net"], "mine:Net: a model of yours needs --weights and --dataset"),
        ([str(path), "--dataset", "MNIST"], f"{path}: --weights and --dataset go with a package"),
    ):
        assert main(["precision", *argv]) == 2
        assert message in capsys.readouterr().err
