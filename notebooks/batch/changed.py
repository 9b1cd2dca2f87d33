"""What the code of notebooks says otherwise than their version in git, or than another copy."""

import subprocess
import tempfile
from collections.abc import Iterable
from difflib import unified_diff
from pathlib import Path

from batch.parameters import read_cells, read_parameters
from pekit.common.errors import UserError


def changed_notebooks(notebooks: Iterable[Path]) -> dict[Path, str]:
    """Notebooks whose code differs from the commit, each with the defaults that do: ` (N 1 -> 2)`.

    None where they are not in git.
    """
    found = {}
    for notebook in notebooks:
        command = ["git", "-C", str(notebook.parent), "show", f"HEAD:./{notebook.name}"]
        try:
            shown = subprocess.run(command, capture_output=True, check=True, timeout=30).stdout
        except (OSError, subprocess.SubprocessError):
            continue
        if shown == notebook.read_bytes():
            continue
        with tempfile.TemporaryDirectory() as folder:
            committed = Path(folder, notebook.name)
            committed.write_bytes(shown)
            if code_of(committed) != code_of(notebook):
                found[notebook] = changed_defaults(committed, notebook)
    return found


def changed_defaults(before: Path, after: Path) -> str:
    """Parameters whose defaults differ: ` (EPOCHS 2 -> 6)`; empty if none does."""
    try:
        old, new = read_parameters(before), read_parameters(after)
    except UserError:
        return ""
    pairs = [
        f"{name} {old.get(name, 'none')} -> {new.get(name, 'none')}"
        for name in {**old, **new}
        if old.get(name, "none") != new.get(name, "none")
    ]
    return f" ({', '.join(pairs)})" if pairs else ""


def difference(before: Path, after: Path) -> list[str]:
    """The lines of code that differ between two notebooks, as `diff -u` gives them."""
    lines = unified_diff(code_of(before), code_of(after), n=0, lineterm="")
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def code_of(notebook: Path) -> list[str]:
    """The lines of all code cells."""
    cells = [cell["source"] for cell in read_cells(notebook) if cell["cell_type"] == "code"]
    return "\n".join(cells).splitlines()
