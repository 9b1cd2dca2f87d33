"""What every wing uses.

errors.py      UserError: what is wrong and what to do; near names for a mistyped one
settings.py    base class of settings
files.py       atomic writing, reading with named errors, hashes
progress.py    a bar in a terminal and in Jupyter, lines in a batch
code_hash.py   which code a result depends on
"""
