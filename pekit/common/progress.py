"""Progress of a loop: a bar in a terminal or JupyterLab, plain lines in batches.

Bars are unreadable in saved notebooks and logs. With PEKIT_BATCH=1, which the batch runner sets,
a plain line is printed instead, now and then.
"""

import os
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 10.0


def progress(
    iterable: Iterable[Item],
    total: int | None = None,
    desc: str = "",
    every: float = SECONDS_BETWEEN_LINES,
    passing: bool = False,
    lines: bool = False,
) -> Iterator[Item]:
    """Yield the items of `iterable` and show progress.

    Args:
        total: number of items, if `iterable` has no length.
        desc: what is counted.
        every: seconds between lines, at least.
        passing: leave nothing at the end: no bar and no last line.
        lines: lines also where a bar could be shown, as in a process that a notebook forked.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    if lines or os.environ.get("PEKIT_BATCH") == "1":
        yield from _lines(iterable, total, desc, every, passing)
    else:
        from tqdm.auto import tqdm

        yield from tqdm(iterable, total=total, desc=desc or None, leave=not passing)


def say(text: str) -> None:
    """Print and flush, so that buffered output appears at once."""
    print(text, flush=True)


def _lines(
    iterable: Iterable[Item], total: int | None, desc: str, every: float, passing: bool
) -> Iterator[Item]:
    start = shown = time.monotonic()
    done = 0
    head = f"{desc}: " if desc else ""
    for item in iterable:
        yield item
        done += 1
        now = time.monotonic()
        if now - shown >= every and done != total:
            shown = now
            say(head + _line(done, total, now - start))
    if not passing:
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
