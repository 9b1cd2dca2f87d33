"""Export of a trained network to ONNX and OpenVINO: HU in, slice probability out.

    export_model(Path("runs/demo/hop2"), Path("exported"))

or `make export MODEL=demo OUT=exported`, writes `model.onnx`, `model.xml` with
`model.bin` (OpenVINO) and, last, `export.json`, which describes input and output; a folder without
it is incomplete. Windowing and softmax are part of the exported network:
`stack_hu (batch, 3, H, W)` float32 HU -> `probability (batch, K)`, one column per hop.

Needs `pip install 'pekit[export]'`.
"""

import contextlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from pekit.checkpoint import load_hops, model_folder
from pekit.common.errors import UserError, nearest
from pekit.common.files import atomic, hash_path, write_json
from pekit.dataset.schema import OUTSIDE_HU
from pekit.dataset.windows import SLICES, WINDOWS
from pekit.hop import HopNet
from pekit.inference.openvino import (
    INPUT,
    OUTPUT,
    SliceProbabilities,
    require,
    to_openvino,
    traced,
)

VERSION = 1
OPSET = 20  # of ONNX; ONNX Runtime 1.17 and later read it,
FILE_FORMAT = 9  # in this format, the first one that has that opset (ONNX's "IR version")
TOLERANCE = 1e-3  # largest allowed difference from PyTorch's probabilities
Format = Literal["onnx", "openvino"]
FORMATS: tuple[Format, ...] = get_args(Format)


def export_model(
    folder: Path,
    out: Path,
    formats: Sequence[Format] = FORMATS,
    stacks_hu: np.ndarray | None = None,
) -> dict[str, Any]:
    """Export a PE model to ONNX and OpenVINO, and compare the result with PyTorch.

    Args:
        folder: the model.
        out: folder to write to; an earlier export there is replaced.
        formats: `onnx`, `openvino`.
        stacks_hu: `(N, 3, H, W)` HU to compare on, for example from `middle_stacks`; None: noise.

    Returns:
        The content of export.json: image_size, encoders, names and shapes of input and output,
        windows, opset, the prevalence that each hop was trained at (and at which its probabilities
        are valid), max_difference of each file from PyTorch, SHA-256 of the weights and the files.

    Raises:
        UserError: an unknown format, a missing package, no PE model in the folder (as
            `load_hops`), or probabilities that differ from PyTorch's by more than 1e-3.
    """
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"no format {name!r}: {nearest(name, FORMATS)}")
    _, _, openvino = (require(name) for name in ("onnx", "onnxscript", "openvino"))
    net, card = load_hops(folder)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    program = traced(net, card.image_size)
    (out / "export.json").unlink(missing_ok=True)
    for file in ("model.onnx", "model.xml", "model.bin"):
        (out / file).unlink(missing_ok=True)
    stacks = _noise(card.image_size) if stacks_hu is None else torch.from_numpy(stacks_hu).float()
    difference = {}
    if "onnx" in formats:
        with atomic(out / "model.onnx") as beside:
            _to_onnx(program).save(beside)
        difference["model.onnx"] = _difference(openvino, out / "model.onnx", net, stacks)
    if "openvino" in formats:
        with atomic(out / "model.bin") as weights, atomic(out / "model.xml") as beside:
            model = to_openvino(program, card.image_size)
            openvino.save_model(model, beside, compress_to_fp16=False)
            beside.with_suffix(".bin").rename(weights)
        difference["model.xml"] = _difference(openvino, out / "model.xml", net, stacks)
    content = {
        "version": VERSION,
        "encoders": card.encoders,
        "image_size": card.image_size,
        "input": _port(INPUT, (SLICES, card.image_size, card.image_size), "HU"),
        "output": _port(OUTPUT, (net.hops,), "probability of PE in the middle slice"),
        "output_names": [f"hop{k + 1}" for k in range(net.hops)],
        "windows_hu": [{"centre": centre, "width": width} for centre, width in WINDOWS],
        "prevalence": [at and asdict(at) for at in net.prevalence],
        "opset": OPSET,
        "max_difference": difference,
        "weights": hash_path(model_folder(folder) / "model.safetensors"),
        "files": {file.name: hash_path(file) for file in sorted(out.glob("model.*"))},
    }
    write_json(out / "export.json", content)
    return content


def _port(name: str, shape: tuple[int, ...], unit: str) -> dict[str, Any]:
    return {"name": name, "shape": ["batch", *shape], "dtype": "float32", "unit": unit}


def _to_onnx(program: torch.export.ExportedProgram) -> "torch.onnx.ONNXProgram":
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the libraries warn about each other
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    exported.model.ir_version = FILE_FORMAT
    return exported


def _noise(image_size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    size = (3, SLICES, image_size, image_size)
    return torch.randint(OUTSIDE_HU, 1000, size, generator=generator).float()


def _difference(openvino: ModuleType, file: Path, net: HopNet, stacks: Tensor) -> float:
    # Largest difference between the probabilities of a written file and the network's.
    with torch.inference_mode():
        expected = SliceProbabilities(net)(stacks).numpy()
    compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    difference = float(np.abs(compiled(stacks.numpy())[0] - expected).max())
    if not difference <= TOLERANCE:
        raise UserError(
            f"{file.name} gives probabilities {difference:.2g} off PyTorch's, more than "
            f"{TOLERANCE}: use the PyTorch model, or other versions of the export packages"
        )
    return difference
