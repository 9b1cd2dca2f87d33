"""Read a folder of DICOM files as one CT series in HU, or refuse it with a reason.

series.py       the series: headers (open_series), volume (read_series)
files.py        selects the files of the series
geometry.py     sizes, axes, positions, gaps
decode.py       pixels of every transfer syntax, checked against the compressed stream
                (codestream.py before the decoder, jpeg_audit.py after it)
"""

from data_prep.dicom.series import Series, open_series, read_headers, read_series

__all__ = ["Series", "open_series", "read_headers", "read_series"]
