"""Read an experiment's YAML and check every name and value in it before anything runs.

An experiment is one YAML file <name>.yaml; the folders of its stages lie in runs/<name>/:

    extends: demo.yaml              # optional: start from another file's stages
    stages:
      cohort:
        notebook: 10_phantoms.ipynb
        params: {N_TRAIN: 400}      # values for the notebook's parameters cell
      hop1:
        notebook: 21_train_hop1.ipynb
        needs: {STORE: prepare}     # parameter STORE receives the folder of the stage prepare
        params: {EPOCHS: 8, TRAIN: {lr: 0.002}}
        share: 0.5                  # of the cores; two such stages run side by side
      hop1_control:
        like: hop1                  # notebook, needs and params of hop1, except for what follows
        params: {EPOCHS: 16}

`about` says in a sentence what the experiment takes; `disk_gb` is what it needs on disk. `only:
[tables]` leaves out all stages but these and those that they need.

With `extends` and `like`, dictionaries such as TRAIN are merged key by key; `needs: {INIT: null}`
takes back a need. Every notebook also receives RUN, the folder of its own stage. `needs:
{MODEL: .}` passes the experiment's own folder, `needs: {DICOM: cohort/test}` a folder inside that
of a stage, and `after: [evaluate]` makes a stage wait for another without a parameter. Folders are
passed relative to notebooks/, where the kernels run. Stages are repeated over axes (seeds, levels
of difficulty): batch/axes.py.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from batch.axes import expand
from batch.notebook import NOTEBOOKS, ROOT, shown
from batch.parameters import check_parameters
from batch.settings import dictionaries
from pekit.common.errors import UserError, nearest

_MAPPINGS = ("needs", "gathers", "params")


@dataclass(frozen=True)
class Stage:
    """One notebook with its values.

    Attributes:
        after: stages whose results it uses.
        params: all parameters that are passed, RUN and the folders among them.
        portable: the same without RUN; folders of the experiment by the names of their stages.
        inside: names of the parameters that are folders of the experiment.
        share: of the machine's cores.
    """

    name: str
    notebook: Path
    after: tuple[str, ...]
    params: dict[str, Any]
    portable: dict[str, Any] = field(default_factory=dict)
    inside: tuple[str, ...] = ()
    share: float = 1.0


@dataclass(frozen=True)
class Experiment:
    """Stages in an order in which they can run; `folder` holds one folder per stage.

    `bases` are the files that it extends, the nearest first.
    """

    name: str
    folder: Path
    stages: dict[str, Stage]
    path: Path = Path()
    about: str = ""
    disk_gb: float = 0.0
    bases: tuple[Path, ...] = ()


def find_experiment(named: str) -> Path:
    """The YAML file of an experiment, by its name or path.

    Raises:
        UserError: there is none.
    """
    if named.endswith((".yaml", ".yml")) or "/" in named:
        return Path(named)
    known = {path.stem: path for path in (NOTEBOOKS / "experiments").glob("*.yaml")}
    if named in known:
        return known[named]
    what = f"no experiment {named!r}" if named else "which experiment?"
    raise UserError(f"{what}; {nearest(named, known)}")


def read_experiment(path: Path) -> Experiment:
    """Read and check an experiment.

    Raises UserError for an unknown key, stage or parameter, a value of another type than the
    notebook's default, a missing notebook, or stages that need each other in a circle.
    """
    content = _load(path)
    stages = expand(_merge_like(content["stages"], path), content["axes"], path)
    if content["only"] is not None:
        stages = _only(content["only"], stages, path)
    folder = ROOT / "runs" / path.stem
    done: dict[str, Stage] = {}
    for name in _in_order(stages, path):
        where = f"{path.name}: stage {name}"
        entry = stages[name]
        notebook = NOTEBOOKS / str(entry.get("notebook"))
        if "notebook" not in entry or not notebook.is_file():
            raise UserError(f"{where}: no notebook {entry.get('notebook')!r} in notebooks/")
        needs, gathers, given = entry["needs"], entry["gathers"], entry["params"]
        twice = sorted((set(needs) | set(gathers) | {"RUN"}) & set(given))
        if twice:
            raise UserError(
                f"{where}: {', '.join(twice)} is set by needs, gathers or RUN, not by params"
            )
        folders = {"RUN": name} | needs
        passed = {key: f"../runs/{path.stem}/{value}" for key, value in folders.items()}
        params = {key: value.removesuffix("/.") for key, value in passed.items()} | given
        for key, stages_of in gathers.items():
            params[key] = [s | {"folder": f"../runs/{path.stem}/{s['folder']}"} for s in stages_of]
        check_parameters(notebook, params, where, dictionaries(notebook))
        after = tuple(_after(entry))
        portable, inside = needs | gathers | given, (*needs, *gathers)
        share = entry.get("share", 1.0)
        done[name] = Stage(name, notebook, after, params, portable, inside, share)
    about, disk_gb, bases = content["about"], content["disk_gb"], content["bases"]
    return Experiment(path.stem, folder, done, path, about, disk_gb, bases)


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a repeated key is an error; otherwise the second would silently win."""


def _mapping_without_doubles(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    doubles = {str(key) for key in keys if keys.count(key) > 1}
    if doubles:
        line = node.start_mark.line + 1
        raise yaml.YAMLError(f"line {line}: given twice: {', '.join(sorted(doubles))}")
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(
    yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_doubles
)


def _load(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, dict[str, Any]]:
    """The axes and stages of a YAML file, merged into those of the file that it extends."""
    if not path.is_file():
        known = [other.stem for other in path.parent.glob("*.yaml")]
        raise UserError(f"no experiment {shown(path)}; {nearest(path.stem, known)}")
    if path in seen:
        raise UserError(f"{path.name}: extends itself, by {', '.join(p.name for p in seen)}")
    try:
        content = yaml.load(path.read_text(), Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{path.name} is not valid YAML: {error}") from None
    _check_keys(content, ("about", "disk_gb", "extends", "only", "axes", "stages"), path.name)
    said = {"about": str(content.get("about") or "").strip(), "only": content.get("only")}
    said["disk_gb"] = gb = content.get("disk_gb", 0.0)
    if isinstance(gb, bool) or not isinstance(gb, float | int):
        raise UserError(f"{path.name}: disk_gb = {gb!r}: expected a number, in GB")
    axes, stages = content.get("axes") or {}, content.get("stages") or {}
    _check_keys(axes, None, f"{path.name}: axes")
    _check_keys(stages, None, f"{path.name}: stages")
    for name, entry in stages.items():
        where = f"{path.name}: stage {name}"
        if not re.fullmatch(r"[a-z][a-z0-9_]*", str(name)) or name == "all":
            raise UserError(f"{where}: a stage's name is of a-z, 0-9 and _, and not 'all'")
        stages[name] = entry = {} if entry is None else entry
        _check_keys(entry, ("notebook", "like", *_MAPPINGS, "after", "share"), where)
        if not (isinstance(share := entry.get("share", 1.0), float | int) and 0 < share <= 1):
            raise UserError(
                f"{where}: share = {share!r}: a part of the cores, above 0 and at most 1"
            )
        for key in _MAPPINGS:
            _check_keys(entry.get(key) or {}, None, f"{where}: {key}")
        if not isinstance(entry.get("after") or [], list):
            raise UserError(f"{where}: after: expected a list of stages")
    if "extends" not in content:
        return {**said, "axes": axes, "stages": stages, "bases": ()}
    extended = path.parent / str(content["extends"])
    base = _load(extended, (*seen, path))
    known = base["stages"]
    merged = {name: _overlay(known.get(name, {}), entry) for name, entry in stages.items()}
    bases = (extended, *base["bases"])
    return {**said, "axes": base["axes"] | axes, "stages": known | merged, "bases": bases}


def _check_keys(content: Any, allowed: tuple[str, ...] | None, where: str) -> None:
    if not isinstance(content, dict):
        raise UserError(f"{where}: expected `name: value` pairs, found {content!r}")
    for key in content:
        if allowed is not None and key not in allowed:
            raise UserError(f"{where}: unknown key {key!r}; {nearest(str(key), allowed)}")


def _overlay(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """An entry over another one: what it does not say is inherited, in dictionaries key by key."""
    merged = base | over
    for key in _MAPPINGS:
        merged[key] = _merged(base.get(key) or {}, over.get(key) or {})
    return merged


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(base[key], value)
        for key, value in over.items()
        if isinstance(value, dict) and isinstance(base.get(key), dict)
    }
    return base | over | both


def _after(entry: Mapping[str, Any]) -> list[str]:
    """Stages that must be done before this one."""
    needed = [str(value).split("/")[0] for value in entry["needs"].values() if value != "."]
    needed += [item["folder"] for items in entry["gathers"].values() for item in items]
    return sorted({*needed, *map(str, entry.get("after") or [])})


def _merge_like(stages: dict[str, dict[str, Any]], path: Path) -> dict[str, dict[str, Any]]:
    """Replace `like` by what the named stage says."""
    merged = {}
    for name, entry in stages.items():
        if "like" in entry:
            model = stages.get(entry["like"])
            where = f"{path.name}: stage {name}: like: {entry['like']}"
            if model is None:
                raise UserError(f"{where}: no such stage; {nearest(str(entry['like']), stages)}")
            if "like" in model:
                raise UserError(f"{where}: that stage is itself like another; name that one")
            entry = _overlay(model, {key: entry[key] for key in entry if key != "like"})
        entry = _overlay({}, entry)
        entry["needs"] = {key: stage for key, stage in entry["needs"].items() if stage is not None}
        merged[name] = entry
    return merged


def _only(wanted: Any, stages: dict[str, dict[str, Any]], path: Path) -> dict[str, dict[str, Any]]:
    """The stages that `only` names (every repeat of them), and those that they need."""
    found: list[str] = []
    for name in wanted if isinstance(wanted, list) else [wanted]:
        repeat = re.compile(rf"{re.escape(str(name))}(_[a-z]+\d.*)?")
        repeats = [stage for stage in stages if repeat.fullmatch(stage)]
        if not repeats:
            raise UserError(f"{path.name}: only: no stage {name!r}; {nearest(str(name), stages)}")
        found += repeats
    for name in found:  # grows while it is read
        found += [need for need in _after(stages[name]) if need in stages and need not in found]
    return {name: entry for name, entry in stages.items() if name in found}


def _in_order(stages: Mapping[str, dict[str, Any]], path: Path) -> list[str]:
    """Stage names, each after those whose results it uses."""
    for name, entry in stages.items():
        for need in _after(entry):
            if need not in stages:
                where = f"{path.name}: stage {name}"
                raise UserError(f"{where}: needs {need!r}, no such stage; {nearest(need, stages)}")
    order: list[str] = []
    waiting = list(stages)
    while waiting:
        ready = [name for name in waiting if set(_after(stages[name])) <= set(order)]
        if not ready:
            raise UserError(f"{path.name}: these stages need each other: {', '.join(waiting)}")
        order.append(ready[0])
        waiting.remove(ready[0])
    return order
