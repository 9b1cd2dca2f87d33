"""Scroll through a study in a notebook, its HTML export or a page: no kernel, no network.

encode.py    slices, outlines and attributions as small texts
frame.py     the viewer as HTML, in a frame of its own
study.py     what there is to see of a study
prepared.py  that, of a prepared and predicted study

viewer.html, viewer.css, image.js, viewer.js: what the browser gets
"""
