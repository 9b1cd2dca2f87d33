"""Run a function on many tasks in worker processes that end with their parent.

A task that kills its worker (lack of memory, a crash in a decoder) does not end the batch.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.queues import SimpleQueue
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
    gpus: Sequence[str] = (),
) -> Iterator[Result]:
    """Call `function` on each task in `workers` processes; yields results as they are ready.

    Args:
        function: a module-level function, so that a worker can import it. It may be called twice
            on a task, if another worker dies meanwhile.
        tasks: its arguments. Only a few are submitted in advance, so memory stays bounded.
        workers: number of processes; with 1, or a single task, this process does the work.
        on_death: returns the result of a task whose process died when it ran alone.
        apart: run tasks that may kill their process one after the other, never in this process.
        gpus: the only GPU that each worker sees, by its name for CUDA_VISIBLE_DEVICES, for at least
            as many workers; empty: all see the same as this process.

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
        # When a worker dies, each running task is tried again alone, to find the one that kills.
        queue, at_once = (suspects, 1) if suspects else (waiting, 2 * workers)
        running = {}
        try:
            with _processes(min(workers, at_once, len(queue)), gpus) as pool:
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
                    "again with fewer workers; finished work is kept"
                ) from None
            if at_once == 1:
                yield from map(on_death, running.values())
            else:
                suspects.extend(running.values())


@contextmanager
def _processes(count: int, gpus: Sequence[str]) -> Iterator[ProcessPoolExecutor]:
    # Spawned, not forked, since notebooks run threads. Each worker uses one thread.
    context = get_context("spawn")
    free = context.SimpleQueue()  # each worker takes one name
    for gpu in gpus:
        free.put(gpu)
    pool = ProcessPoolExecutor(
        count, mp_context=context, initializer=_start, initargs=(free if gpus else None,)
    )
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _start(gpus: SimpleQueue | None) -> None:
    if gpus is not None:  # before CUDA starts in this process
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus.get()
    # An interrupt goes to all processes: a worker ends without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _end_with_parent()


def _end_with_parent() -> None:
    # Otherwise a worker whose parent was killed would wait for ever.
    def watch() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    import cv2

    cv2.setNumThreads(1)
