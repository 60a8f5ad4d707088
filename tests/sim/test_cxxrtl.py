"""CXXRTL's text is cut up without a change of meaning; the engines' tests run the result."""

import re

import pytest

from brambling.errors import ToolProblem
from brambling.sim import cxxrtl
from brambling.sim.cxxrtl import split

HEADER = """struct p_top : public module {
\tvalue<9> p_wide;
\tbool eval(performer *performer = nullptr) override;
};
"""
SOURCE = """#include "design.h"
bool p_top::eval(performer *performer) {
\tbool converged = true;
\tbool posedge_p_clk = this->posedge_p_clk();
\tvalue<1> p_bit;
\t// connection
\tp_bit = p_wide.slice<8>().val();
\tif (posedge_p_clk) {
\t\tp_state.next = p_bit;
\t}
\treturn converged;
}
void p_top::reset() {
}
"""


@pytest.fixture
def source(tmp_path):
    (tmp_path / "design.h").write_text(HEADER)
    (tmp_path / "design.cc").write_text(SOURCE)
    return tmp_path / "design.cc"


def test_split(source, monkeypatch):
    monkeypatch.setattr(cxxrtl, "PIECE", 1)
    result = split(source)
    assert result.converges
    assert [path.name for path in result.sources] == ["design.cc", "design_0.cc", "design_1.cc"]
    whole, first, second = (path.read_text() for path in result.sources)
    assert "\tconverged = true;\n\teval_0();\n\teval_1();\n\treturn converged;\n}\n" in whole
    assert "void p_top::reset() {\n}\n" in whole
    assert "p_bit = cut<1>(p_wide.data, 8);" in first
    assert "\tbool posedge_p_clk = this->posedge_p_clk();\n\tif (posedge_p_clk) {\n" in second
    header = source.with_suffix(".h").read_text()
    assert "\tvoid eval_0();\n\tvoid eval_1();\n" in header
    assert header.count("p_bit;") == 1


def test_feedback_is_told(source):
    source.write_text(SOURCE.replace("converged = true", "converged = false"))
    assert not split(source).converges
    assert "\tconverged = false;\n\teval_0();\n" in source.read_text()


def test_what_is_member_already_stays_one(source):
    header = source.with_suffix(".h")
    header.write_text(HEADER.replace("p_wide;", "p_wide;\n\t/*outline*/ value<1> p_bit;"))
    split(source)
    assert header.read_text().count("p_bit;") == 1


def test_another_text_is_refused(source):
    source.write_text("nothing")
    with pytest.raises(ToolProblem) as caught:
        split(source)
    assert str(caught.value) == "CXXRTL's text has 0 evaluations, not 1, or no declaration"


def test_chains_become_trees():
    links = [f"f(x{n}, (y)).slice<{n},0>()" for n in range(20)]
    text = f"\ta = g<4>({links[0]}{''.join(f'.concat({link})' for link in links[1:])}.val(), b);\n"
    tree = cxxrtl._balanced(text)
    assert re.findall(r"x\d+", tree) == re.findall(r"x\d+", text)
    assert tree.count(".concat(") == text.count(".concat(") == tree.count(").val()")
    assert tree.count("(") == tree.count(")")
    depth = deepest = 0
    for part in re.findall(r"\.concat\(|\(|\)", tree):
        depth += -1 if part == ")" else 1
        deepest = max(deepest, depth)
    assert deepest <= 8


def test_chains_within_chains():
    inner = "".join(f".concat(i{n})" for n in range(9))
    text = f"\tp = a.concat(b{inner}.val()).concat(c);\n"
    tree = cxxrtl._balanced(text)
    names = re.findall(r"\b[a-ci]\d?\b", tree)
    assert names == ["a", "b", *(f"i{n}" for n in range(9)), "c"]


def test_short_chains_stay():
    text = "\tp = a.concat(b).concat(c).val();\n"
    assert cxxrtl._balanced(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\tp.slice<7,3>() = f(x);", "\tput<5>(p.data, 3, f(x));"),
        ("\t\tp.next.slice<9>() = q.curr;", "\t\tput<1>(p.next.data, 9, q.curr);"),
        ("\tf(p.curr.slice<7,3>().val())", "\tf(cut<5>(p.curr.data, 3))"),
        ("\tq = p.slice<9>().concat(r)", "\tq = cut<1>(p.data, 9).concat(r)"),
        ("\tq = f(x).slice<9>().val()", "\tq = f(x).slice<9>().val()"),
    ],
)
def test_slices(text, expected):
    assert cxxrtl._cut(text) == f'#include "bits.h"\n{expected}'
