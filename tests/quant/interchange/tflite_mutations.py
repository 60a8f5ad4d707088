"""Imports damaged models, one after the other: ``tflite_mutations.py FIRST LAST FOLDER``.

Prints ``= `` for one that was imported, ``- `` and the message for one that was refused, and
``! `` with what must not be, a line a case.
"""

import random
import signal
import sys
from pathlib import Path

from brambling.errors import BramblingError
from brambling.quant.interchange.tflite import import_tflite

sys.path.insert(0, str(Path(__file__).parent))
from tflite_models import VALID, Maker

SECONDS = 30  #: For one case, before it counts as one that hangs.
MEMORY = 3 * 2**30  #: Bytes of addresses beyond what the process has at its start.
INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def model(seed: int) -> bytes:
    """Small model of most kinds of operators."""
    m = Maker(seed)
    x = m.codes((1, 6, 6, 2))
    sides = m.constant([[0, 0], [1, 0], [0, 1], [0, 0]], "INT32")
    y = m.op("PAD", [x, sides], m.alike(x, (1, 7, 7, 2)))
    y = m.conv(y, 4, padding=VALID)
    z = m.depthwise(y, activation=0)
    y = m.add(y, z, 1)
    halves = [m.alike(y, (1, 5, 5, 2)) for _ in range(2)]
    m.op("SPLIT", [m.ints(3), y], halves, NumSplits=2)
    y = m.op("CONCATENATION", [halves[1], halves[0]], m.alike(y, (1, 5, 5, 4)), Axis=3)
    y = m.op("LEAKY_RELU", [y], m.codes((1, 5, 5, 4), scale=m[y]["scale"]), Alpha=0.2)
    y = m.pool("MAX_POOL_2D", y, (2, 2), (2, 2))
    mean = m.codes((1, 4), scale=m[y]["scale"])
    y = m.op("MEAN", [y, m.ints(1, 2)], mean, KeepDims=False)
    return m.bytes(x, m.softmax(m.dense(y, 3, 0)))


MODELS = [model(seed) for seed in range(3)]


def mutant(case: int) -> bytes:
    """Damage a model: bits, words, a cut, or a part that is copied elsewhere."""
    source = random.Random(case)
    data = bytearray(source.choice(MODELS))
    for _ in range(source.choice((1, 1, 2, 4, 16))):
        place = source.randrange(len(data))
        match source.randrange(6):
            case 0:
                data[place] ^= 1 << source.randrange(8)
            case 1:
                data[place] = source.randrange(256)
            case 2 | 3:
                place &= ~3
                word = (
                    source.choice(INTERESTING) if source.random() < 0.7 else source.getrandbits(32)
                )
                data[place : place + 4] = word.to_bytes(4, "little")
            case 4:
                size = source.randrange(1, 64)
                other = source.randrange(len(data))
                data[place : place + size] = data[other : other + size]
            case 5 if source.random() < 0.3:
                del data[max(place, 8) :]
    return bytes(data)


def limited() -> None:
    """Bound the memory of this process, where the system can."""
    try:
        import resource
    except ModuleNotFoundError:
        return
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def tried(path: Path) -> str:
    try:
        import_tflite(path)
    except BramblingError as error:
        return f"- {error}" if str(error).isprintable() else f"! unprintable {error!r}"
    except BaseException as error:
        return f"! {type(error).__name__}: {' '.join(str(error).split())}"
    return "="


def main() -> None:
    first, last, folder = sys.argv[1:]
    path = Path(folder) / "mutant.tflite"
    limited()
    for case in range(int(first), int(last)):
        path.write_bytes(mutant(case))
        if hasattr(signal, "alarm"):
            signal.alarm(SECONDS)
        print(tried(path), flush=True)


if __name__ == "__main__":
    main()
