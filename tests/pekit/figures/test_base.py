from pekit.figures.base import KitFigure, grid_of_axes


def test_a_figure_shows_a_patient_by_default():
    assert KitFigure().patient
    assert not KitFigure(patient=False).patient
    assert grid_of_axes(2, columns=2, width=1, height=1)[0].patient
    assert not grid_of_axes(2, columns=2, width=1, height=1, patient=False)[0].patient
