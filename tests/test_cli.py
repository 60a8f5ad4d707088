"""The command line: its verbs, and one line for every error that is the user's."""

import gzip
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from brambling import zoo
from brambling.cli import main
from brambling.network import Network
from brambling.plan import Plan
from brambling.sim import golden

TFC = ("tfc-w1a1", "--engine", "cycles")


@pytest.fixture(scope="module")
def network(small_network):
    return small_network((12, 8, 4), 1)


@pytest.fixture
def files(network, random_frames, hand_plan, tmp_path):
    """A network, a plan, images and labels as files; ``simulate`` takes them as they are."""
    network.save(tmp_path / "net.safetensors")
    hand_plan(network, [(4, 4), (2, 6), (2, 4), (1, 2)]).save(tmp_path / "plan.toml")
    images = random_frames(network, 5)
    np.save(tmp_path / "images.npy", images)
    labels = golden.run(network, images)["argmax"].astype(np.uint8)
    write_idx(tmp_path / "labels.gz", labels)
    return tmp_path


def write_idx(path, array):
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(head + array.tobytes(), mtime=0))


def simulation(files, *options):
    """Arguments that simulate the small network on its images."""
    return (
        "simulate", files / "net.safetensors", "--plan", files / "plan.toml",
        "--images", files / "images.npy", *options,
    )  # fmt: skip


# Verbs ----------------------------------------------------------------------------------------


def test_zoo(run):
    status, out, err = run("zoo")
    assert (status, err) == (0, "")
    assert all(name in out for name in zoo.names())


def test_zoo_as_json_in_a_process_of_its_own():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "brambling", "zoo", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    rows = json.loads(done.stdout)
    assert [row["name"] for row in rows] == list(zoo.names())
    for row in rows:
        assert list(row) == ["name", "dataset", "accuracy", "images", "weight_bits"]
        facts = zoo.load(row["name"]).provenance
        assert (row["dataset"], row["accuracy"]) == (facts["dataset"], facts["accuracy"])
        assert 0.5 < row["accuracy"] < 1
        assert row["images"] == 10_000
        assert row["weight_bits"] == zoo.load(row["name"]).weight_bits


#: What a plan is estimated to take of an ECP5, on standard error.
ESTIMATED = r"estimated: [\d,]+ LUTs ± \d+%, \d+ block RAMs, \d+ multipliers, \d+ MHz ± \d+%\n"


def test_plan_to_standard_output(run):
    status, out, err = run("plan", "tfc-w1a1", "--board", "ulx3s-45f", "--clock-mhz", "50")
    assert status == 0
    assert re.fullmatch(ESTIMATED, err)
    plan = Plan.from_toml(out)
    assert (plan.network, plan.board, plan.clock_hz) == ("tfc-w1a1", "ulx3s-45f", 50_000_000)
    assert plan.goal == "max-fps"


def test_plan_to_a_file_that_simulate_takes(run, tmp_path):
    path = tmp_path / "new" / "plan.toml"
    status, out, err = run("plan", "tfc-w1a1", "--goal", "fps=200000", "-o", path)
    assert (status, out) == (0, "")
    assert re.fullmatch(ESTIMATED, err)
    status, out, _ = run("simulate", *TFC, "--plan", path, "--frames", "2", "--json")
    table = json.loads(out)
    assert status == 0
    assert (table["board"], table["goal"]) == ("ulx3s-85f", "fps=200000")
    assert table["fps"] >= 200_000


def test_simulate_the_zoo(run):
    status, out, err = run("simulate", *TFC, "--frames", "3", "--json")
    assert (status, err) == (0, "")
    table = json.loads(out)
    assert (table["engine"], table["frames"], table["accuracy_images"]) == ("cycles", 3, 10_000)
    assert table["accuracy"] == zoo.entries()[0].accuracy
    assert [layer["name"] for layer in table["layers"]] == [
        "binarise", "fc1", "fc2", "fc3", "fc4", "argmax"
    ]  # fmt: skip


@pytest.mark.parametrize("engine", ["golden", "cycles", "pysim"])
def test_simulate_with_files(run, files, network, engine):
    out = files / "out.npy"
    status, said, err = run(
        *simulation(files, "--engine", engine, "--labels", files / "labels.gz"),
        "--output", out, "--json",
    )  # fmt: skip
    assert (status, err) == (0, "")
    table = json.loads(said)
    assert (table["engine"], table["frames"], table["accuracy"]) == (engine, 5, 1.0)
    assert table["equal_to_golden"] is (True if engine == "pysim" else None)
    images = np.load(files / "images.npy")
    outputs = np.load(out, allow_pickle=False)
    assert outputs.dtype == np.int64
    assert np.array_equal(outputs, golden.run(network, images)["fc2"])


def test_simulate_prints_a_table(run, files):
    status, out, err = run(*simulation(files, "--engine", "pysim", "--frames", "2"))
    assert (status, err) == (0, "")
    for text in ("small", "binarise", "fc1", "2×6", "latency", "throughput", "equal, "):
        assert text in out
    assert "accuracy" not in out


def test_simulate_writes_a_waveform(run, files):
    wave = files / "wave.vcd"
    status, _, _ = run(*simulation(files, "--engine", "pysim", "--frames", "1", "--vcd", wave))
    assert status == 0
    assert "$enddefinitions" in wave.read_text(encoding="utf-8")


def test_images_may_be_idx(run, files):
    write_idx(files / "images.idx.gz", np.load(files / "images.npy"))
    argv = [files / "images.idx.gz" if arg == files / "images.npy" else arg
            for arg in simulation(files, "--engine", "golden", "--json")]  # fmt: skip
    status, out, _ = run(*argv)
    assert status == 0
    assert json.loads(out)["accuracy"] is None


def test_without_a_compiler_it_says_so(run, files, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    status, out, err = run(*simulation(files, "--frames", "1", "--json"))
    assert status == 0
    assert json.loads(out)["engine"] == "pysim"
    assert err == "no C++ compiler found: using Amaranth's own simulator, which is slower\n"


def test_generate(run, files):
    folder = files / "out"
    command = ("generate", files / "net.safetensors", "--plan", files / "plan.toml", "-o", folder)
    status, out, err = run(*command)
    assert (status, err) == (0, "")
    assert out.split() == [
        str(path) for path in (
            folder, folder / "small.v", folder / "plan.toml", folder / "small.safetensors",
            folder / "ports.md", folder / "README.md", folder / "lint.vlt", folder / "testbench",
        )
    ]  # fmt: skip
    status, out, _ = run(*command, "--json")
    assert json.loads(out) == {
        "folder": str(folder),
        "verilog": str(folder / "small.v"),
        "plan": str(folder / "plan.toml"),
        "network": str(folder / "small.safetensors"),
        "ports": str(folder / "ports.md"),
        "readme": str(folder / "README.md"),
        "lint": str(folder / "lint.vlt"),
        "testbench": str(folder / "testbench"),
    }
    # What was generated can be taken up again.
    status, _, _ = run("plan", folder / "small.safetensors", "--plan", folder / "plan.toml")
    assert status == 0


@pytest.mark.parametrize("frames", [1, 5])
def test_generate_with_images(run, files, frames):
    np.save(files / "images.npy", np.load(files / "images.npy")[:frames])
    _, *rest = simulation(files)
    assert run("generate", *rest, "-o", files / "out")[0] == 0


def test_generate_beside_the_work(run, files, monkeypatch):
    monkeypatch.chdir(files)
    status, out, _ = run("generate", "net.safetensors", "--plan", "plan.toml")
    assert status == 0
    assert out.split()[0] == "small-ulx3s-85f"
    assert (files / "small-ulx3s-85f" / "small.v").is_file()


# Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ("plan", "tfc-w1a1", "--board", "ulx3s"),
            "board must be one of ulx3s-85f, ulx3s-45f, ulx3s-25f, not 'ulx3s'",
        ),
        (
            ("plan", "sfc-w1a1", "--goal", "best"),
            "goal must be one of max-fps, min-latency, min-area, fps=N, power, power=N, not 'best'",
        ),
        (
            ("plan", "tfc-w1a1", "--clock-mhz", "0.0000001"),
            "clock must be at least 1 Hz, not 0",
        ),
        (
            ("simulate", *TFC, "--labels", "labels.gz"),
            "--labels belongs to --images: give both, or neither",
        ),
        (("simulate", *TFC, "--frames", "0"), "frames must be at least 1, not 0"),
        (
            ("simulate", "tfc-w1a1", "--engine", "golden", "--vcd", "wave.vcd"),
            "a waveform needs an RTL engine (pysim, verilator, cxxrtl, icarus), not 'golden'",
        ),
        (
            ("simulate", "tfc-w1a1", "--plan", "p.toml", "--board", "ulx3s-85f"),
            "--plan has its own board, goal and clock: give either, not both",
        ),
        (
            ("simulate", "tfc-w1a1", "--plan", "p.toml", "--goal", "max-fps"),
            "--plan has its own board, goal and clock: give either, not both",
        ),
        (
            ("generate", "tfc-w1a1", "--plan", "absent.toml"),
            "absent.toml: cannot be read (No such file or directory)",
        ),
        (("generate", "absent.safetensors"), "absent.safetensors: no such file"),
    ],
)
def test_refuses(refused, argv, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused(*argv) == message
    assert not list(tmp_path.iterdir())


def test_refuses_an_unknown_model(refused):
    assert refused("plan", "resnet") == (
        f"a model is a .safetensors file or one of the zoo ({', '.join(zoo.names())}), not 'resnet'"
    )


def test_refuses_a_model_that_does_not_fit(refused):
    assert re.fullmatch(
        r"sfc-w1a1 needs \d+ block RAMs, but ice40-hx8k-evn has 32; "
        r"no folding fits: the next larger part that does is [\w-]+ \(.+\)",
        refused("generate", "sfc-w1a1", "--board", "ice40-hx8k-evn"),
    )


def test_refuses_a_rate_that_does_not_fit_and_names_one_that_does(refused, run):
    said = refused("plan", "tfc-w1a1", "--goal", "fps=50000000")
    match = re.fullmatch(
        r"tfc-w1a1 with goal fps=50000000 needs [\d,]+ .*, but ulx3s-85f has [\d,]+; the fastest "
        r"folding that fits has an interval of \d+ cycles: (fps=\d+)",
        said,
    )
    assert match, said
    assert run("plan", "tfc-w1a1", "--goal", match[1])[0] == 0


IMAGES = "small takes images of 12 values (12:u8.0), not"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((3, 28, 28), np.uint8), f"{IMAGES} 28x28"),
        (np.zeros((3, 11), np.uint8), f"{IMAGES} 11"),
        (np.zeros(12, np.uint8), f"{IMAGES} a single number"),
        (np.zeros((3, 12)), "small takes images of integers (u8.0), not float64"),
        (np.full((3, 12), 256), "small takes values from 0 to 255, not 256 to 256"),
        (np.zeros((0, 12), np.uint8), "small needs at least one image, not an empty batch"),
    ],
)  # fmt: skip
def test_refuses_images(refused, files, images, message):
    np.save(files / "images.npy", images)
    assert refused(*simulation(files, "--engine", "cycles")) == message


def not_npy(reason):
    return f"images.npy: not an array of numbers in .npy format ({reason})"


def test_refuses_pickles(refused, files):
    np.save(files / "images.npy", np.array([print, None]), allow_pickle=True)
    said = refused(*simulation(files, "--engine", "cycles"))
    assert said == f"{files}/" + not_npy("Object arrays cannot be loaded when allow_pickle=False")


@pytest.mark.parametrize("kind", ["text", "npz", "empty", "cut", "folder", "absent", "huge"])
def test_refuses_what_is_no_array(refused, files, kind):
    path = files / "images.npy"
    contents = path.read_bytes()
    path.unlink()
    match kind:
        case "text":
            path.write_bytes(b"1 2 3\n")
        case "npz":
            np.savez(files / "a.npz", images=np.zeros((3, 12), np.uint8))
            (files / "a.npz").rename(path)
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(contents[:-1])
        case "folder":
            path.mkdir()
        case "huge":
            path.write_bytes(contents.replace(b"12), }" + b" " * 20, b"1" + b"0" * 21 + b"), }"))
    said = refused(*simulation(files, "--engine", "cycles"))
    assert said.startswith(f"{path}: ")
    reasons = {
        "folder": "cannot be read (Is a directory)",
        "absent": "cannot be read (No such file or directory)",
    }
    assert reasons.get(kind, "not an array of numbers in .npy format (") in said


def test_any_byte_of_an_npy_header_may_be_wrong(files, run):
    path = files / "images.npy"
    contents = path.read_bytes()
    rng = np.random.default_rng(0)
    statuses = set()
    for _ in range(150):
        wrong = bytearray(contents)
        wrong[rng.integers(0, 80)] ^= int(rng.integers(1, 128))
        path.write_bytes(wrong)
        status, _, err = run(*simulation(files, "--engine", "golden", "--json"))
        statuses.add(status)
        assert err.count("\n") == (status == 2)
    assert statuses <= {0, 2}


def test_refuses_labels(refused, files):
    labels = files / "labels.gz"
    argv = simulation(files, "--engine", "cycles", "--labels", labels)
    write_idx(labels, np.zeros(4, np.uint8))
    assert refused(*argv) == "5 images need 5 labels, not 4"
    write_idx(labels, np.full(5, 10, np.uint8))
    assert refused(*argv) == f"{labels}: labels must be 0 to 9, not 10"
    labels.unlink()
    assert refused(*argv) == f"{labels}: no such file"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'layer = "fc2"',
            'layer = "conv9"',
            (
                "the plan has a stage for 'conv9', but the engines of small start at "
                "binarise, fc1, fc2, argmax"
            ),
        ),
        ("simd = 6", "simd = 13", "fc1: simd must be 1 to 12, not 13"),
        ("pe = 2", "pe = 0", "fc1: pe must be 1 to 8, not 0"),
    ],
)
def test_refuses_plans(refused, files, old, new, message):
    path = files / "plan.toml"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    assert refused(*simulation(files, "--engine", "cycles")) == message


def test_refuses_a_plan_that_is_not_toml(refused, files):
    (files / "plan.toml").write_text("layer: fc1", encoding="utf-8")
    said = refused(*simulation(files, "--engine", "cycles"))
    assert said.startswith(f"{files / 'plan.toml'}: not TOML (")


@pytest.mark.parametrize("verb", ["plan", "simulate", "generate"])
def test_refuses_an_output_that_cannot_be_written(refused, files, verb):
    (files / "file").write_text("mine", encoding="utf-8")
    target = files / "file" / "inside" / "out"
    argv = {
        "plan": ("plan", files / "net.safetensors", "--plan", files / "plan.toml"),
        "simulate": simulation(files, "--engine", "golden"),
        "generate": ("generate", files / "net.safetensors", "--plan", files / "plan.toml"),
    }[verb]
    said = refused(*argv, "--output", target)
    assert said == f"{target}: cannot be written (Not a directory)"


def test_refuses_a_waveform_that_cannot_be_written(refused, files):
    (files / "file").write_text("mine", encoding="utf-8")
    target = files / "file" / "inside" / "wave.vcd"
    said = refused(*simulation(files, "--engine", "pysim", "--vcd", target))
    assert said == f"{target}: cannot be written (Not a directory)"


@pytest.fixture
def own_zoo(tmp_path, monkeypatch):
    """A copy of the zoo, to be damaged."""
    folder = tmp_path / "zoo"
    shutil.copytree(zoo.FOLDER, folder)
    monkeypatch.setattr(zoo, "FOLDER", folder)
    return folder


def test_refuses_a_corrupted_zoo(refused, own_zoo):
    path = own_zoo / "tfc-w1a1.safetensors"
    contents = bytearray(path.read_bytes())
    contents[-100] ^= 1
    path.write_bytes(contents)
    for argv in (("zoo",), ("zoo", "--json"), ("plan", "tfc-w1a1")):
        assert re.fullmatch(
            rf"{path}: sha256 must be [0-9a-f]{{64}}, not [0-9a-f]{{64}}; reinstall brambling",
            refused(*argv),
        )


def test_refuses_corrupted_test_images(refused, own_zoo):
    path = own_zoo / "mnist" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1])
    assert refused("simulate", *TFC, "--frames", "1").startswith(f"{path}: sha256 must be ")
    path.unlink()
    said = refused("simulate", *TFC, "--frames", "1")
    assert said == f"{path}: cannot be read (No such file or directory)"


def test_refuses_a_network_that_is_not_in_the_list(refused, own_zoo, network):
    network.save(own_zoo / "small.safetensors")
    assert re.fullmatch(
        r".*small\.safetensors: sha256 must be recorded in SHA256SUMS, "
        r"not [0-9a-f]{64}; reinstall brambling",
        refused("plan", "small"),
    )


def test_refuses_a_damaged_network(refused, files):
    path = files / "net.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    said = refused(*simulation(files, "--engine", "cycles"))
    assert said.startswith(f"{path}: not a whole safetensors file (")


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (("train", "mnist-tfc", "--data", "none"), "training needs"),
        (("precision", "lenet5"), "float models need"),
    ],
    ids=["train", "precision"],
)
def test_what_needs_torch_says_so(argv, what):
    """In a process of its own, since here others may have imported it."""
    code = "import sys; sys.modules['torch'] = None; from brambling.cli import main; "
    code += "sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"brambling: error: {what} PyTorch, which is not installed: "
        "pip install 'brambling[train]'\n"
    )


@pytest.mark.parametrize("recipe", ["mnist-tfc", "cifar10-cnn-float"])
def test_refuses_another_round_of_what_has_none(refused, recipe):
    pytest.importorskip("torch")
    said = refused("train", recipe, "--data", "none", "--from", "cnv-w1a1")
    assert said == f"{recipe}: --from is for convolutional recipes of one bit, such as cifar10-cnv"


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("bake",),
        ("simulate",),
        ("simulate", "tfc-w1a1", "--engine", "spice"),
        ("simulate", "tfc-w1a1", "--frames", "many"),
        ("plan", "tfc-w1a1", "--clock-mhz", "-3"),
        ("plan", "tfc-w1a1", "--clock-mhz", "nan"),
        ("train", "mnist-tfc"),
    ],
    ids=" ".join,
)
def test_refuses_what_is_no_command(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.splitlines()[-1].startswith("brambling")
    assert ": error: " in err.splitlines()[-1]


def test_control_c(run, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(zoo, "entries", interrupt)
    assert run("zoo") == (130, "", "brambling: interrupted; nothing half-written is left\n")


def test_control_c_while_writing_leaves_the_old_file(run, files, monkeypatch):
    def interrupt(self, target):
        raise KeyboardInterrupt

    before = {path: path.read_bytes() for path in files.iterdir()}
    monkeypatch.setattr("pathlib.Path.replace", interrupt)
    argv = ("plan", files / "net.safetensors", "--board", "ulx3s-25f", "-o", files / "plan.toml")
    assert run(*argv)[0] == 130
    assert {path: path.read_bytes() for path in files.iterdir()} == before


def test_help_names_every_verb(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for verb in ("zoo", "plan", "simulate", "generate", "verify", "train", "demo"):
        assert re.search(rf"^ +{verb} ", text, re.MULTILINE)


def test_a_file_may_be_given_as_a_model_of_any_name(run, files):
    (files / "net.safetensors").rename(files / "model")
    status, out, _ = run("plan", files / "model", "--plan", files / "plan.toml")
    assert status == 0
    assert Plan.from_toml(out).network == Network.load(files / "model").name
