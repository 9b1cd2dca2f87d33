"""What a figure shows: a chart, or perhaps a patient."""

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis, Tick
from matplotlib.collections import LineCollection, PathCollection, PolyCollection, PolyQuadMesh
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.offsetbox import DrawingArea, PackerBase, TextArea
from matplotlib.patches import Patch
from matplotlib.text import Text

_CHART_PARTS = (
    *(Axes, Axis, DrawingArea, Figure, Legend, Line2D, LineCollection, PackerBase, Patch),
    *(PathCollection, PolyCollection, SubFigure, Text, TextArea, Tick),
)
# A coloured table, such as a confusion matrix; no slice of a patient is that small.
_CELLS = 64


def is_chart(figure: Figure) -> bool:
    """Whether a figure is of lines, bars, points and texts only.

    Whatever else it holds may be an image of a patient: images but for coloured tables, meshes,
    contours (a hull is one), and every kind of artist that is not known here.
    """
    return all(_harmless(artist) for artist in figure.findobj())


def _harmless(artist: Artist) -> bool:
    if isinstance(artist, AxesImage):
        return artist.get_array() is not None and artist.get_array().size <= _CELLS
    return isinstance(artist, _CHART_PARTS) and not isinstance(artist, PolyQuadMesh)
