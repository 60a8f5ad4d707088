"""Damaged files become networks, or are refused in one line: no traceback, no hang, no flood."""

from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from brambling.quant.interchange.models import read

from .mutations import ROAD, models, mutant, survey


def tried(count: int, folder: Path, seed: int):
    outcomes = survey(ROAD, count, folder, seed)
    wrong = [outcome for outcome in outcomes if not outcome.good]
    assert not wrong, "\n".join(map(str, wrong[:20]))
    return Counter(outcome.kind for outcome in outcomes)


@pytest.mark.parametrize("name", models())
def test_the_models_are_valid_before_they_are_damaged(name, tmp_path):
    path = tmp_path / f"{name}.onnx"
    path.write_bytes(models()[name].SerializeToString())
    assert read(path).network.layers


def test_a_case_is_the_same_each_time():
    assert mutant(7) == mutant(7)
    assert len({mutant(case) for case in range(50)}) == 50


def test_damaged_files(tmp_path):
    counts = tried(300, tmp_path, seed=0)
    assert counts["refused"] > 100
    assert counts["read"] > 30


@pytest.mark.slow
def test_many_damaged_files(tmp_path):
    tried(10_000, tmp_path, seed=1)


def test_what_must_not_be_is_noticed(tmp_path):
    outcomes = survey("builtins:int", 2, tmp_path)
    assert [(outcome.kind, outcome.good) for outcome in outcomes] == [("failed", False)] * 2
    assert outcomes[0].message.startswith("TypeError: int() argument must be a string")
