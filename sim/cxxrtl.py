"""CXXRTL's C++, cut into pieces that a compiler digests."""

import re
from dataclasses import dataclass
from pathlib import Path

from brambling.errors import ToolProblem

__all__ = ["Split", "split"]

PIECE = 60  #: Statements in a function.
FILES = 4  #: Files that the functions are dealt to.

WRITE = re.compile(r"^(\t+)(\w+(?:\.next)?)\.slice<(\d+)(?:,(\d+))?>\(\) = (.*);$", re.M)
READ = re.compile(r"(?<![\w.])(\w+(?:\.curr)?)\.slice<(\d+)(?:,(\d+))?>\(\)(?:\.val\(\))?")
CONCAT = ".concat("
CHAIN = 8  #: Links in a line that are no trouble.

EVAL = re.compile(r"^bool (\w+)::eval\(performer \*performer\) \{\n(.*?)^\}\n", re.M | re.S)
DECLARATION = "bool eval(performer *performer = nullptr) override;\n"
LOCAL = re.compile(r"^\tvalue<\d+> \w+;\n\Z", re.M)
EDGE = re.compile(r"^\tbool (pos|neg)edge_\w+ = .*;\n\Z", re.M)
CONVERGED = re.compile(r"^\tbool converged = (true|false);\n\Z", re.M)
RETURN = re.compile(r"^\treturn converged;\n\Z", re.M)


@dataclass(frozen=True)
class Split:
    """What became of a design.

    Parameters
    ----------
    sources
        To be compiled.
    converges
        One evaluation settles the design: it has no feedback but through registers.
    """

    sources: tuple[Path, ...]
    converges: bool


def split(source: Path) -> Split:
    """Cut the one long function that evaluates a flattened design into many, in several files.

    The time of a compiler grows with the square of a function's length, and with the number of
    types: an engine of 7,000 synapses a cycle takes it over ten minutes as it comes, half a minute
    cut, and runs ten times as fast. Local variables become members. Files are changed in place.
    """
    text, header_path = _balanced(_cut(source.read_text())), source.with_suffix(".h")
    header = header_path.read_text()
    found = EVAL.findall(text)
    if len(found) != 1 or DECLARATION not in header:
        raise ToolProblem(f"CXXRTL's text has {len(found)} evaluations, not 1, or no declaration")
    ((top, body),) = found
    statements = _statements(body)
    local = [text for text in statements if LOCAL.search(text)]
    edges = "".join(text for text in statements if EDGE.search(text))
    frame = [text for text in statements if CONVERGED.search(text) or RETURN.search(text)]
    known = {*local, *frame}
    work = [text for text in statements if text not in known and not EDGE.search(text)]
    pieces = ["".join(work[n : n + PIECE]) for n in range(0, len(work), PIECE)]

    converges = "bool converged = true" in frame[0]
    flag = "" if converges else "\tconverged = false;\n"
    # With debug information some of the local variables are members already.
    declared = {text.split()[-1] for text in header.splitlines() if text.endswith(";")}
    missing = (text for text in local if text.split()[-1] not in declared)
    members = "".join(f"\t{text.strip()}\n" for text in missing)
    header = header.replace(
        DECLARATION,
        DECLARATION
        + "\tbool converged;\n"
        + members
        + "".join(f"\tvoid eval_{n}();\n" for n in range(len(pieces))),
    )
    header_path.write_text(header)

    calls = "".join(f"\teval_{n}();\n" for n in range(len(pieces)))
    whole = EVAL.sub(
        lambda match: (
            f"bool {top}::eval(performer *) {{\n\tconverged = true;\n{flag}{calls}"
            "\treturn converged;\n}\n"
        ),
        text,
    )
    source.write_text(whole)
    head = (
        '#include "bits.h"\n'
        f'#include "{header_path.name}"\n'
        "using namespace cxxrtl_yosys;\n"
        "namespace cxxrtl_design {\n"
    )
    files = [source]
    for n in range(min(FILES, len(pieces))):
        path = source.with_name(f"{source.stem}_{n}.cc")
        functions = (
            f"void {top}::eval_{k}() {{\n{edges}{piece}}}\n"
            for k, piece in enumerate(pieces)
            if k % FILES == n
        )
        path.write_text(head + "".join(functions) + "}\n")
        files.append(path)
    return Split(tuple(files), converges)


def _cut(text: str) -> str:
    """Use the slices of ``bits.h``, which take no longer the wider a value is."""

    def place(high: str, low: str | None) -> tuple[int, int]:
        first = int(low or high)
        return int(high) - first + 1, first

    def write(match: re.Match[str]) -> str:
        indent, name, high, low, value = match.groups()
        bits, first = place(high, low)
        return f"{indent}put<{bits}>({name}.data, {first}, {value});"

    def read(match: re.Match[str]) -> str:
        name, high, low = match.groups()
        bits, first = place(high, low)
        return f"cut<{bits}>({name}.data, {first})"

    include = '#include "bits.h"\n'
    return include + READ.sub(read, WRITE.sub(write, text))


def _balanced(text: str) -> str:
    """Make trees of the chains ``a.concat(b).concat(c)…``.

    Each link of a chain has a type that names all links before it: a compiler takes minutes for one
    of 200 links, as in a broadcast of a vector bit by bit. ``val()`` ends the nesting of types.
    """
    return "".join(
        _balanced_line(line) if line.count(CONCAT) > CHAIN else line
        for line in text.splitlines(keepends=True)
    )


def _balanced_line(line: str) -> str:
    done, at = "", 0
    while (link := line.find(CONCAT, at)) >= 0:
        done += line[at:link]
        base = _start(done)
        items = [done[base:]]
        while line.startswith(CONCAT, link):
            end = _closing(line, link + len(CONCAT))
            items.append(_balanced_line(line[link + len(CONCAT) : end]))
            link = end + 1
        done, at = done[:base] + _tree(items), link
    return done + line[at:]


def _tree(items: list[str]) -> str:
    if len(items) == 1:
        return items[0]
    half = len(items) // 2
    return f"{_tree(items[:half])}{CONCAT}{_tree(items[half:])}).val()"


def _closing(text: str, at: int) -> int:
    """Return where the parenthesis closes that is open at ``at``."""
    depth = 1
    for found in re.compile("[()]").finditer(text, at):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return found.start()
    raise ToolProblem("CXXRTL's text has a parenthesis that does not close")


def _start(text: str) -> int:
    """Return where the expression begins that ``text`` ends with."""
    depth = 0
    for at in range(len(text) - 1, -1, -1):
        if text[at] in ")>}":
            depth += 1
        elif text[at] in "(<{" and depth:
            depth -= 1
        elif not depth and not (text[at].isalnum() or text[at] in "_.:"):
            return at + 1
    return 0


def _statements(body: str) -> list[str]:
    """Statements and blocks of a function, each with the comments before it."""
    statements, lines = [], []
    for line in body.splitlines(keepends=True):
        lines.append(line)
        outermost = line[0] == "\t" and line[1] not in "\t/"
        if outermost and (line.endswith(";\n") or line == "\t}\n"):
            statements.append("".join(lines))
            lines = []
    return statements
