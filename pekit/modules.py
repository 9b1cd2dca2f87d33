"""Which code a result hangs on: the local files that it imports, directly or through others."""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from pekit.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def local_files(code: str, where: Path, root: Path = ROOT) -> list[Path]:
    """Files of the packages in `root` that `code` imports, and that those import, sorted.

    Raises:
        UserError: the code, called by its file `where`, is not valid Python.
    """
    found: set[Path] = set()
    waiting = list(_imported(root, code, where, package=()))
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            package = file.parent.relative_to(root).parts
            waiting += _imported(root, file.read_text(encoding="utf-8"), file, package)
    return sorted(found)


def code_hash(files: Iterable[Path]) -> str:
    """Hash of what Python files do: comments and layout do not count."""
    code = [ast.dump(ast.parse(file.read_text(encoding="utf-8"))) for file in sorted(files)]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()


def _imported(root: Path, code: str, file: Path, package: tuple[str, ...]) -> Iterator[Path]:
    """Local files that a piece of code imports, in functions too."""
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        raise UserError(f"{file}: not valid Python: {error.msg}: {error.text}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module_files(root, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                yield from _module_files(root, [*base, alias.name])


def _module_files(root: Path, parts: list[str]) -> Iterator[Path]:
    """Files that importing a dotted name runs: each package's __init__.py, then the module."""
    folder = root
    for part in parts:
        if (folder / f"{part}.py").is_file() and folder != root:
            yield folder / f"{part}.py"
            return
        folder = folder / part
        if not (folder / "__init__.py").is_file():
            return
        yield folder / "__init__.py"
