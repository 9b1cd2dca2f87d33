"""From DICOM files (or nothing) to prepared studies."""
