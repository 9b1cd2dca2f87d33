"""An executed notebook as one HTML page that makes no request to any host.

nbconvert's own pages load MathJax, require.js and more from other hosts. This page has the cells as
nbconvert renders them and the kit's style and content-security policy.
"""

import copy
import re
from pathlib import Path
from typing import Any

from pekit.common.errors import UserError
from pekit.common.html.render import render
from pekit.review.privacy import scrub

LEFT_OUT = "[picture left out]"
# MIME types of an output that are shown; widgets would need scripts from other hosts.
SVG = "image/svg+xml"
_TEXTS = ("text/html", "text/markdown", "text/latex", "text/plain")
_IMAGES = ("image/png", "image/jpeg", "image/gif", SVG)
_MARKDOWN_IMAGE = re.compile(r"!\[[^\]]*\](\([^)]*\)|\[[^\]]*\])")
_EMBEDS = re.compile(
    r"<\s*(img|svg|canvas|iframe|script|object|embed|video|picture|input|image)\b|data:|url\(", re.I
)


def notebook_page(notebook: Path, stage: str, images: bool = True) -> str:
    """The page of an executed notebook, without paths; with `images=False` also without pictures.

    Raises:
        UserError: the file is not a notebook.
    """
    import nbformat
    from nbconvert import HTMLExporter

    try:
        content = nbformat.read(notebook, as_version=4)
    except (ValueError, nbformat.ValidationError) as error:
        raise UserError(f"{notebook} is not a notebook ({error}): run its stage again") from None
    cells = [cell for source in content.cells if (cell := _cell(source, images))]
    clean = nbformat.v4.new_notebook(
        cells=cells, metadata={"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    )
    body, resources = HTMLExporter(template_name="basic").from_notebook_node(clean)
    style = "\n".join(resources["inlining"]["css"])
    return render(
        "notebook.html",
        scripts="'unsafe-inline'",  # those of outputs, such as the slice viewer's
        title=notebook.name,
        stage=stage,
        body=body,
        code_style=style,
    )


def _cell(source: Any, images: bool) -> Any:
    """A copy of a cell without paths and, unless `images`, without pictures."""
    cell = copy.deepcopy(source)
    cell["source"] = scrub(cell["source"])
    if not images:
        cell.pop("attachments", None)
        cell["source"] = _MARKDOWN_IMAGE.sub(LEFT_OUT, cell["source"])
        if cell["cell_type"] == "markdown" and _EMBEDS.search(cell["source"]):
            cell["source"] = LEFT_OUT
    for output in cell.get("outputs", []):
        if "text" in output:
            output["text"] = scrub(output["text"])
        if "traceback" in output:
            output["traceback"] = [scrub(line) for line in output["traceback"]]
        if "data" in output:
            output["data"] = _data(output["data"], images)
            output["metadata"] = {}
    return cell


def _data(data: dict[str, Any], images: bool) -> dict[str, Any]:
    """Data of an output by MIME type; without images, only outputs that are text."""
    texts = {kind: scrub(data[kind]) for kind in _TEXTS if kind in data}
    if images:
        pictures = {kind: data[kind] for kind in _IMAGES if kind in data}
        if SVG in pictures:  # text, not encoded
            pictures[SVG] = scrub(pictures[SVG])
        return texts | pictures
    embeds = any(_EMBEDS.search(text) for text in texts.values())
    return {"text/plain": LEFT_OUT} if embeds or set(data) - set(_TEXTS) else texts
