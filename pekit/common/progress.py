"""Progress of a loop: a bar in a terminal or JupyterLab, plain lines in batches.

Bars are unreadable in saved notebooks and logs. With PEKIT_BATCH=1, which the batch runner sets,
a plain line is printed instead, at most every ten seconds.
"""

import os
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 10.0


def progress(iterable: Iterable[Item], total: int | None = None, desc: str = "") -> Iterator[Item]:
    """Yield the items of `iterable` and show progress; give `total` if it has no length."""
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    if os.environ.get("PEKIT_BATCH") == "1":
        yield from _lines(iterable, total, desc)
    else:
        from tqdm.auto import tqdm

        yield from tqdm(iterable, total=total, desc=desc or None)


def say(text: str) -> None:
    """Print and flush, so that buffered output appears at once."""
    print(text, flush=True)


def _lines(iterable: Iterable[Item], total: int | None, desc: str) -> Iterator[Item]:
    start = shown = time.monotonic()
    done = 0
    head = f"{desc}: " if desc else ""
    for item in iterable:
        yield item
        done += 1
        now = time.monotonic()
        if now - shown >= SECONDS_BETWEEN_LINES and done != total:
            shown = now
            say(head + _line(done, total, now - start))
    say(f"{head}{done}{f'/{total}' if total else ''} in {_duration(time.monotonic() - start)}")


def _line(done: int, total: int | None, seconds: float) -> str:
    rate = done / seconds
    speed = f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
    if not total:
        return f"{done}, {speed}"
    left = _duration((total - done) / rate)
    return f"{done}/{total} ({100 * done / total:.0f} %), {speed}, {left} left"


def _duration(seconds: float) -> str:
    """Seconds as `42 s`, `3 min 05 s` or `2 h 10 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
