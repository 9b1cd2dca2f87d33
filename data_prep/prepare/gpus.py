"""How many processes a segmenter that is a network gets: one per GPU, one in all on a CPU.

A network on a CPU takes all cores by its own threads; one per core would wait for each other and
fill the memory. On a GPU several would share its memory and its time.
"""

import os
from collections.abc import Mapping

NETWORKS = ("totalsegmentator", "lungmask")  # of `data_prep.anatomy.METHODS`


def segmenter_gpus(method: str, options: Mapping[str, str | bool]) -> list[str] | None:
    """GPUs for a segmentation method, one worker process on each.

    Args:
        method: a name in `data_prep.anatomy.METHODS`.
        options: the method's options; `device` and `force_cpu` overrule what is found.

    Returns:
        Their names for CUDA_VISIBLE_DEVICES. An empty list: one process, which runs the network
        where the options say, or on the CPU. None: the method is no network, any number will do.
    """
    if method not in NETWORKS:
        return None
    if options.get("device") not in (None, "gpu") or options.get("force_cpu"):
        return []
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else map(str, range(count))
    return [name.strip() for name in names][:count]
