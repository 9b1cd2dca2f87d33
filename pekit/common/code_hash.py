"""Which code a result depends on: the local files that it imports, directly or through others.

    local_files("import pekit.hop", Path("here"))    # hop.py, model/encoder.py, ...
    module_hash("pekit.training.loop")               # of all that training imports

A hash counts what code does: comments, docstrings and layout do not change it.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from pekit.common.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def local_files(
    code: str, where: Path, root: Path = ROOT, without: tuple[str, ...] = ()
) -> list[Path]:
    """Files of the packages in `root` that `code` imports, and that those import, sorted.

    Args:
        code: Python code.
        where: the file that it is from, for messages.
        without: folders relative to `root`, such as "pekit/figures", that are not followed.

    Raises:
        UserError: the code is not valid Python.
    """
    left_out = [root / folder for folder in without]
    found: set[Path] = set()
    named: set[tuple[str, ...]] = set()
    waiting = _imported_parts(code, where, package=())
    while waiting:
        parts = waiting.pop()
        if parts in named:
            continue
        named.add(parts)
        for file in _module_files(root, parts):
            if file not in found and not any(file.is_relative_to(folder) for folder in left_out):
                found.add(file)
                package = file.parent.relative_to(root).parts
                waiting += _imported_parts(file.read_text(encoding="utf-8"), file, package)
    return sorted(found)


@lru_cache(maxsize=4096)
def syntax(code: str, where: Path) -> str:
    """The syntax tree of Python code as text, without its docstrings.

    Raises:
        UserError: the code is not valid Python.
    """
    tree = _parsed(code, where)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return ast.dump(tree)


def code_hash(files: Iterable[Path]) -> str:
    """Hash of what Python files do."""
    code = [syntax(file.read_text(encoding="utf-8"), file) for file in sorted(files)]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()


def module_hash(*modules: str) -> str:
    """Hash of what modules of the kit do, with all local files that they import."""
    code = "\n".join(f"import {module}" for module in modules)
    return code_hash(local_files(code, Path(modules[0])))


def _parsed(code: str, where: Path) -> ast.Module:
    try:
        return ast.parse(code)
    except SyntaxError as error:
        raise UserError(f"{where}: not valid Python: {error.msg}: {error.text}") from None


def _imported_parts(code: str, file: Path, package: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Absolute names that a piece of code imports, in functions too: ("pekit", "hop", "HopNet")."""
    return [
        (*(package[: len(package) - level + 1] if level else ()), *name.split("."))
        for level, name in _imported_names(code, file)
    ]


@lru_cache(maxsize=4096)
def _imported_names(code: str, file: Path) -> list[tuple[int, str]]:
    """Level (leading dots) and dotted name of every import."""
    names = []
    for node in ast.walk(_parsed(code, file)):
        if isinstance(node, ast.Import):
            names += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            stem = f"{node.module}." if node.module else ""
            names += [(node.level, stem + alias.name) for alias in node.names]
    return names


def _module_files(root: Path, parts: Sequence[str]) -> Iterator[Path]:
    """Files that importing a dotted name runs: each package's __init__.py, then the module.

    A package may import names when they are first used (its dictionary LAZY: name -> module).
    These count where they are imported; all of them where the package itself is.
    """
    folder = root
    for number, part in enumerate(parts):
        if folder != root and (folder / f"{part}.py").is_file():
            yield folder / f"{part}.py"
            return
        if not (folder / part / "__init__.py").is_file():
            if number:
                module = _lazy(folder / "__init__.py").get(part)
                yield from _module_files(root, module.split(".")) if module else ()
            return
        folder = folder / part
        yield folder / "__init__.py"
    for module in _lazy(folder / "__init__.py").values():
        yield from _module_files(root, module.split("."))


def _lazy(init: Path) -> dict[str, str]:
    """The dictionary LAZY of a package's __init__.py; empty where it has none."""
    for node in ast.parse(init.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAZY":
            return ast.literal_eval(node.value)
    return {}
