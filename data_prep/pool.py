"""Study by study in several processes: clean workers that end with their parent."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import TypeVar

from pekit.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_pool(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[Result]:
    """Call `function` on each task in `workers` processes; results come as they are ready.

    Args:
        function: a function of a module, so that a worker can import it.
        tasks: what to call it on.
        workers: processes; 1 works in this one.

    Raises:
        UserError: a worker was killed.
    """
    if workers <= 1 or len(tasks) <= 1:
        yield from map(function, tasks)
        return
    # Spawned, not forked: notebooks hold threads. What runs inside uses one thread each.
    pool = ProcessPoolExecutor(
        min(workers, len(tasks)), mp_context=get_context("spawn"), initializer=_end_with_parent
    )
    try:
        for future in as_completed([pool.submit(function, task) for task in tasks]):
            yield future.result()
    except BrokenProcessPool:
        raise UserError(
            f"one of {workers} workers was killed, most often for lack of memory: run again with "
            "fewer workers; finished studies are kept"
        ) from None
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
