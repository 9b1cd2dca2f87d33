"""Scroll through a study in a notebook, its HTML export or a page: no kernel, no network.

study.py    what there is to see of a study
encode.py   slices, outlines and attributions as small texts
frame.py    the viewer as HTML, in a frame of its own

viewer.html, viewer.css, image.js, viewer.js: what the browser gets
"""
