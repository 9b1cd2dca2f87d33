"""Work on many studies, with one record on disk per study, so that a batch can be resumed.

A record is a JSON file, written last and atomically, with a key of its inputs. After a kill the
same call resumes: only studies without a record are done. A study is done again if its task,
settings or code changed, or if it could not be read and its files have changed since. A study
during which the process died, perhaps for another reason, is tried once more by the next call.
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

from data_prep.dicom.find import files_below
from data_prep.errors import SetupError, StudyError
from data_prep.parallel.pool import run_pool
from data_prep.rsna import STUDY, StudyTask
from pekit.common.errors import UserError
from pekit.common.files import read_json, write_json
from pekit.common.progress import say


@dataclass(frozen=True)
class Records:
    """A folder of records, all made with the same settings and code.

    Attributes:
        folder: holds `<study>.json`.
        made_with: hash of the settings and the code that make the records.
    """

    folder: Path
    made_with: str

    def read(self, task: StudyTask) -> dict | None:
        """The record of a study; None if it is missing, damaged, or made from other inputs."""
        path = self.folder / f"{task.study}.json"
        try:
            record = read_json(path)
        except UserError:
            return None
        return record if record.get("key") == self._key(task, record) else None

    def missing(
        self, tasks: Sequence[StudyTask], holds: Callable[[dict], bool] = lambda record: True
    ) -> list[StudyTask]:
        """Tasks to do: without a record, with one that no longer `holds`, or after one death."""
        records = ((task, self.read(task)) for task in tasks)
        return [
            task
            for task, record in records
            if record is None or not holds(record) or record.get("deaths") == 1
        ]

    def deaths(self, task: StudyTask) -> int:
        """In how many calls the process that worked on a study has died."""
        return (self.read(task) or {}).get("deaths", 0)

    def write(self, task: StudyTask, record: dict) -> None:
        """Write a study's record atomically, with the key of its inputs."""
        record = {"key": self._key(task, record), **record}
        write_json(self.folder / f"{task.study}.json", record)

    def _key(self, task: StudyTask, record: dict) -> str:
        content = f"{self.made_with} {task.problems} {task.landmarks_mm}"
        if not record.get("read", True):
            content += file_dates(task.folder)
        digest = hashlib.sha256(content.encode("utf-8", "surrogateescape"))
        for name, column in task.rows.items():  # pandas' own hash takes 10 times as long
            values = column.to_numpy()
            numbers = values.dtype.kind in "biuf"
            digest.update(f"{name} {values.dtype}".encode())
            digest.update(values.tobytes() if numbers else "\0".join(map(str, values)).encode())
        return digest.hexdigest()[:16]


def file_dates(folder: Path) -> str:
    """Names, sizes and dates of the files in a folder, so that replaced files are read again."""
    try:
        stats = [(file.name, os.lstat(file)) for file in files_below(folder)]
    except StudyError:  # a folder that is missing or cannot be read
        return ""
    return repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


def run_studies(
    work: Callable[[StudyTask], dict],
    tasks: Sequence[StudyTask],
    records: Records,
    workers: int = 1,
    progress: Callable[..., Iterable] | None = None,
    gpus: Sequence[str] = (),
) -> None:
    """Make the record of each task.

    Args:
        work: returns a study's record: `study` is its row of the table of studies, `read` is False
            if its files could not be read. An exception in it excludes the study, with the reason.
        tasks: the studies.
        records: the folder of records to write to.
        workers: number of processes.
        progress: `progress(iterable, total=, desc=)`, e.g. tqdm.
        gpus: GPU of each worker, as `run_pool` takes them.

    Raises:
        OSError: a record cannot be written, e.g. because the disk is full.
        SetupError: something that every study needs is missing.
    """
    work, on_death = partial(_record, work, records), partial(_died, records)
    died = {task.study for task in tasks if records.deaths(task)}
    first = [task for task in tasks if task.study not in died]
    again = [task for task in tasks if task.study in died]
    results = chain(
        run_pool(work, first, workers, on_death, gpus=gpus),
        run_pool(work, again, 1, on_death, apart=True, gpus=gpus),
    )
    try:
        for _ in progress(results, total=len(tasks), desc="studies") if progress else results:
            pass
    except KeyboardInterrupt:
        say("interrupted: the same call goes on, and finished studies are kept")
        raise


def failed(task: StudyTask, reason: str) -> dict:
    """The record of a study that could not be worked on."""
    row = {STUDY: task.study, "source": task.source, "status": "excluded", "reasons": reason}
    return {"study": row, "read": False}


def _record(work: Callable[[StudyTask], dict], records: Records, task: StudyTask) -> None:
    try:
        record = work(task)
    except (OSError, SetupError):  # errors on writing; those on reading have become a status
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
    reason = f"the process that read it died: lack of memory, or a crash in a decoder{once}"
    records.write(task, {**failed(task, reason), "deaths": deaths})
