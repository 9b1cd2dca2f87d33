"""How fast networks train and predict on this machine: `python -m pekit.training.speed --help`.

__main__.py   the command: chooses studies, writes and prints the table
measure.py    `measure_speed`: all rows of the table, one after the other
rates.py      one rate: training, prediction, loader, matrix product, several processes
table.py      what follows from the rates; the table as text; the two goals
"""
