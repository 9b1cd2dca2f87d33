"""Slice viewer: scroll through a study in a notebook, its HTML export or a page.

It needs neither a kernel nor a network.

study.py    what the viewer shows of a study
encode.py   slices, outlines and attributions as small texts
frame.py    the viewer as HTML, in a frame of its own

viewer.html, viewer.css, image.js, viewer.js: files for the browser
"""
