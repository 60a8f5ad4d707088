"""Generated folders: what is in them, that they are reproducible, and what is refused."""

import re
from dataclasses import asdict, replace

import numpy as np
import pytest

from brambling.errors import ConfigError, FileProblem
from brambling.generate import BENCH_FRAMES, generate, port_map, random_frames
from brambling.hw.accelerator import edges, pipeline
from brambling.hw.load import load_words
from brambling.network import Network, Tensor
from brambling.plan import Plan
from brambling.quant.formats import Bipolar, Fixed, Ternary

ROWS = [(4, 4), (3, 5), (2, 8), (1, 3)]


@pytest.fixture(scope="module")
def network(small_network):
    made = small_network((14, 8, 6), 2, falling=True, name="my-net.v2")
    return replace(
        made,
        classes=tuple("abcdef"),
        normalisation="grey, 0 to 255",
        provenance={"accuracy": 0.875},
    )


@pytest.fixture(scope="module")
def plan(network, hand_plan):
    return hand_plan(network, ROWS, queue=2)


@pytest.fixture(scope="module")
def made(network, plan, tmp_path_factory):
    return generate(network, plan, tmp_path_factory.mktemp("design") / "deep" / "folder")


def test_files(made, network, plan):
    assert {path.name for path in made.folder.iterdir()} == {
        "my_net_v2.v",
        "plan.toml",
        "my-net.v2.safetensors",
        "ports.md",
        "README.md",
        "lint.vlt",
        "testbench",
    }
    assert {"run.py", "cocotb_bench.py", "scenarios.json"} <= {
        path.name for path in made.testbench.iterdir()
    }
    assert all(path.exists() for path in asdict(made).values() if path)
    assert Network.load(made.network) == network
    assert Plan.load(made.plan) == plan


def verilog_ports(text, module):
    """``{name: (direction, bits)}`` of a module in Verilog."""
    body = text.split(f"\nmodule {module}(")[1].split("\nendmodule")[0]
    found = re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\w+);$", body, re.MULTILINE)
    return {name: (direction, int(high or 0) + 1) for direction, high, name in found}


def test_the_port_map_is_that_of_the_verilog(made):
    text = made.ports.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (in|out) \| (\d+) \|", text, re.MULTILINE)
    told = {name: (f"{way}put", int(bits)) for name, way, bits in rows}
    assert told == verilog_ports(made.verilog.read_text(encoding="utf-8"), "my_net_v2")
    assert told["i__payload"] == ("input", 4 * 8 + 1)
    assert told["o__payload"] == ("output", 3 + 1)


def test_the_port_map_in_words(made, network, plan):
    text = made.ports.read_text(encoding="utf-8")
    assert text.startswith("# Ports of `my_net_v2`\n")
    for line in (
        "lane `n` (0 to 3) is bits `8*n + 7 : 8*n`, u8.0, unsigned; bit `32` is `first`",
        (
            "A frame is 14 elements (14:u8.0) in 4 beats; element `c` is in beat `c / 4`, "
            "lane `c % 4`. In the last beat lanes from 2 carry no meaning."
        ),
        "Input: grey, 0 to 255",
        "A result is one value (scalar:u3.0) in one beat, in lane 0.",
        "Classes: 0 a, 1 b, 2 c, 3 d, 4 e, 5 f",
        (
            "- `fc1.weights`: 9 words of 15 bits; word `f * 3 + s` is slot `s` of fold `f`: the "
            "weights of outputs from `f * 3` for 5 inputs; bit `k * 3 + p` is output `p`"
        ),
        "- `fc2.weights`: 3 words of 16 bits; word `f * 1 + s` is slot `s` of fold `f`",
    ):
        assert line in text
    for edge in edges(pipeline(network, plan)):
        assert f"- `{edge.name}`: instance `{edge.node}`, `{edge.port}__payload`, " in text


def test_the_map_of_full_beats_says_nothing_of_meaningless_lanes(small_network, hand_plan):
    network = small_network((8, 4))
    text = port_map(network, pipeline(network, hand_plan(network)))
    assert "no meaning" not in text
    assert "Classes" not in text
    assert "Input: 8:u8.0" in text


def test_the_readme_has_the_figures(made):
    text = made.readme.read_text(encoding="utf-8")
    assert "Planned for ulx3s-85f (ecp5-85f), goal hand, 100 MHz." in text
    assert re.search(r"Latency \d+ cycles \([\d.]+ µs\), one frame every \d+ cycles", text)
    assert "Accuracy: 87.50% on the test set." in text
    for path in filter(None, asdict(made).values()):
        name = f"{path.name}/" if path.is_dir() else path.name
        assert path in {made.folder, made.readme} or f"`{name}`" in text


def test_the_verilog_is_one_module_tree_without_paths(made):
    text = made.verilog.read_text(encoding="utf-8")
    modules = re.findall(r"^module \\?(\S+?) ?\(", text, re.MULTILINE)
    assert len(set(modules)) == len(modules)
    assert "my_net_v2" in modules
    assert all(name.split(".")[0] == "my_net_v2" for name in modules)
    instances = re.findall(r"^  \\?([\w.]+) +\\?\S+ ?\($", text, re.MULTILINE)
    assert set(instances) <= set(modules)
    for trace in (".py", "/work", "/home", "/usr", "/tmp", "\\src", "$readmem", str(made.folder)):
        assert trace not in text


def test_the_testbench_has_no_paths_either(made):
    for path in made.testbench.iterdir():
        assert str(made.folder).encode() not in path.read_bytes()
        assert b"/work" not in path.read_bytes()


def test_weights_in_spram_are_beside_the_verilog(network, plan, tmp_path):
    stages = [replace(s, weights="spram") if s.layer == "fc1" else s for s in plan.stages]
    plan = replace(plan, board="icebreaker", stages=tuple(stages))
    made = generate(network, plan, tmp_path)
    assert made.load == tmp_path / "load.bin"
    words = load_words(pipeline(network, plan))
    assert np.array_equal(np.frombuffer((tmp_path / "load.bin").read_bytes(), "<u2"), words)
    assert len(words) == 9

    text, ports = made.verilog.read_text(encoding="utf-8"), made.ports.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (in|out) \| (\d+) \|", ports, re.MULTILINE)
    told = {name: (f"{way}put", int(bits)) for name, way, bits in rows}
    assert told == verilog_ports(text, "my_net_v2")
    assert told["load__payload"] == ("input", 16)
    assert "before 9 words of 16 bits have come, in order: `fc1.weights`, words 0 to 8." in ports
    readme = made.readme.read_text(encoding="utf-8")
    assert "with all weights inside but those of `fc1`, which must be loaded, and" in readme
    assert "| `load.bin` | the words to load, see `ports.md` |\n| `plan.toml` |" in readme
    assert "synth_ice40 -dsp -top my_net_v2" in readme
    assert Plan.load(made.plan) == plan


def test_refuses_spram_on_a_part_without_and_writes_nothing(network, plan, tmp_path):
    stages = [replace(s, weights="spram") if s.layer == "fc2" else s for s in plan.stages]
    message = (
        "fc2: weights can be in SPRAM on ice40-up5k, not on ecp5-85f of ulx3s-85f: use 'block' or "
        "'lut'"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        generate(network, replace(plan, stages=tuple(stages)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fmt", [Bipolar(), Ternary(), Fixed(5, 2), Fixed(64)], ids=str)
def test_random_frames_are_codes_of_the_input(fmt):
    images = random_frames(Tensor((30, 2), fmt))
    assert images.shape == (BENCH_FRAMES, 60)
    assert fmt.holds(images)
    assert np.array_equal(images, random_frames(Tensor((30, 2), fmt)))


def test_the_frames_of_the_testbench_may_be_given(network, plan, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 14), np.uint8)
    made = generate(network, plan, tmp_path / "a", images)
    other = generate(network, plan, tmp_path / "b", 255 - images)
    assert made.verilog.read_bytes() == other.verilog.read_bytes()
    name = "testbench/back_to_back.npz"
    assert (made.folder / name).read_bytes() != (other.folder / name).read_bytes()


def test_the_same_again_byte_for_byte(made, network, plan, tmp_path):
    again = generate(network, plan, tmp_path)
    paths = [path for path in made.folder.rglob("*") if path.is_file()]
    assert len(paths) == len([path for path in again.folder.rglob("*") if path.is_file()]) > 8
    for path in paths:
        other = again.folder / path.relative_to(made.folder)
        assert other.read_bytes() == path.read_bytes(), path.name


def test_generating_from_its_own_files_gives_the_same(made, tmp_path):
    again = generate(Network.load(made.network), Plan.load(made.plan), tmp_path)
    assert again.verilog.read_bytes() == made.verilog.read_bytes()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()], ids=repr)
def test_an_interruption_leaves_nothing_half_written(network, plan, tmp_path, monkeypatch, error):
    def interrupt(component, name):
        raise error

    monkeypatch.setattr("brambling.generate.to_verilog", interrupt)
    with pytest.raises(type(error)):
        generate(network, plan, tmp_path)
    monkeypatch.undo()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "plan.toml", "my-net.v2.safetensors", "ports.md", "README.md", "lint.vlt", "testbench"
    }  # fmt: skip
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
    assert Plan.load(tmp_path / "plan.toml") == plan
    assert Network.load(tmp_path / "my-net.v2.safetensors") == network


def test_refuses_a_folder_that_is_a_file(network, plan, tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for folder, reason in (("file", "File exists"), ("file/inside", "Not a directory")):
        message = f"{tmp_path / folder}: cannot be written ({reason})"
        with pytest.raises(FileProblem, match=f"^{re.escape(message)}$"):
            generate(network, plan, tmp_path / folder)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_refuses_a_read_only_folder_before_any_work(network, plan, tmp_path, monkeypatch):
    """Root may write anywhere, so the refusal is played."""

    def refuse(*args, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    monkeypatch.setattr("brambling.generate.to_verilog", lambda *args: pytest.fail("too late"))
    message = f"{tmp_path / 'plan.toml'}: cannot be written (Read-only file system)"
    with pytest.raises(FileProblem, match=f"^{re.escape(message)}$"):
        generate(network, plan, tmp_path)
    assert not list(tmp_path.iterdir())


def test_refuses_an_unknown_board_and_writes_nothing(network, plan, tmp_path):
    with pytest.raises(ConfigError, match=r"^board must be one of .*, not 'ulx4s'$"):
        generate(network, replace(plan, board="ulx4s"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_refuses_a_plan_for_another_network(small_network, plan, tmp_path):
    with pytest.raises(ConfigError, match=r"^fc1: simd must be 1 to 4, not 5$"):
        generate(small_network((4, 8, 6)), plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()
