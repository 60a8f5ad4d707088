"""Random QONNX graphs as networks: every tensor equals the real qonnx's, and all have engines."""

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings  # noqa: E402

from brambling import api  # noqa: E402
from brambling.errors import BramblingError  # noqa: E402
from brambling.origin import origin_of  # noqa: E402
from brambling.quant.interchange import check, reader  # noqa: E402
from brambling.quant.interchange.importer import Imported, Options, import_graph  # noqa: E402
from brambling.simulation import simulate  # noqa: E402

from . import qonnx_graphs, real_qonnx  # noqa: E402

BOARD = "ulx3s-85f"
AT_ONCE = 250  #: Graphs that one process of qonnx executes.
COMPILER = next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)


@dataclass
class Tally:
    """What became of graphs, by the seed."""

    equal: int = 0
    codes: int = 0
    carried: int = 0
    tied: dict[int, int] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    wrong: dict[int, str] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = [
            f"{self.equal} graphs equal in all codes, {self.codes:,} with those of others",
            f"{sum(self.tied.values())} ties in {len(self.tied)}; {self.carried} codes follow",
            *(f"{seed} refused: {why}" for seed, why in self.refused.items()),
            *(f"{seed} wrong: {why}" for seed, why in self.wrong.items()),
        ]
        return "\n".join(rows)


def imported(case: qonnx_graphs.Case) -> Imported:
    return import_graph(reader.parse(case.model, "random"), Options(case.input_scale))


def frames(made: Imported, case: qonnx_graphs.Case):
    origin = origin_of(made.network)
    assert origin is not None
    return origin.input.frames(case.inputs, made.network.input)


def executed(seeds: Iterable[int], folder: Path) -> Iterator[tuple[int, qonnx_graphs.Case, dict]]:
    """Graphs with what the real qonnx makes of their tensors."""
    cases = {seed: qonnx_graphs.graph(seed) for seed in seeds}
    for seed, case in cases.items():
        onnx.save(case.model, folder / f"{seed}.onnx")
    jobs = [(folder / f"{seed}.onnx", case.inputs) for seed, case in cases.items()]
    tensors = real_qonnx.execute(jobs)
    for (seed, case), found in zip(cases.items(), tensors, strict=True):
        yield seed, case, found


def compare(tally: Tally, seed: int, case: qonnx_graphs.Case, tensors: dict):
    """Compare all tensors of a graph that have a meaning."""
    try:
        made = imported(case)
    except BramblingError as why:
        tally.refused[seed] = str(why)
        return
    lacking = set(made.tensors) - set(tensors) - {made.graph.input}
    if lacking:
        tally.wrong[seed] = f"qonnx does not have {sorted(lacking)}"
        return
    try:
        found = check.check(made, case.inputs, executed=tensors)
    except BramblingError as why:
        tally.wrong[seed] = str(why)
        return
    ties = sum(found.ties.values())
    if case.exact and (ties or found.carried or found.outputs):
        tally.wrong[seed] = f"nothing rounds, but {found}"
    tally.codes += found.codes
    tally.carried += found.carried
    if ties:
        tally.tied[seed] = ties
    else:
        tally.equal += 1


@pytest.mark.parametrize(
    "count", [100, pytest.param(2000, marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_every_tensor_is_that_of_the_real_qonnx(count, tmp_path):
    real_qonnx.require()
    tally = Tally()
    for start in range(0, count, AT_ONCE):
        for seed, case, tensors in executed(range(start, min(count, start + AT_ONCE)), tmp_path):
            compare(tally, seed, case, tensors)
    print(tally)  # with pytest -s, and where the test fails
    assert not tally.wrong, tally
    assert not tally.refused, tally  # The generator makes valid graphs only.
    assert tally.equal + len(tally.tied) == count
    assert len(tally.tied) <= 0.05 * count, tally  # They are rare, or the bounds are loose.


def test_a_wrong_tensor_is_found(tmp_path):
    real_qonnx.require()
    ((seed, case, tensors),) = executed([3], tmp_path)
    made = imported(case)
    name = next(
        node.outputs[0]
        for node in made.graph.nodes
        if node.op == "Conv" and node.outputs[0] in made.tensors
    )
    tensors[name] = np.where(tensors[name] == tensors[name].flat[0], 99, tensors[name])
    tally = Tally()
    compare(tally, seed, case, tensors)
    (why,) = tally.wrong.values()
    assert why.startswith(f"random: image 0: {name} of ")
    assert "is 99 in the model and" in why


@settings(
    max_examples=50,
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(qonnx_graphs.cases())
def test_every_tensor_is_that_of_our_own_execution(case):
    found = check.check(imported(case), case.inputs)
    assert found.images == len(case.inputs)
    if case.exact:
        assert (sum(found.ties.values()), found.carried, found.outputs) == (0, 0, 0), found


# Hardware -----------------------------------------------------------------------------------------


#: Seeds whose networks are planned in a short time.
SHORT = (0, 1, 2, 6, 8, 11, 13, 15, 17, 22, 24, 29)


@pytest.mark.parametrize(
    "seeds", [SHORT, pytest.param(range(40), marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_every_layer_has_an_engine(seeds):
    for seed in seeds:
        case = qonnx_graphs.graph(seed)
        made = imported(case)
        plan = api.plan(made.network, BOARD, "min-area")
        result = simulate(made.network, plan, frames(made, case), engine="golden")
        assert result.frames == len(case.inputs), seed
        assert result.interval_cycles > 0, seed


@pytest.mark.parametrize(
    ("engine", "seed"),
    [
        *(("pysim", seed) for seed in (9, 10, 20)),
        *(pytest.param("verilator", seed, marks=pytest.mark.slow) for seed in (9, 12, 20)),
    ],
)
def test_hardware_computes_the_same(engine, seed):
    """At every beat of every edge, also its cycle."""
    if engine == "verilator" and not (COMPILER and shutil.which("make")):
        pytest.skip("there is no C++ compiler, or no make")
    case = qonnx_graphs.graph(seed)
    made = imported(case)
    plan = api.plan(made.network, BOARD, "max-fps")
    result = simulate(made.network, plan, frames(made, case)[:2], engine=engine)
    assert result.equal_to_golden
    assert result.cycles_equal_to_model
    assert result.beats_compared > 0
