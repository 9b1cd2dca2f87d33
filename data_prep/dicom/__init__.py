"""DICOM: a folder of files -> one CT series in Hounsfield units, or a named refusal.

series.py       the series: headers (open_series), volume (read_series)
files.py        which files of the folder make it up
geometry.py     sizes, axes, positions, gaps
decode.py       pixels of every transfer syntax, held against their stream
                (codestream.py before the decoder, jpeg_audit.py after it)
"""

from data_prep.dicom.series import Series, open_series, read_headers, read_series

__all__ = ["Series", "open_series", "read_headers", "read_series"]
