import numpy as np
import pytest
from matplotlib.figure import Figure

from pekit.figures.content import is_chart


def drawn(draw):
    figure = Figure()
    axes = figure.subplots()
    draw(axes)
    return figure


@pytest.mark.parametrize(
    "draw",
    [
        lambda a: (a.plot([1, 2], label="x"), a.legend(), a.axhline(0), a.annotate("n", (0, 0))),
        lambda a: (a.bar([1], [2], yerr=[1]), a.hist([1, 2]), a.boxplot([1, 2])),
        lambda a: (a.scatter([1], [2]), a.fill_between([0, 1], [1, 1]), a.axvspan(0, 1)),
        lambda a: a.imshow(np.zeros((2, 2))),
    ],
)
def test_charts(draw):
    assert is_chart(drawn(draw))


@pytest.mark.parametrize(
    "draw",
    [
        lambda a: a.imshow(np.zeros((40, 40))),
        lambda a: a.imshow(np.zeros((9, 9, 3))),
        lambda a: a.pcolormesh(np.zeros((4, 4))),
        lambda a: a.contour(np.eye(5)),
        lambda a: a.figure.figimage(np.zeros((9, 9))),
    ],
)
def test_what_may_show_a_patient(draw):
    figure = drawn(draw)
    figure.axes[0].plot([1, 2])
    assert not is_chart(figure)
