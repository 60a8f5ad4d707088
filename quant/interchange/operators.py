"""What can be imported, as tables for the documentation: ``python -m …interchange.operators``."""

from brambling.quant.interchange import importer, tflite  # noqa: F401  (registers operators)
from brambling.quant.interchange.graph import CHANNELS_LAST, QONNX
from brambling.quant.interchange.onnx_lowering import NEAREST, OPERATORS

__all__ = ["page"]

DOMAINS = {
    "": "ONNX, operator sets 8 to the newest that the package `onnx` knows",
    QONNX: "QONNX: `qonnx.custom_op.general`, `onnx.brevitas`, `finn.custom_op.general`",
    CHANNELS_LAST: "QONNX's wrappers: `qonnx.custom_op.channels_last`",
}
COMPUTED = (
    "Whatever else depends on constants and shapes only (`Shape`, `Gather`, `Pow`, `Sqrt`, "
    "`ConstantOfShape`, …) is computed beforehand."
)


def table(header: tuple[str, str], rows: list[tuple[str, str]]) -> list[str]:
    """Rows of a Markdown table."""
    return [f"| {a} | {b} |" for a, b in (header, ("---", "---"), *rows)]


def page() -> str:
    """Return the page: every operator with its limits, and what comes nearest to others."""
    lines = ["# Operators that can be imported", ""]
    lines += ["Made from the code by `python -m brambling.quant.interchange.operators`."]
    for domain, title in DOMAINS.items():
        rows = [
            (f"`{op}`", found.text or "all of it")
            for (where, op), found in sorted(OPERATORS.items())
            if where == domain
        ]
        lines += ["", f"## {title}", "", *table(("operator", "what of it"), rows)]
        if not domain:
            lines += ["", COMPUTED]
    names = ", ".join(f"`{name}`" for name in tflite.SUPPORTED)
    lines += ["", "## TFLite", "", f"Of 8-bit integers: {names}.", ""]
    lines += ["## What comes nearest to others", ""]
    refused = {**{f"`{op}`": text for op, text in NEAREST.items()}}
    lines += table(("ONNX operator", "instead"), sorted(refused.items()))
    nearest = {f"`{op}`": text for op, text in tflite.NEAREST.items()}
    lines += ["", *table(("TFLite operator", "instead"), sorted(nearest.items()))]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
