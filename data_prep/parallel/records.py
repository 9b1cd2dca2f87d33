"""Work on many studies, each result a record on disk: what makes a batch resumable.

A record is one JSON file a study, written last and at once, marked with what it was made with. The
same call after a kill goes on where it was; a study whose task, settings or code changed is done
again, as is one that could not be read and whose files have changed since. A study at which the
process died, which need not be the study's fault, is tried once more by the next call.
"""

import hashlib
import os
import re
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import pandas as pd

from data_prep.errors import SetupError
from data_prep.parallel.pool import run_pool
from data_prep.rsna import STUDY, StudyTask
from pekit.common.errors import UserError
from pekit.common.files import read_json, write_json


@dataclass(frozen=True)
class Records:
    """A folder of records, all made in one way.

    Attributes:
        folder: holds `<study>.json`.
        made_with: the settings and the code that make them, as a hash.
    """

    folder: Path
    made_with: str

    def read(self, task: StudyTask) -> dict | None:
        """The record of a study; None where it is missing, half, or made of something else."""
        path = self.folder / f"{task.study}.json"
        try:
            record = read_json(path)
        except UserError:
            return None
        return record if record.get("key") == self._key(task, record) else None

    def missing(
        self, tasks: Sequence[StudyTask], holds: Callable[[dict], bool] = lambda record: True
    ) -> list[StudyTask]:
        """The tasks that have no record, one of something that no longer `holds`, or of a death."""
        records = ((task, self.read(task)) for task in tasks)
        return [
            task
            for task, record in records
            if record is None or not holds(record) or record.get("deaths") == 1
        ]

    def deaths(self, task: StudyTask) -> int:
        """How often the process that worked on a study has died, each time in another call."""
        return (self.read(task) or {}).get("deaths", 0)

    def write(self, task: StudyTask, record: dict) -> None:
        """Write a study's record at once, marked with what it was made of."""
        record = {"key": self._key(task, record), **record}
        write_json(self.folder / f"{task.study}.json", record)

    def _key(self, task: StudyTask, record: dict) -> str:
        rows = pd.util.hash_pandas_object(task.rows, index=False).to_numpy().tobytes()
        content = f"{self.made_with} {task.problems} {task.landmarks_mm}"
        if not record.get("read", True):
            content += file_dates(task.folder)
        return hashlib.sha256(content.encode() + rows).hexdigest()[:16]


def file_dates(folder: Path) -> str:
    """Names, sizes and dates of the files in a folder, so that mended ones are read again."""
    files = sorted(Path(root) / name for root, _, names in os.walk(folder) for name in names)
    stats = [(file.name, os.lstat(file)) for file in files]
    return str([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


def run_studies(
    work: Callable[[StudyTask], dict],
    tasks: Sequence[StudyTask],
    records: Records,
    workers: int = 1,
    progress: Callable[..., Iterable] | None = None,
) -> None:
    """Make the record of each task.

    Args:
        work: makes a study's record, with its row of the table of studies under `study`; `read` is
            False where its files could not be read. Whatever goes wrong in it excludes the study,
            with the reason.
        tasks: the studies.
        records: where they are kept.
        workers: processes.
        progress: `progress(iterable, total=, desc=)`, e.g. tqdm.

    Raises:
        OSError: a record cannot be written, e.g. because the disk is full.
        SetupError: something that every study lacks.
    """
    work, on_death = partial(_record, work, records), partial(_died, records)
    died = {task.study for task in tasks if records.deaths(task)}
    first = [task for task in tasks if task.study not in died]
    again = [task for task in tasks if task.study in died]
    results = chain(
        run_pool(work, first, workers, on_death),
        run_pool(work, again, 1, on_death, apart=True),
    )
    for _ in progress(results, total=len(tasks), desc="studies") if progress else results:
        pass


def failed(task: StudyTask, reason: str) -> dict:
    """The record of a study that could not be worked on."""
    row = {STUDY: task.study, "source": task.source, "status": "excluded", "reasons": reason}
    return {"study": row, "read": False}


def _record(work: Callable[[StudyTask], dict], records: Records, task: StudyTask) -> None:
    try:
        record = work(task)
    except (OSError, SetupError):  # of writing: those of reading have become a status
        raise
    except UserError as error:
        record = failed(task, re.sub(r"\S*[/\\](?=\S)", "", str(error)))
    except Exception as error:  # one study never ends a batch of thousands
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        record = failed(task, f"unexpected {type(error).__name__} at {where}: please report it")
    records.write(task, record)


def _died(records: Records, task: StudyTask) -> None:
    deaths = records.deaths(task) + 1
    once = "" if deaths > 1 else "; the next call tries it once more"
    reason = f"the process that read it died: lack of memory, or a fault of a decoder{once}"
    records.write(task, {**failed(task, reason), "deaths": deaths})
