"""Pages to read.

page.py    one self-contained HTML page
cases.py   error analysis: each study with a wrong verdict, and what the network used
viewer/    the slice viewer: one study to scroll through
"""
