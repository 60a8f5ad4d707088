"""Damaged copies of small valid models, and a process in which to try what reads them.

As a program: ``-m interchange.mutations MODULE:FUNCTION SEED FIRST LAST FOLDER`` calls the
function with the path of each damaged file and prints what came of it, one line a case.
"""

import importlib
import random
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from .small_models import GENERAL, LAST, models

__all__ = ["ROAD", "Outcome", "models", "mutant", "road", "survey"]

ABOVE = Path(__file__).parent.parent
PROGRAM = f"{Path(__file__).parent.name}.{Path(__file__).stem}"
ROAD = f"{PROGRAM}:road"  #: Target of :func:`survey`.
SECONDS = 30  #: For one case, before it counts as one that hangs.
MEMORY = 3 * 2**30  #: Bytes of addresses that a case may take beyond what the process has.


@dataclass(frozen=True)
class Outcome:
    """What came of one case: ``read``, ``refused``, or what must not be."""

    case: int
    kind: str
    message: str

    @property
    def good(self) -> bool:
        return self.kind in {"read", "refused"}


SIZES = (0, 1, -1, 2, 3, 7, 255, 2**16, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63), -5)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.3, float("nan"), float("inf"), float("-inf"), 1e38, 1e-45, 2.5)
TEXTS = ("", "x", "t0", "no such", "ROUND", "NHWC", "NC", "é", "a\nb", "/etc/passwd", "../up", "C")
SMALL = (0, 1, 2, 3, 4, -1, -2, -3)
WORDS = (
    "ROUND HALF_UP FLOOR CEIL UP DOWN SAME_UPPER SAME_LOWER VALID NOTSET NHWC NCHW NC CRD DCR "
    "nearest linear align_corners half_pixel asymmetric floor ceil reflect edge UINT2 BIPOLAR"
)
OPS = (
    "Relu Shape If Loop Reshape Expand Tile ConstantOfShape Range Pad Conv Identity Dropout Quant "
    "FloatQuant Trunc NonZero Resize Split Half"
)


def _bytes(data: bytes, rng: random.Random) -> bytes:
    """Damage a file as disks and networks do."""
    damaged = bytearray(data)
    at = rng.randrange(len(data))
    size = min(rng.choice((1, 2, 4, 16, 64, 256)), len(data) - at)
    match rng.randrange(6):
        case 0:
            for _ in range(rng.choice((1, 1, 2, 8, 32))):
                damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1:
            del damaged[at:]
        case 2:
            del damaged[at : at + size]
        case 3:
            damaged[at:at] = damaged[at : at + size]
        case 4:
            damaged[at:at] = rng.randbytes(size)
        case _:
            damaged[at : at + size] = rng.choice((b"\0", b"\xff", b"\x7f")) * size
    return bytes(damaged)


def _places(message: Message) -> Iterator[tuple[Message, FieldDescriptor]]:
    """Every field that is set, however deep."""
    for descriptor, value in message.ListFields():
        yield message, descriptor
        if descriptor.message_type is not None:
            for inner in value if descriptor.is_repeated else [value]:
                yield from _places(inner)


def _scalar(descriptor: FieldDescriptor, value: object, rng: random.Random) -> object:
    if isinstance(value, bytes):
        return _bytes(value, rng) if value else rng.randbytes(4)
    if isinstance(value, str):
        return rng.choice((*TEXTS, *OPS.split())) if rng.random() < 0.7 else value + "_"
    if isinstance(value, float):
        return rng.choice(FLOATS)
    assert isinstance(value, int)
    number = rng.choice((*SIZES, value + 1, value - 1, -value))
    narrow = descriptor.cpp_type in {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_ENUM}
    return number if not narrow else max(-(2**31), min(2**31 - 1, number))


def _field(model: ModelProto, rng: random.Random) -> None:
    """Change one field of the model, or the amount of what is in it."""
    message, descriptor = rng.choice(list(_places(model)))
    value = getattr(message, descriptor.name)
    if not descriptor.is_repeated:
        if descriptor.message_type is not None or rng.random() < 0.15:
            message.ClearField(descriptor.name)
        else:
            setattr(message, descriptor.name, _scalar(descriptor, value, rng))
        return
    at = rng.randrange(len(value))
    action = rng.randrange(5)
    if action == 0:
        del value[at]
    elif action == 1:
        value.append(value[at])
    elif action == 2 or descriptor.message_type is not None:
        other = rng.randrange(len(value))
        first, second = (
            value[i] if descriptor.message_type is None else _copy(value[i]) for i in (at, other)
        )
        _put(value, at, second)
        _put(value, other, first)
    else:
        value[at] = _scalar(descriptor, value[at], rng)


def _copy(message: Message) -> Message:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _put(values: Any, at: int, value: object) -> None:
    if isinstance(value, Message):
        values[at].CopyFrom(value)
    else:
        values[at] = value


def _claim(model: ModelProto, rng: random.Random) -> None:
    """Let a tensor claim another shape than it has data for."""
    tensor = rng.choice(model.graph.initializer)
    tensor.dims[:] = [rng.choice(SIZES) for _ in range(rng.randrange(5))]


def _values(model: ModelProto, rng: random.Random) -> None:
    """Give a constant other values: no scale, no number, no shape, no bits."""
    tensor = rng.choice(model.graph.initializer)
    array = numpy_helper.to_array(tensor).copy()
    if array.size:
        choices = FLOATS if array.dtype.kind == "f" else SIZES
        with np.errstate(all="ignore"):
            value = np.array(rng.choice(choices)).astype(array.dtype)
        array.flat[rng.randrange(array.size)] = value
        if rng.random() < 0.5:
            array[...] = value
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _edge(model: ModelProto, rng: random.Random) -> None:
    """Let a node read, or make, some other tensor: one further on makes a cycle."""
    names = [name for node in model.graph.node for name in (*node.input, *node.output)]
    node = rng.choice(model.graph.node)
    side = rng.choice([side for side in (node.input, node.output) if side] or [names])
    side[rng.randrange(len(side))] = rng.choice(names)


def _operator(model: ModelProto, rng: random.Random) -> None:
    node = rng.choice(model.graph.node)
    node.op_type = rng.choice((*OPS.split(), *(other.op_type for other in model.graph.node)))
    node.domain = rng.choice((node.domain, "", GENERAL, LAST, "finn.custom_op.fpgadataflow"))


def _sizes(model: ModelProto, rng: random.Random) -> None:
    """Change the numbers of a node's attributes."""
    nodes = [node for node in model.graph.node if node.attribute]
    for attribute in rng.choice(nodes).attribute:
        for index in range(len(attribute.ints)):
            if rng.random() < 0.4:
                attribute.ints[index] = rng.choice(SIZES)
        if rng.random() < 0.4:
            attribute.i = rng.choice(SIZES)


def _likely(model: ModelProto, rng: random.Random) -> None:
    """Change an attribute, or give a node one, as another valid model might have it."""
    node = rng.choice(model.graph.node)
    if node.attribute and rng.random() < 0.7:
        attribute = rng.choice(node.attribute)
        attribute.i, attribute.f = rng.choice(SMALL), rng.choice((0.5, -0.5, 2.0, -1.0, 0.0))
        for index in range(len(attribute.ints)):
            attribute.ints[index] = rng.choice((attribute.ints[index], rng.choice(SMALL)))
        if attribute.s:
            attribute.s = rng.choice(WORDS.split()).encode()
        return
    name = rng.choice(("axis", "axes", "perm", "pads", "strides", "dilations", "transA", "transB"))
    many = [rng.choice(SMALL) for _ in range(rng.randrange(5))]
    one = name in {"axis", "transA", "transB"}
    node.attribute.append(helper.make_attribute(name, rng.choice(SMALL) if one else many or [0]))


def _instead(model: ModelProto, rng: random.Random) -> None:
    """Put a node with as many inputs in the place of another, or another in front of it."""
    node = rng.choice(model.graph.node)
    others = [n for name in sorted(models()) for n in _nodes(name)]
    alike = [n for n in others if len(n.input) == len(node.input)]
    other = rng.choice(alike or others)
    node.op_type, node.domain = other.op_type, other.domain
    if rng.random() < 0.7:
        del node.attribute[:]
        node.attribute.extend(other.attribute)


def _extra(model: ModelProto, rng: random.Random) -> None:
    """Put one more node with one input behind some other."""
    node = rng.choice(model.graph.node)
    if not node.output:
        return
    others = [n for name in sorted(models()) for n in _nodes(name)]
    new = model.graph.node.add()
    new.CopyFrom(rng.choice([n for n in others if len(n.input) == 1]))
    old = node.output[0]
    new.name, new.input[:], new.output[:] = "", [f"{old}_"], [old]
    node.output[0] = f"{old}_"


@cache
def _nodes(name: str) -> list[NodeProto]:
    return list(models()[name].graph.node)


def _outside(model: ModelProto, rng: random.Random) -> None:
    """Put a tensor's data into another file."""
    tensor = rng.choice(model.graph.initializer)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    facts = {"location": rng.choice(("/etc/passwd", "../up.bin", "none.bin", "", ".", "a\0b"))}
    facts |= {"offset": str(rng.choice(SIZES)), "length": str(rng.choice(SIZES))}
    for key, value in facts.items():
        tensor.external_data.add(key=key, value=value)


def _version(model: ModelProto, rng: random.Random) -> None:
    rng.choice(model.opset_import).version = rng.choice((*range(6, 29), *SIZES))


CHANGES: tuple[Callable[[ModelProto, random.Random], None], ...] = (
    _field, _field, _field, _field, _claim, _values, _values, _edge, _operator, _sizes, _outside,
    _version, _likely, _likely, _likely, _likely, _instead, _instead, _extra, _extra, _extra,
)  # fmt: skip


def mutant(case: int, seed: int = 0) -> bytes:
    """Return the damaged file of that number."""
    rng = random.Random(f"{seed}/{case}")
    source = rng.choice(sorted(models().items()))[1]
    if case % 6 == 0:
        return _bytes(source.SerializeToString(deterministic=True), rng)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        try:
            rng.choice(CHANGES)(source, rng)
        except Exception:  # an earlier change left nothing for this one
            continue
    return source.SerializeToString(deterministic=True)


def survey(target: str, count: int, folder: Path, seed: int = 0) -> list[Outcome]:
    """Try a function, ``module:name``, on damaged files, in processes of its own."""
    outcomes: list[Outcome] = []
    while len(outcomes) < count:
        first = len(outcomes)
        command = [sys.executable, "-m", PROGRAM, target, *map(str, (seed, first, count, folder))]
        done = subprocess.run(command, cwd=ABOVE, capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            kind, _, message = line.partition(" ")
            outcomes.append(Outcome(len(outcomes), kind, message))
        if len(outcomes) < count:  # it ended in the middle of a case
            kind = "hung" if done.returncode == -signal.SIGALRM else "crashed"
            outcomes.append(Outcome(len(outcomes), kind, f"{done.returncode} {done.stderr[-500:]}"))
    return outcomes


def road(path: Path) -> None:
    """Go from a file to a network: with the input as the model rounds it, and by a given scale."""
    from brambling.errors import BramblingError
    from brambling.quant.interchange.models import read

    refusals: list[BramblingError] = []
    for scale in (None, Fraction(1, 255)):
        try:
            read(path, scale=scale)
        except BramblingError as error:
            if not str(error).isprintable():
                raise
            refusals.append(error)
    if len(refusals) == 2:
        raise refusals[0]


def _limited() -> None:
    """Bound this process: what needs more memory, or more time for one case, must not be."""
    try:
        import resource
    except ModuleNotFoundError:
        return  # Windows has neither
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    if pages:
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends even what never returns to Python


def _main() -> None:
    target, seed, first, last, folder = sys.argv[1:]
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    from brambling.errors import BramblingError

    function_file = Path(folder) / "mutant.onnx"
    _limited()
    warnings.simplefilter("error", RuntimeWarning)  # of arithmetic that nobody thought of
    for case in range(int(first), int(last)):
        function_file.write_bytes(mutant(case, int(seed)))
        if hasattr(signal, "alarm"):
            signal.alarm(SECONDS)
        try:
            function(function_file)
            line = "read"
        except BramblingError as error:
            line = f"refused {error}" if str(error).isprintable() else f"unclear {error!r}"
        except BaseException as error:
            line = f"failed {type(error).__name__}: {' '.join(str(error).split())}"
        print(line, flush=True)
    if hasattr(signal, "alarm"):
        signal.alarm(0)


if __name__ == "__main__":
    _main()
