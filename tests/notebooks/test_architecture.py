"""The rules that keep the kit readable: who imports whom, and what a notebook may hold.

Each rule is a function that lists what breaks it; it is tried on examples that do, then on the
project's own files.
"""

import ast
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from batch.parameters import read_cells, read_parameters
from pekit import LAZY

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {".ci", "data_prep", "notebooks", "pekit", "submissions", "tests"}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# Local packages that the files of each folder may import, and libraries kept to a few files.
MAY_IMPORT = {
    "pekit": {"pekit"},
    "data_prep": {"data_prep", "pekit"},
    "submissions": {"submissions", "pekit"},
    "notebooks": {"notebooks", "batch", "data_prep", "submissions", "pekit"},
}
LOCAL = set.union(*MAY_IMPORT.values()) | {"tests"}
ONLY_IN = {
    "wandb": {"pekit/tracking/wandb_log.py"},
    "matplotlib": {"pekit/figures"},
    "pydicom": {"data_prep"},
    "papermill": {"notebooks"},
    "snakemake": {"notebooks"},
}
# Floors of pekit, from the ground up: a wing imports those of lower floors only.
FLOORS = (
    {"common"},
    {"dataset", "voting", "tracking"},
    {"model", "evaluation", "figures"},
    {"hop", "review"},
    {"checkpoint", "explain"},
    {"inference", "reports"},
    {"detector", "training"},
)
MAX_CELL_LINES = 25
MAX_PARAMETERS = 35  # lines: one a parameter, whatever a stage has
ABSOLUTE = re.compile(
    r"(?<![\w.])(~[/\\]|[A-Za-z]:\\|/(home|Users|root|work|tmp|mnt|data|opt|media|srv|scratch)/)"
)


def imports(tree: ast.AST) -> Iterator[str]:
    """Top-level names of all modules that a piece of code imports, in functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


def wrong_imports(path: str, code: str) -> list[str]:
    """Imports against the direction, or of a library kept elsewhere, in the file at `path`."""
    folder = path.split("/")[0]
    places = {path, *(parent.as_posix() for parent in PurePosixPath(path).parents)}
    found = set(imports(ast.parse(code)))
    against = (found & LOCAL) - MAY_IMPORT[folder]
    elsewhere = {
        name
        for name in found & set(ONLY_IN)
        if not ONLY_IN[name] & places and not (name == "matplotlib" and folder == "notebooks")
    }
    return sorted(against | elsewhere)


def upward_imports(path: str, code: str) -> list[str]:
    """Wings of the same or a higher floor that the file at `path` in pekit imports."""
    floor = {wing: number for number, wings in enumerate(FLOORS) for wing in wings}
    own = PurePosixPath(path).with_suffix("").parts[1]
    modules = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "pekit":
            modules += [f"pekit.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules.append("." * node.level + (node.module or ""))
    wings = {name.split(".")[1] for name in modules if name.startswith("pekit.")}
    return sorted(wing for wing in wings - {own} if floor.get(wing, 99) >= floor[own])


def path_edits(code: str) -> list[str]:
    """Lines that touch sys.path."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(code))
        if (isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path")
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "sys"
            and node.names[0].name == "path"
        )
        or (isinstance(node, ast.Attribute) and node.attr == "addsitedir")
    ]


def notebook_faults(notebook: Path) -> list[str]:
    """What a notebook holds that it must not."""
    faults = []
    for number, cell in enumerate(read_cells(notebook), 1):
        source, where = cell["source"], f"cell {number}: "
        if ABSOLUTE.search(source):
            faults.append(where + "absolute path")
        if cell["cell_type"] != "code":
            continue
        if cell["outputs"] or cell["execution_count"] is not None:
            faults.append(where + "outputs")
        parameters = "parameters" in cell["metadata"].get("tags", [])
        limit = MAX_PARAMETERS if parameters else MAX_CELL_LINES
        if len(source.splitlines()) > limit:
            faults.append(where + f"more than {limit} lines")
        if re.search(r"^\s*(!|%%(bash|sh|script|system)|%(pip|conda|system|sx)\b)", source, re.M):
            faults.append(where + "shell")
            continue
        code = re.sub(r"^\s*%.*$", "", source, flags=re.M)
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                faults.append(where + f"defines {node.name}")
        faults += [where + edit for edit in path_edits(code)]
        faults += [where + f"imports {name}" for name in wrong_imports("notebooks/x", code)]
    lower = [
        name for name in read_parameters(notebook) if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name)
    ]
    return faults + [f"parameter {name} is not in upper case" for name in lower]


def python_files(*folders: str) -> list[str]:
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    return sorted(file.relative_to(ROOT).as_posix() for file in files if ".ipynb_" not in str(file))


@pytest.mark.parametrize(
    ("path", "code", "wrong"),
    [
        ("pekit/a.py", "def f():\n    from data_prep.dicom import read_series", ["data_prep"]),
        ("pekit/a.py", "import submissions.metric as m, wandb", ["submissions", "wandb"]),
        ("pekit/a.py", "import pydicom, matplotlib.pyplot", ["matplotlib", "pydicom"]),
        ("pekit/tracking/wandb_log.py", "import wandb", []),
        ("pekit/figures/preparation.py", "from matplotlib import pyplot", []),
        ("data_prep/a.py", "import submissions, pekit, pydicom", ["submissions"]),
        ("submissions/a.py", "import data_prep, pekit", ["data_prep"]),
        ("notebooks/run.py", "import papermill, pekit, data_prep, submissions, matplotlib", []),
        ("notebooks/run.py", "from tests import conftest", ["tests"]),
        ("data_prep/a.py", "from . import dicom", []),
    ],
)
def test_wrong_imports_are_found(path, code, wrong):
    assert wrong_imports(path, code) == wrong


@pytest.mark.parametrize("path", python_files(*MAY_IMPORT))
def test_imports_point_one_way(path):
    assert wrong_imports(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    ("path", "code", "wrong"),
    [
        ("pekit/hop.py", "from pekit.model.encoder import Encoder", []),
        ("pekit/model/encoder.py", "def f():\n    from pekit.hop import HopNet", ["hop"]),
        ("pekit/tracking/run.py", "from pekit.dataset.store import Store", ["dataset"]),
        ("pekit/tracking/run.py", "from pekit.tracking.csv_log import CsvLog", []),
        ("pekit/voting.py", "from pekit import hop", ["hop"]),
        ("pekit/voting.py", "import pekit.training.fit, numpy", ["training"]),
        ("pekit/reports/viewer/study.py", "from pekit.wing.new import x", ["wing"]),
    ],
)
def test_imports_that_point_up_are_found(path, code, wrong):
    assert upward_imports(path, code) == wrong


PEKIT = [path for path in python_files("pekit") if path != "pekit/__init__.py"]


@pytest.mark.parametrize("path", PEKIT)
def test_wings_import_lower_floors_only(path):
    assert upward_imports(path, (ROOT / path).read_text()) == []


def test_the_wings_are_what_one_sees_first():
    assert len([path for path in PEKIT if path.count("/") == 1]) <= 8
    wings = set.union(*FLOORS)
    assert {PurePosixPath(path).with_suffix("").parts[1] for path in PEKIT} <= wings


@pytest.mark.parametrize("folder", ["data_prep", "notebooks", "pekit", "submissions"])
def test_modules_are_imported_from_where_they_are(folder):
    """`from pekit import Store` is for people; code names the module, which shows its floor."""
    for path in python_files(folder):
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            lazy = isinstance(node, ast.ImportFrom) and node.module == "pekit"
            assert not lazy or not {alias.name for alias in node.names} & set(LAZY), path


@pytest.mark.parametrize(
    "code",
    ["import sys\nsys.path.insert(0, '..')", "from sys import path", "site.addsitedir('..')"],
)
def test_path_edits_are_found(code):
    assert path_edits(code)


@pytest.mark.parametrize("path", python_files(*MAY_IMPORT, "tests"))
def test_no_path_edits(path):
    assert path_edits((ROOT / path).read_text()) == []


def write(path: Path, *cells: tuple[str, str], **changes: object) -> Path:
    """A notebook of (tag, source) cells; `changes` go into the last one."""
    content = [
        {
            "cell_type": "code",
            "source": source,
            "outputs": [],
            "execution_count": None,
            "metadata": {"tags": [tag] if tag else []},
        }
        for tag, source in cells
    ]
    content[-1] |= changes
    path.write_text(json.dumps({"cells": content, "nbformat": 4, "nbformat_minor": 5}))
    return path


@pytest.mark.parametrize(
    ("source", "changes", "fault"),
    [
        ("x = 1", {}, None),
        ("%matplotlib inline\nf'{EPOCHS}/s'", {}, None),
        ("def f():\n    pass", {}, "defines f"),
        ("class A:\n    pass", {}, "defines A"),
        ("import sys\nsys.path.append('..')", {}, "sys.path"),
        ("!pip install x", {}, "shell"),
        ("%pip install x", {}, "shell"),
        ("p = '/home/me/data'", {}, "absolute path"),
        ("see ~/data", {"cell_type": "markdown"}, "absolute path"),
        ("import wandb", {}, "imports wandb"),
        ("1\n" * 26, {}, "more than 25 lines"),
        ("1", {"execution_count": 3}, "outputs"),
        ("1", {"outputs": [{"output_type": "stream", "name": "stdout", "text": ""}]}, "outputs"),
    ],
)
def test_faults_of_notebooks_are_found(tmp_path, source, changes, fault):
    notebook = write(tmp_path / "a.ipynb", ("parameters", "EPOCHS = 1"), ("", source), **changes)
    faults = notebook_faults(notebook)
    assert faults == [] if fault is None else any(fault in item for item in faults), faults


def test_parameters_in_lower_case_are_found(tmp_path):
    notebook = write(tmp_path / "a.ipynb", ("parameters", "epochs = 1"))
    assert notebook_faults(notebook) == ["parameter epochs is not in upper case"]


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks(notebook):
    assert notebook_faults(notebook) == []


def test_top_level_folders():
    command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: which files are the project's is not known")
    folders = {line.split("/")[0] for line in listed.stdout.splitlines() if "/" in line}
    assert folders <= FOLDERS


def test_an_installed_copy_has_every_package():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {
        ".".join(init.parent.relative_to(ROOT).parts)
        for folder in ("pekit", "data_prep", "submissions")
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert sorted(listed) == sorted(there)
