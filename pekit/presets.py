"""The kit's peers on the RSNA-STR data, as parameters of its own notebooks.

    peer = preset("xu")
    peer.hop1       # of 05_train_hop1: encoder, initialisation, image size
    peer.heads      # of 12_study_heads: the head and its sizes

Windows, crop, augmentation, split and loss are the kit's for all of them, so that they differ in
encoder and head alone: these are not the peers' whole recipes. What a source does not say has the
notebook's value. `notebooks/experiments/peers.yaml` runs them on one split.
"""

from dataclasses import dataclass
from typing import Any

from pekit.errors import UserError, do_you_mean


@dataclass(frozen=True)
class Preset:
    """A peer: where its values are from, and the parameters of the two notebooks."""

    source: str
    hop1: dict[str, Any]
    heads: dict[str, Any]


PRESETS = {
    "xu": Preset(
        "1st place; github.com/GuanshuoXu/RSNA-STR-Pulmonary-Embolism-Detection: 3-slice stacks "
        "at 576 px, one two-way GRU of 512, maximum and attention over the slices",
        {"ENCODER": "seresnext50_32x4d", "INIT": "timm", "IMAGE_SIZE": 576},
        {
            "HEADS": ["gru"],
            "HIDDEN": 512,
            "LAYERS": 1,
            "DROPOUT": 0.0,
            "EPOCHS": 25,
            "BATCH_SIZE": 64,
            "LR": 5e-4,
        },
    ),
    "pan": Preset(
        "2nd place; github.com/i-pan/kaggle-rsna-pe (mk013, seq103): 448 px out of 512, features "
        "reduced to 512, a transformer over them; its depth is not in the settings",
        {"ENCODER": "resnest50d", "INIT": "timm", "IMAGE_SIZE": 448},
        {
            "HEADS": ["transformer"],
            "HIDDEN": 512,
            "EPOCHS": 10,
            "BATCH_SIZE": 32,
            "LR": 1e-3,
            "WEIGHT_DECAY": 5e-4,
        },
    ),
    "darragh": Preset(
        "github.com/darraghdog/rsnastr (effnetb5_lr5e4_binary, b5_seq_lstm): noisy-student "
        "EfficientNet-B5 at 512 px, LSTM of 512",
        {"ENCODER": "tf_efficientnet_b5.ns_jft_in1k", "INIT": "timm", "IMAGE_SIZE": 512},
        {
            "HEADS": ["lstm"],
            "HIDDEN": 512,
            "DROPOUT": 0.0,
            "EPOCHS": 20,
            "BATCH_SIZE": 32,
            "LR": 5e-5,
        },
    ),
    "ma": Preset(
        "Ma et al., Sci Rep 12:13087, 2022: 3D ResNet-18 over neighbouring slices, then a sequence "
        "model over the study; which sizes is not known to the kit, these are its own",
        {"ENCODER": "r3d_18", "INIT": "torchvision", "IMAGE_SIZE": 224},
        {"HEADS": ["gru"]},
    ),
}


def preset(name: str) -> Preset:
    """The peer called `name`: xu, pan, darragh or ma.

    Raises:
        UserError: no such peer; near names are offered.
    """
    if name not in PRESETS:
        raise UserError(f"no preset '{name}' {do_you_mean(name, PRESETS)}")
    return PRESETS[name]
