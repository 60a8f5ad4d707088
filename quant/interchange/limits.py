"""What a model's file may claim: nothing is allocated before its size has been checked."""

import re
from collections.abc import Iterable, Sequence
from math import prod

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from brambling.errors import ConfigError, FileProblem

__all__ = [
    "MAX_ELEMENTS",
    "MAX_FILE",
    "MAX_FOLDED",
    "MAX_NODES",
    "MAX_PRODUCTS",
    "MAX_TENSOR",
    "MAX_WORK",
    "brief",
    "check_shape",
    "check_strings",
    "check_text",
]

MAX_FILE = 2**31  #: Bytes in a file; more is not a valid protobuf message.
MAX_TENSOR = 2**31  #: Bytes in one tensor of a file.
MAX_ELEMENTS = 2**28  #: Elements in one tensor that is computed.
MAX_FOLDED = 2**27  #: Elements in all constants that are computed when a file is read.
MAX_WORK = 2**30  #: Products for one constant that is computed when a file is read.
MAX_PRODUCTS = 2**34  #: Multiplications for one image; ResNet-50 takes a quarter of that.
MAX_NODES = 100_000  #: Operations in a graph.
MAX_RANK = 32  #: Dimensions of a tensor; NumPy has no more than 64, ONNX Runtime's kernels fewer.
_PLACE = re.compile(r"^/\S+:\d+ .* was false\. ?")  # in the source of another program
MAX_REASON = 160  #: Characters of another program's message that are passed on.


def brief(error: BaseException) -> str:
    """Return the first words of another program's message, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = text.rpartition("Status Message: ")[2]  # of ONNX Runtime
    text = _PLACE.sub("", text)
    text = text.removeprefix("[ShapeInferenceError] ").rstrip(".")
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - 1] + "…"


def check_text(where: str, texts: Iterable[str]) -> None:
    """Refuse names that would break a message, or that are no text at all."""
    for text in texts:
        if not text.isprintable():
            raise FileProblem(
                f"{where}: name {text!a}: has characters that cannot be printed; rename it"
            )


def check_strings(where: str, message: Message) -> None:
    """Refuse a message with a string, however deep, that is no text."""
    for descriptor, value in message.ListFields():
        values = value if descriptor.is_repeated else [value]
        if descriptor.message_type is not None:
            for inner in values:
                check_strings(where, inner)
        elif descriptor.type == FieldDescriptor.TYPE_STRING:
            for text in values:
                if not isinstance(text, str):  # bytes, where they are not UTF-8
                    raise FileProblem(
                        f"{where}: {descriptor.name} {text!r}: is no text; export or copy it again"
                    )


def check_shape(where: str, shape: Sequence[int], *, empty: bool = False) -> None:
    """Refuse a tensor without elements (unless ``empty``), or with too many to compute."""
    text = f"({', '.join(str(size) for size in shape[:8])}{', …' if len(shape) > 8 else ''})"
    if len(shape) > MAX_RANK:
        raise ConfigError(f"{where}: {len(shape)} dimensions: at most {MAX_RANK}; export it anew")
    if any(size < 0 or (size == 0 and not empty) for size in shape):
        raise ConfigError(
            f"{where}: shape {text}: has nothing in it; use larger images or smaller windows"
        )
    if max((prod(shape), *shape)) > MAX_ELEMENTS:
        raise ConfigError(
            f"{where}: shape {text}: more than {MAX_ELEMENTS:,} elements; use smaller images"
        )
