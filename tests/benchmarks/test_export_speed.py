"""Prediction on a CPU: PyTorch against OpenVINO, with the same number of threads.

OMP_NUM_THREADS=2 .venv/bin/python -m pytest tests/benchmarks/test_export_speed.py --benchmark-only
"""

import numpy as np
import pytest
import torch

from pekit.hop import HopNet
from pekit.inference.openvino import OpenVinoPredictor
from pekit.inference.pytorch import TorchPredictor
from pekit.model.encoder import Encoder

pytest.importorskip("openvino", reason="needs pip install 'pekit[export]'")


@pytest.fixture(
    scope="module", params=[("tf_efficientnet_lite0", 96), ("tf_efficientnetv2_l", 576)]
)
def network(request):
    """The demo's network and the paper's."""
    name, size = request.param
    torch.manual_seed(0)
    return HopNet([Encoder(name)]).eval(), size


@pytest.mark.parametrize("backend", ["torch", "openvino float32", "openvino bfloat16"])
def test_predict_one_stack(benchmark, network, backend):
    """One stack, one hop."""
    net, size = network
    if backend == "torch":
        predict = TorchPredictor(net)
    else:
        predict = OpenVinoPredictor(net, size, backend.split()[1])
    stack = np.random.default_rng(0).integers(-1350, 1500, (1, 3, size, size)).astype(np.int16)
    benchmark.pedantic(predict, (stack,), rounds=5, warmup_rounds=1)


def test_conversion(benchmark, network):
    """Time that OpenVINO needs before the first stack."""
    net, size = network
    benchmark.pedantic(OpenVinoPredictor, (net, size), rounds=1)
