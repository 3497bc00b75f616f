"""What computes logits: a torch module in some precision, or an ONNX Runtime session."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn

from service.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

EPSILON = 1e-6
"""Probabilities nearer to 0 or 1 than this become the logit of this: +-13.8."""
_NO_FOLDER = f"{os.devnull}/none"


class Runtime(Protocol):
    """One way to compute a model's logits."""

    name: str
    """`torch`, `torch-folded` or `onnxruntime`."""
    precision: str
    """`float32`, `bfloat16` or `float16`."""
    provider: str
    """Where it really runs: `cpu`, `cuda`, or ONNX Runtime's first provider in use."""

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits, float32 (batch, labels), without gradient, of a preprocessed batch."""


class TorchRuntime:
    """A module of torch, as it is."""

    def __init__(
        self, module: nn.Module, device: torch.device, *, name: str = "torch", precision: str = "float32"
    ) -> None:
        self.name, self.precision, self.provider = name, precision, device.type
        self._module, self._device = module, device

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits; see `Runtime`."""
        with torch.inference_mode():
            logits: torch.Tensor = self._module(batch.to(self._device))
        # Explainers must be able to use it beside tensors that need gradients.
        return logits.float().clone()


class OnnxRuntime:
    """An ONNX Runtime session over bytes whose digest was checked."""

    precision = "float32"
    name = "onnxruntime"

    def __init__(
        self, content: bytes, device: torch.device, *, where: str, output: str = "logits", softmax: bool = False
    ) -> None:
        import onnxruntime  # noqa: PLC0415 - 40 MB that packages of other formats do without

        wanted = (
            ["CUDAExecutionProvider", "CPUExecutionProvider"] if device.type == "cuda" else ["CPUExecutionProvider"]
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        # Numbers in other files would be read from the working folder, and no digest holds for them.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NO_FOLDER)
        try:
            self.session = onnxruntime.InferenceSession(
                content, options, providers=[name for name in wanted if name in onnxruntime.get_available_providers()]
            )
        except Exception as error:  # noqa: BLE001 - its errors have no common base
            raise ModelError(
                f"{where}: ONNX Runtime cannot load it ({type(error).__name__}); it must be one file, with its numbers "
                "inside"
            ) from None
        # onnxruntime-gpu falls back to the processor without a word: what is in use is asked, not assumed.
        self.provider = str(self.session.get_providers()[0])
        inputs = self.session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)":
            raise ModelError(f"{where}: one float32 input is expected, not {[entry.type for entry in inputs]}")
        self._input = inputs[0].name
        self._one_by_one = isinstance(inputs[0].shape[0], int) and inputs[0].shape[0] == 1
        self._output = self.session.get_outputs()[0].name
        self._finish = _finish(output, softmax=softmax)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits on the CPU; see `Runtime`."""
        array = batch.detach().to("cpu", torch.float32).numpy()
        parts = [array[i : i + 1] for i in range(len(array))] if self._one_by_one else [array]
        results = [np.asarray(self.session.run([self._output], {self._input: part})[0]) for part in parts]
        logits: torch.Tensor = self._finish(torch.from_numpy(np.concatenate(results).astype(np.float32)))
        return logits


class Adapted(nn.Module):
    """A stranger's network, made to return logits: the only tensor of what it returns, taken back to logits."""

    def __init__(self, network: nn.Module, *, output: str, softmax: bool) -> None:
        super().__init__()
        self.network = network
        self.finish = _finish(output, softmax=softmax)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (batch, labels)."""
        logits: torch.Tensor = self.finish(_only_tensor(self.network(x)))
        return logits


class _Logits(nn.Module):
    """The inverse of a sigmoid, or of a softmax up to a constant that softmax does not see."""

    def __init__(self, *, softmax: bool) -> None:
        super().__init__()
        self.softmax = softmax

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits of probabilities; NaN stays NaN."""
        p = x.clamp(EPSILON, 1 - EPSILON)
        return p.log() if self.softmax else torch.logit(p)


def _finish(output: str, *, softmax: bool) -> nn.Module:
    return _Logits(softmax=softmax) if output == "probabilities" else nn.Identity()


def _only_tensor(result: Any) -> torch.Tensor:
    if isinstance(result, torch.Tensor):
        return result
    values: list[Any] = (
        list(result.values()) if isinstance(result, dict) else list(result) if isinstance(result, tuple | list) else []
    )
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    if len(tensors) != 1:
        raise ModelError(f"the network returns {len(tensors)} tensors; one with a logit per label is expected")
    return tensors[0]


def describe(runtime: Runtime) -> Mapping[str, str]:
    """Return name, precision and provider, for reports."""
    return {"runtime": runtime.name, "precision": runtime.precision, "provider": runtime.provider}
