"""The page of operators is made from the code."""

from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("tflite")
operators = pytest.importorskip("brambling.quant.interchange.operators")
DOCS = Path(__file__).parents[3] / "docs"


def test_the_page_in_the_documentation_is_current():
    command = "python -m brambling.quant.interchange.operators > docs/operators.md"
    assert (DOCS / "operators.md").read_text(encoding="utf-8") == operators.page(), command


@pytest.mark.parametrize("name", ["IntQuant", "Conv", "CONV_2D", "FloatQuant", "HARD_SWISH"])
def test_it_names_what_is_there_and_what_is_not(name):
    assert f"`{name}`" in operators.page()
