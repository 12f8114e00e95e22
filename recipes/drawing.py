"""The figure of a recipe: every test pair of every table, registered in every way."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot

from scoring import Row

__all__ = ["draw"]


def draw(tables: dict[str, list[Row]], path: Path) -> None:
    """Points and boxes of the Dice of pairs, or of 1 - LNCC where there are no labels, one panel for each table.

    Args:
        tables: rows by title.
        path: of a picture.
    """
    mpl.use("Agg")
    longest = max(len(rows) for rows in tables.values())
    size = (8, 0.8 + len(tables) * (0.8 + 0.38 * longest))
    figure, axes = pyplot.subplots(len(tables), squeeze=False, sharex=True, figsize=size, layout="constrained")
    for (title, rows), axis in zip(tables.items(), axes[:, 0], strict=True):
        values = [row.dice or row.similarity for row in rows]
        axis.boxplot(values, orientation="horizontal", showfliers=False, widths=0.6)
        for place, some in enumerate(values, 1):
            axis.plot(some, np.linspace(place - 0.2, place + 0.2, len(some)), ".", color="tab:blue", alpha=0.6)
        axis.set_yticks(range(1, len(rows) + 1), [row.name for row in rows])
        axis.invert_yaxis()
        axis.set(title=title, xlabel="Dice of a pair" if rows[0].dice else "1 - LNCC of a pair")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
