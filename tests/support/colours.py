"""Contrast of two colours, as WCAG 2 defines it."""

import numpy as np
from matplotlib.colors import to_rgb


def contrast(one: str, other: str) -> float:
    """From 1 (equal) to 21; 3 is asked for lines, 4.5 for text."""
    darker, lighter = sorted(_luminance(colour) for colour in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
