from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from matplotlib.figure import Figure

from warpwright.product.figure import _colour_bar, colour_limit


@pytest.mark.parametrize(
    ("least", "labels"),
    [
        (0.99, ["1/2", "1", "2"]),
        (0.2, ["1/4", "1/2", "1", "2", "4"]),
        (1e-6, ["1/8", "1/4", "1/2", "1", "2", "4", "8"]),
    ],
)
def test_the_colour_bar_speaks_of_volume_ratios(least, labels):
    figure = Figure()
    axes = figure.subplots(1, 2)
    _colour_bar(figure, axes[0], axes[1], colour_limit(np.full((5, 7), least)))
    bar = figure.axes[-1]
    assert [label.get_text() for label in bar.get_yticklabels()] == labels
    ratios = [float(Fraction(label)) for label in labels]
    assert np.allclose(np.exp(bar.get_yticks()), ratios)
