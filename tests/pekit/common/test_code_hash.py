"""Which code a result depends on."""

from pathlib import Path

import pytest

import pekit
from pekit import LAZY
from pekit.common.code_hash import ROOT, code_hash, local_files
from pekit.common.errors import UserError


def test_code_hash_ignores_comments_but_not_code(tmp_path):
    module = tmp_path / "a.py"
    module.write_text("x = 1\n")
    before = code_hash([module])
    module.write_text('"""Docstring."""\n# a comment\nx   =   1\n')
    assert code_hash([module]) == before
    module.write_text("x = 2\n")
    assert code_hash([module]) != before


def test_files_that_preparing_a_study_depends_on():
    files = {
        file.relative_to(ROOT).as_posix()
        for file in local_files("import data_prep.prepare.study", Path("here"))
    }
    assert {
        "data_prep/prepare/study.py",
        "data_prep/anatomy/hull.py",
        "pekit/dataset/store.py",
    } <= files
    # A change of these redoes no study.
    assert not files & {
        "data_prep/split/draw.py",
        "data_prep/prepare/studies.py",
        "data_prep/audit/studies.py",
    }
    assert not any("phantom" in file for file in files)


def test_names_that_a_package_imports_late_count_where_they_are_used():
    def of(code):
        files = local_files(code, Path("here"))
        return {file.relative_to(ROOT).as_posix() for file in files}

    assert "pekit/dataset/store.py" in of("from pekit import Store")
    assert "pekit/hop.py" not in of("from pekit import Store")
    assert "pekit/hop.py" in of("import pekit")
    assert "pekit/hop.py" not in of("from pekit.dataset.store import Store")
    assert set(LAZY) == {name for name in dir(pekit) if name[0].isalpha() and name in LAZY}
    assert all(getattr(pekit, name).__module__ == module for name, module in LAZY.items())


@pytest.mark.parametrize(
    ("changed", "follows"),
    [
        ("pekit/training/recipe.py", True),
        ("pekit/hop.py", True),
        ("pekit/dataset/stacks.py", True),
        ("pekit/figures/training.py", False),
        ("pekit/tracking/run.py", False),
        ("pekit/training/cost.py", False),
        ("pekit/training/study_head.py", False),
        ("pekit/evaluation/metrics.py", False),
    ],
)
def test_resuming_a_training_depends_on_what_training_imports(changed, follows):
    assert ((ROOT / changed) in local_files("import pekit.training.fit", Path("here"))) == follows


def test_code_that_is_none():
    with pytest.raises(UserError, match="cell: not valid Python"):
        local_files("import (", Path("cell"))
