"""The index.html of a bundle, made only from the bundle's own files."""

from pathlib import Path
from typing import Any

import pandas as pd

from pekit.common.html.render import render, table
from pekit.review.bundle import STAGES, files_of, read_card, splits_used, stage_json
from pekit.review.pictures import caption

ROWS = 40  # shown per table
OPEN, CLOSE = "<!-- tables -->", "<!-- /tables -->"


def render_index(bundle: Path) -> str:
    """The index page of a bundle that is complete but for this page and SHA256SUMS."""
    card, files = read_card(bundle), files_of(bundle)
    stages = [_stage(bundle, name, about, files) for name, about in card["stages"].items()]
    # The last stages hold the results: they come first.
    places = [f"{STAGES}/{name}/tables/" for name in reversed(card["stages"])]
    results = [f"{STAGES}/{name}/table.csv" for name in card["stages"]]
    tables = [
        name
        for place in places
        for name in files
        if name.startswith(place) and name.endswith(".csv") and not _same_as_result(bundle, name)
    ]
    packages: dict[str, str] = {}
    for name in card["stages"]:
        for package, version in stage_json(bundle, name, "manifest").get("packages", {}).items():
            found = packages.setdefault(package, version)
            if version not in found.split(", "):
                packages[package] = f"{found}, {version}"
    return render(
        "index.html",
        title=f"{card['experiment']}: review bundle",
        card=card,
        notes=_notes(bundle, card),
        facts=_facts(bundle, card),
        results=[_table(bundle, name) for name in results if name in files],
        tables=[_table(bundle, name) for name in tables],
        stages=stages,
        packages=packages,
    )


def tables_shown(index: str) -> list[str]:
    """The parts of an index page that show tables."""
    return [part.split(CLOSE)[0] for part in index.split(OPEN)[1:]]


def _stage(
    bundle: Path, name: str, about: dict[str, Any], files: dict[str, Path]
) -> dict[str, Any]:
    own = [file for file in files if file.startswith(f"{STAGES}/{name}/")]
    manifest = stage_json(bundle, name, "manifest")
    device = manifest.get("device", {})
    git = manifest.get("git", {})
    commit = (git.get("commit") or "unknown")[:10] + (" + changes" if git.get("dirty") else "")
    seed = manifest.get("seed")
    links = about.get("inputs", {})
    inputs = {
        key: f"{value} ({links[key]})" if key in links else value
        for key, value in manifest.get("inputs", {}).items()
    }
    return {
        "name": name,
        "notebook": about["notebook"],
        "status": manifest.get("status", "unknown"),
        "wall": _duration(manifest.get("wall_s")),
        "device": ", ".join(device.get("gpus", []))
        or f"CPU, {device.get('processors', '?')} cores",
        "commit": commit,
        "seed": "" if seed is None else seed,
        "pages": [
            file
            for file in own
            if file.endswith(".html") and file != f"{STAGES}/{name}/notebook.html"
        ],
        "figures": [(file, caption(bundle / file)) for file in own if file.endswith(".png")],
        "params": _flat(stage_json(bundle, name, "params")),
        "metrics": _flat(stage_json(bundle, name, "metrics")),
        "inputs": inputs,
        "files": own,
    }


def _facts(bundle: Path, card: dict[str, Any]) -> dict[str, str]:
    manifests = [stage_json(bundle, name, "manifest") for name in card["stages"]]
    commits = {m.get("git", {}).get("commit") or "unknown" for m in manifests}
    dirty = sum(bool(m.get("git", {}).get("dirty")) for m in manifests)
    seconds = sum(m.get("wall_s") or 0 for m in manifests)
    seeds = sorted({m["seed"] for m in manifests if m.get("seed") is not None})
    started = min((m["started"] for m in manifests if m.get("started")), default="unknown")
    return {
        "Commit of the stages": ", ".join(sorted(commits)),
        "Uncommitted changes": f"in {dirty} stages" if dirty else "none",
        "Seeds": ", ".join(map(str, seeds)) or "none",
        "Split (SHA-256)": ", ".join(card["splits"]) or "none",
        "Stages": f"{len(manifests)} finished, {_duration(seconds)} in all",
        "Started": started.replace("T", " ").replace("+00:00", " UTC"),
        "Bundle made": f"{card['made']}, by the kit at {(card['commit'] or 'unknown')[:10]}",
        "Images of patients": "included" if card["images"] else "left out",
    }


def _notes(bundle: Path, card: dict[str, Any]) -> list[str]:
    """Warnings for the reader."""
    manifests = {name: stage_json(bundle, name, "manifest") for name in card["stages"]}
    notes = []
    if len({m.get("git", {}).get("commit") for m in manifests.values()}) > 1:
        notes.append("The stages ran at different commits: see the table of stages.")
    if dirty := [name for name, m in manifests.items() if m.get("git", {}).get("dirty")]:
        notes.append(f"These stages ran with uncommitted changes: {', '.join(dirty)}.")
    used = {name: set(splits_used(bundle, name).values()) for name in card["stages"]}
    if other := [name for name, digests in used.items() if digests - set(card["splits"])]:
        notes.append(f"These stages used a split that is not in the bundle: {', '.join(other)}.")
    if not card["images"]:
        notes.append(
            "Images of patients are left out: all pictures in notebooks, all pages of stages, and "
            f"all figures that are not charts ({len(card['left_out'])} files, see bundle.json)."
        )
    return notes


def _same_as_result(bundle: Path, name: str) -> bool:
    """Whether a table is its stage's table.csv, which the page shows already."""
    result = (bundle / name).parents[1] / "table.csv"
    return result.exists() and result.read_bytes() == (bundle / name).read_bytes()


def _table(bundle: Path, name: str) -> dict[str, Any]:
    """A CSV file for the page: title, file name, table."""
    path = bundle / name
    try:
        content = pd.read_csv(path)
    except pd.errors.EmptyDataError:
        content = pd.DataFrame()
    stage, rest = name.split("/", 2)[1:]
    title = f"{stage}: {path.stem}"
    beside = path.with_suffix(".txt")
    if rest == "table.csv" and beside.exists():
        title = beside.read_text(encoding="utf-8").split("\n")[0]
    return {"title": title, "file": name, "grid": table(content, ROWS)}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"
