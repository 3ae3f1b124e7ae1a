"""Figures of calibrated decisions: are probabilities right, and what is right among the surest."""

from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

from matplotlib import rc_context
from matplotlib.figure import Figure

COLOURS = {"valid": "#56b4e9", "test": "#d55e00"}
SIZE = (9.0, 3.8)  # inches


def draw(file: BinaryIO, decided: Mapping[str, Mapping[str, Any]]) -> None:
    """An SVG of two panels: the share right by the probability given, in bins of as many mentions
    each, and the share right among the surest mentions, by how many are answered.

    Args:
        decided: split -> what `calibration.decisions` says of it.
    """
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "drin_jax"}):
        figure = Figure(figsize=SIZE, layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot([0, 1], [0, 1], ":", color="grey", label="calibrated")
        for split, found in decided.items():
            bins: Sequence[Sequence[float]] = found["bins"]
            style = {"color": COLOURS[split], "marker": "o", "markersize": 4}
            label = f"{split}, error {100 * found['ece']:.1f} %"
            left.plot([b[0] for b in bins], [b[1] for b in bins], label=label, **style)
            x = [100 * float(share) for share in found["coverage"]]
            y = [100 * share for share in found["coverage"].values()]
            right.plot(x, y, label=split, **style)
        left.set(xlabel="probability given", ylabel="share right", title="Calibration")
        right.set(xlabel="answered, the surest first, %", ylabel="right among them, %",
                  title="Accuracy by coverage")  # fmt: skip
        for axes in (left, right):
            axes.grid(alpha=0.3)
            axes.legend(frameon=False)
        figure.savefig(file, format="svg", metadata={"Date": None})
