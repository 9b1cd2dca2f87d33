"""Pages for people.

page.py    one self-contained HTML page
cases.py   error analysis: each study that was judged wrongly, with what the network used
viewer/    one study to scroll through
"""
