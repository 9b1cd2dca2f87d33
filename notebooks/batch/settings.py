"""Build a notebook's settings from values of its parameters, before it runs.

A notebook makes settings by calls such as

    settings = EvaluationSettings(criterion=CRITERION, at=AT or None)
    settings = TrainSettings.of(TRAIN, epochs=EPOCHS, depth=net.depth)

The calls are read off its cells and made with the values that a stage would have. What only the
running notebook knows (`net.depth`) is left out.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from batch.parameters import check_parameters, read_cells, read_parameters
from pekit.common.errors import UserError, nearest

_SETTINGS = re.compile(r"\w+(Settings|Config)")
_CALLABLE = {"Path": Path, "str": str, "bool": bool}


class _UnknownError(Exception):
    """An expression whose value only the running notebook knows."""


@dataclass(frozen=True)
class _Code:
    """What the cells of a notebook say: their tree, and where each imported name comes from."""

    tree: ast.Module
    modules: dict[str, str]

    @classmethod
    def of(cls, notebook: Path) -> "_Code":
        cells = [c["source"] for c in read_cells(notebook) if c["cell_type"] == "code"]
        tree = ast.parse(re.sub(r"^\s*[%!?].*$", "", "\n".join(cells), flags=re.M))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        return cls(tree, {alias.name: node.module for node in imports for alias in node.names})

    def settings_class(self, call: ast.AST) -> str:
        """The class of settings that a node builds; empty if it is no such call."""
        if not isinstance(call, ast.Call):
            return ""
        of = isinstance(call.func, ast.Attribute) and call.func.attr == "of"
        name = ast.unparse(call.func.value if of else call.func)
        return name if _SETTINGS.fullmatch(name) and name in self.modules else ""

    def imported(self, name: str) -> Any:
        return getattr(import_module(self.modules[name]), name)


def check_all(notebook: Path, params: Mapping[str, Any], where: str) -> None:
    """Check names, types and settings before a notebook runs.

    Raises:
        UserError: naming `where`.
    """
    check_parameters(notebook, params, where, dictionaries(notebook))
    try:
        check_settings(notebook, read_parameters(notebook) | dict(params))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def dictionaries(notebook: Path) -> set[str]:
    """Parameters that become settings as a whole, such as TRAIN in `TrainSettings.of(TRAIN)`."""
    code = _Code.of(notebook)
    calls = [node for node in ast.walk(code.tree) if code.settings_class(node)]
    return {ast.unparse(c.args[0]) for c in calls if isinstance(c.func, ast.Attribute) and c.args}


def check_settings(notebook: Path, values: Mapping[str, Any]) -> None:
    """Build all settings of a notebook with the values of its parameters.

    Raises:
        UserError: a value that the settings refuse.
    """
    code = _Code.of(notebook)
    for call, known in _calls(code, values):
        _build(code, call, known)


def check_words(notebook: Path, values: Mapping[str, Any]) -> None:
    """Check parameters that are handed as they are to a function that takes certain words only.

    Slow where the function's module is: torch takes seconds.

    Raises:
        UserError: another word.
    """
    code = _Code.of(notebook)
    for call in ast.walk(code.tree):
        if not (isinstance(call, ast.Call) and ast.unparse(call.func) in code.modules):
            continue
        named = {k.arg: ast.unparse(k.value) for k in call.keywords}
        placed = [ast.unparse(argument) for argument in call.args]
        if not set(values) & {*named.values(), *placed}:
            continue
        function = code.imported(ast.unparse(call.func))
        hints = get_type_hints(function)
        hints.pop("return", None)
        for argument, name in {**dict(zip(hints, placed, strict=False)), **named}.items():
            words = get_args(hints.get(argument)) if _is_words(hints.get(argument)) else ()
            if words and name in values and values[name] not in words:
                raise UserError(f"{name} = {values[name]!r}: {nearest(str(values[name]), words)}")


def _is_words(hint: Any) -> bool:
    return get_origin(hint) is Literal


def _calls(code: _Code, values: Mapping[str, Any]) -> Iterator[tuple[ast.Call, dict[str, Any]]]:
    """Calls that build settings, each with the names that are known where it stands."""
    known = dict(values)
    assigned = [n.id for n in ast.walk(code.tree) if isinstance(n, ast.Name) and _stored(n)]
    for statement in code.tree.body:
        yield from _calls_in(code, statement, known)
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]) if assigned.count(name) == 1:
                try:
                    value = _value(code, statement.value, known)
                except (_UnknownError, ValidationError, UserError):
                    continue
                if isinstance(value, str | int | float | Path | None):  # nothing adds to it later
                    known.setdefault(name, value)


def _stored(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def _calls_in(
    code: _Code, node: ast.AST, known: dict[str, Any]
) -> Iterator[tuple[ast.Call, dict[str, Any]]]:
    if code.settings_class(node):
        yield node, known
        return
    match node:
        case ast.DictComp(generators=[one]) | ast.ListComp(generators=[one]):
            try:
                bound = [known | {one.target.id: v} for v in _value(code, one.iter, known)]
            except (_UnknownError, AttributeError, TypeError):
                bound = [known]
        case _:
            bound = [known]
    for names in bound:
        for child in ast.iter_child_nodes(node):
            yield from _calls_in(code, child, names)


def _build(code: _Code, call: ast.Call, known: dict[str, Any]) -> Any:
    """Settings of one call; None where what is not known yet is needed for them."""
    settings = code.imported(code.settings_class(call))
    given, unknown = {}, set()
    for keyword in call.keywords:
        try:
            given[keyword.arg] = _value(code, keyword.value, known)
        except _UnknownError:
            unknown.add(keyword.arg)
    if isinstance(call.func, ast.Attribute):
        try:
            asked = _value(code, call.args[0], known)
        except _UnknownError:
            return None
        return settings.of(asked, ast.unparse(call.args[0]), **given, **dict.fromkeys(unknown))
    try:
        return TypeAdapter(settings).validate_python(given)
    except ValidationError as error:
        faults = [e for e in error.errors() if not (e["loc"] and e["loc"][0] in unknown)]
        if not faults:
            return None
        parameters = {k.arg: _parameter(k.value, known) for k in call.keywords}
        raise UserError("; ".join(_explained(fault, parameters) for fault in faults)) from None


def _parameter(value: ast.AST, known: Mapping[str, Any]) -> str:
    """The one parameter that an expression hangs on; empty if it is not one."""
    names = {n.id for n in ast.walk(value) if isinstance(n, ast.Name) and n.id in known}
    return names.pop() if len(names) == 1 else ""


def _explained(fault: Mapping[str, Any], parameters: Mapping[str, str]) -> str:
    first, *rest = fault["loc"] or ("settings",)
    name = ".".join(map(str, (parameters.get(first) or first, *rest)))
    return f"{name} = {fault['input']!r}: {fault['msg'].removeprefix('Value error, ')}"


def _value(code: _Code, node: ast.AST, known: dict[str, Any]) -> Any:
    """Value of an expression of known names; no call in it but those of settings and paths."""
    if code.settings_class(node):
        if (built := _build(code, node, known)) is None:
            raise _UnknownError
        return built
    names = dict(known)
    for part in ast.walk(node):
        if isinstance(part, ast.Call) and ast.unparse(part.func) not in _CALLABLE:
            raise _UnknownError
        if isinstance(part, ast.Name) and part.id not in names and part.id not in _CALLABLE:
            raise _UnknownError
        if isinstance(part, ast.Attribute | ast.Lambda | ast.Await | ast.Yield):
            raise _UnknownError
    expression = compile(ast.Expression(node), "<notebook>", "eval")
    return eval(expression, {"__builtins__": {}, **_CALLABLE}, names)
