"""Writes a network as ONNX, folded, and proves that ONNX Runtime answers as torch does."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from service.errors import ModelError
from workers.models.folding import fold_batch_norm
from workers.models.package import probes
from workers.models.runtimes import OnnxRuntime

if TYPE_CHECKING:
    from torch import nn

    from workers.models.package import PackagedClassifier

LARGEST_DIFFERENCE = 1e-3
"""Of a probability, between torch and ONNX Runtime in float32."""
OPSET = 17


def export_onnx(classifier: PackagedClassifier) -> tuple[bytes, float]:
    """Return a model as ONNX (input `image`, output `logits`, any batch size), and the largest difference seen.

    Raises:
        ModelError: the model has no torch network, the `onnx` package is missing, or the answers differ by more than
            `LARGEST_DIFFERENCE`.
    """
    name = classifier.card.name
    if classifier.network is None:
        raise ModelError(f"model '{name}' is ONNX already")
    batch = probes(classifier.card)
    content = onnx_of(fold_batch_norm(classifier.network).to("cpu"), batch[:1])
    session = OnnxRuntime(content, torch.device("cpu"), where=f"{name}.onnx")
    expected = classifier.probabilities(classifier.exact_logits(batch.to(classifier.device)))
    difference = float(np.abs(classifier.probabilities(session(batch)) - expected).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise ModelError(f"model '{name}': ONNX Runtime's probabilities differ by {difference:.2g}; not exported")
    return content, difference


def onnx_of(network: nn.Module, example: torch.Tensor, *, fixed_batch: bool = False) -> bytes:
    """Return a network as ONNX bytes, numbers included.

    Args:
        network: in evaluation mode, on the CPU.
        example: one input, float32.
        fixed_batch: leave the batch at the example's size.

    Raises:
        ModelError: the `onnx` package is missing, or the network has an operator that ONNX lacks.
    """
    axes = None if fixed_batch else {"image": {0: "batch"}, "logits": {0: "batch"}}
    with tempfile.TemporaryDirectory(prefix="pellucid-onnx-") as folder, warnings.catch_warnings():
        path = Path(folder) / "network.onnx"
        # The exporter that torch calls legacy writes one file in seconds; its successor takes half a minute for the
        # same network, and needs another package.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                network,
                (example,),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["logits"],
                dynamic_axes=axes,
            )
        except (torch.onnx.OnnxExporterError, torch.onnx.errors.UnsupportedOperatorError) as error:
            if "onnx is not installed" in str(error):
                raise ModelError("exporting needs the package onnx: pip install 'pellucid[export]'") from None
            raise ModelError(f"this network cannot be written as ONNX ({type(error).__name__})") from None
        return path.read_bytes()
