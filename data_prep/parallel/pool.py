"""Study by study in several processes: clean workers that end with their parent.

A study that kills its worker (lack of memory, a fault of a decoder) does not end the batch.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import TypeVar

from pekit.common.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_pool(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int,
    on_death: Callable[[Task], Result] | None = None,
    apart: bool = False,
) -> Iterator[Result]:
    """Call `function` on each task in `workers` processes; results come as they are ready.

    Args:
        function: a function of a module, so that a worker can import it. It may be called twice
            on a task, when a worker dies at the same time as another is at work.
        tasks: what to call it on. Only a few are handed out in advance, so memory stays bounded.
        workers: processes; 1, or a single task, works in this one.
        on_death: makes the result of a task whose process died, even with no other beside it.
        apart: for tasks that may kill their process: one after the other, never in this one.

    Raises:
        UserError: a worker died, and there is no `on_death`.
    """
    if not apart and (workers <= 1 or len(tasks) <= 1):
        yield from map(function, tasks)
        return
    waiting, suspects = deque(tasks), deque()
    if apart:
        waiting, suspects = suspects, waiting
    while waiting or suspects:
        # When a worker dies, each task then at work is tried again alone, to find the one.
        queue, at_once = (suspects, 1) if suspects else (waiting, 2 * workers)
        running = {}
        try:
            with _processes(min(workers, at_once, len(queue))) as pool:
                while queue or running:
                    while queue and len(running) < at_once:
                        task = queue.popleft()
                        running[pool.submit(function, task)] = task
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        del running[future]
                        yield result
        except BrokenProcessPool:
            if on_death is None:
                raise UserError(
                    f"one of {workers} workers was killed, most often for lack of memory: run "
                    "again with fewer workers; what is finished is kept"
                ) from None
            if at_once == 1:
                yield from map(on_death, running.values())
            else:
                suspects.extend(running.values())


@contextmanager
def _processes(count: int) -> Iterator[ProcessPoolExecutor]:
    # Spawned, not forked: notebooks hold threads. What runs inside uses one thread each.
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_end_with_parent)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    # A worker whose parent was killed would wait for work for ever.
    def watch() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    import cv2

    cv2.setNumThreads(1)
