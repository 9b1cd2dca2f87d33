"""Which code a result hangs on."""

from pathlib import Path

import pytest

from pekit.errors import UserError
from pekit.modules import ROOT, code_hash, local_files


def test_code_hash_ignores_comments_but_not_code(tmp_path):
    module = tmp_path / "a.py"
    module.write_text("x = 1\n")
    before = code_hash([module])
    module.write_text("# a comment\nx   =   1\n")
    assert code_hash([module]) == before
    module.write_text("x = 2\n")
    assert code_hash([module]) != before


def test_files_that_preparing_a_study_hangs_on():
    files = {
        file.relative_to(ROOT).as_posix()
        for file in local_files("import data_prep.study", Path("here"))
    }
    assert {"data_prep/study.py", "data_prep/hull.py", "pekit/store.py"} <= files
    # A change of these redoes no study.
    assert not files & {"data_prep/split.py", "data_prep/prepare.py", "data_prep/doctor.py"}
    assert not any("phantom" in file for file in files)


def test_code_that_is_none():
    with pytest.raises(UserError, match="cell: not valid Python"):
        local_files("import (", Path("cell"))
