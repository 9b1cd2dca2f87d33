"""A workspace of its own with the runner, three toy notebooks and a local package."""

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]

FIRST = """
import json
from pathlib import Path

from data_prep.toy import double

Path(RUN).mkdir(parents=True, exist_ok=True)
print("doubling", N)
Path(RUN, "exclusions.csv").write_text("study")
Path(RUN, "metrics.json").write_text(json.dumps({"n": double(N)}))
"""
# Marks each start in a file that outlives a kill, as a checkpoint does; slow at the first start.
SECOND = """
import json
import time
from pathlib import Path

from pekit.common.errors import UserError

n = json.loads(Path(FIRST, "metrics.json").read_text())["n"]
Path(RUN).mkdir(parents=True, exist_ok=True)
with Path(RUN, "starts").open("a") as file:
    file.write("x")
starts = len(Path(RUN, "starts").read_text())
if SLOW and starts == 1:
    time.sleep(600)
if N_MAX < n:
    raise UserError(f"{n} is more than N_MAX = {N_MAX}; raise it")
Path(RUN, "metrics.json").write_text(json.dumps({"starts": starts}))
"""
THIRD = """
import os
from pathlib import Path

Path(RUN).mkdir(parents=True, exist_ok=True)
Path(RUN, "table.txt").write_text(f"the table, by {os.environ['OMP_NUM_THREADS']} threads")
Path(RUN, "metrics.json").write_text("{}")
"""


def write_notebook(path: Path, parameters: str, code: str) -> Path:
    cells = [
        nbformat.v4.new_markdown_cell(f"# {path.stem}"),
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(code.strip()),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


class Workspace:
    """A copy of the runner beside three toy notebooks and a local package."""

    def __init__(self, root: Path, stages: dict | None = None) -> None:
        self.root, self.notebooks = root, root / "notebooks"
        self.module = root / "data_prep" / "toy.py"
        if stages:  # a copy
            self.stages = copy.deepcopy(stages)
            return
        self.stages = {
            "first": {"notebook": "01_first.ipynb", "params": {"N": 2}},
            "second": {
                "notebook": "02_second.ipynb",
                "needs": {"FIRST": "first"},
                "params": {"SLOW": True},
            },
            "third": {"notebook": "03_third.ipynb", "needs": {"SECOND": "second"}, "share": 0.5},
        }
        (self.notebooks / "experiments").mkdir(parents=True)
        for name in ("run.py", "Snakefile"):
            shutil.copy(REPOSITORY / "notebooks" / name, self.notebooks)
        shutil.copytree(REPOSITORY / "notebooks" / "batch", self.notebooks / "batch")
        (root / "data_prep").mkdir()
        (root / "data_prep" / "__init__.py").touch()
        self.module.write_text("def double(n):\n    return 2 * n\n")
        write_notebook(self.notebooks / "01_first.ipynb", 'RUN = ""\nN = 1', FIRST)
        write_notebook(
            self.notebooks / "02_second.ipynb",
            'RUN = ""\nFIRST = ""\nSLOW = False\nN_MAX = 100',
            SECOND,
        )
        write_notebook(self.notebooks / "03_third.ipynb", 'RUN = ""\nSECOND = ""', THIRD)

    def write(self) -> Path:
        path = self.notebooks / "experiments" / "toy.yaml"
        content = {"about": "A minute and 1 MB.", "stages": self.stages}
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    def start(self) -> subprocess.Popen[str]:
        path = self.write()
        # PYTHONPATH: the toy package in place of the installed one.
        environment = os.environ | {"PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "notebooks/run.py", "batch", str(path)],
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def batch(self) -> tuple[int, str]:
        process = self.start()
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def path(self, name: str) -> Path:
        return self.root / "runs" / "toy" / name
