"""Designs with a bus: what is written, and what is refused."""

from dataclasses import replace

import pytest

from brambling.errors import ConfigError
from brambling.generate_bus import generate_bus


@pytest.fixture
def case(small_network, hand_plan, tmp_path):
    network = small_network((6, 4, 3))
    return network, hand_plan(network), tmp_path


@pytest.mark.parametrize(
    ("bus", "ports"), [("axi", ["s_axil_awaddr", "s_axil_rdata"]), ("wishbone", ["wb_adr"])]
)
def test_files(case, bus, ports):
    network, plan, folder = case
    verilog, header = generate_bus(network, plan, folder, bus)
    assert (verilog.name, header.name) == (f"small_{bus}.v", f"small_{bus}.h")
    text = verilog.read_text()
    assert f"module small_{bus}(" in text
    for port in ("s_axis_tdata", "s_axis_tlast", "m_axis_tready", "clk", "rst", *ports):
        assert f" {port};" in text
    name = f"SMALL_{bus.upper()}"
    assert f"#define {name}_CONTROL 0x08u\n" in header.read_text()
    before = text, header.read_text()
    generate_bus(network, plan, folder, bus)
    assert (verilog.read_text(), header.read_text()) == before


def test_weights_that_must_be_loaded_are_refused(case):
    network, plan, folder = case
    stages = tuple(
        replace(stage, weights="spram") if stage.engine == "xnor" else stage
        for stage in plan.stages
    )
    with pytest.raises(ConfigError) as caught:
        generate_bus(network, replace(plan, board="icebreaker", stages=stages), folder, "axi")
    assert str(caught.value) == (
        "fc1, fc2: weights must be loaded (spram), for which this bus has no port: use block"
    )
    assert not list(folder.iterdir())


def test_the_command_line(case, run):
    network, plan, folder = case
    network.save(folder / "small.safetensors")
    plan.save(folder / "plan.toml")
    out = folder / "out"
    arguments = ("generate", folder / "small.safetensors", "--plan", folder / "plan.toml")
    status, said, _ = run(*arguments, "-o", out, "--bus", "axi")
    assert status == 0
    assert said.splitlines()[-2:] == [str(out / "small_axi.v"), str(out / "small_axi.h")]
    assert (out / "small_axi.v").is_file()
