"""pekit: pulmonary embolism in CT pulmonary angiograms, from prepared studies to verdicts."""

__version__ = "0.1.0"
