"""From a weights file whose digest was checked to a network; one function per format.

No format here unpickles what it was given: `safetensors` holds numbers only, `state-dict` goes through torch's
restricted unpickler (`weights_only`), ONNX is a description that ONNX Runtime interprets. TorchScript, `torch.export`
and MONAI bundles hold a program: they are loaded only when the card says `trusted = true`, after the digest matched.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import warnings
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from service.errors import ModelError
from service.model_card import CODED_FORMATS
from workers.models.densenet import UNRECTIFIED, DenseNet121
from workers.models.graphs import build_graph
from workers.models.runtimes import Adapted, OnnxRuntime

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from service.model_card import ModelCard

XRV_PATHOLOGIES = (
    "Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion",
    "Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia", "Lung Lesion", "Fracture",
    "Lung Opacity", "Enlarged Cardiomediastinum",
)  # fmt: skip
"""Outputs of torchxrayvision's DenseNet-121, in order; a card's labels name them, in the same order."""
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
"""DenseNet weights published before 2018 write `norm.1` for `norm1`."""
_ZIP = b"PK\x03\x04"


def read_weights(folder: Path, card: ModelCard) -> bytes:
    """Read the weights file of a package; it is returned only when its digest is the card's.

    Raises:
        ModelError: outside the package, missing, unreadable, altered, or a program that nobody vouched for.
    """
    path = folder / card.weights.file
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(f"{folder}: the weights file must lie in the package, not at '{card.weights.file}'")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); restore it from where the package came") from None
    found = hashlib.sha256(content).hexdigest()
    if found != card.weights.sha256:
        raise ModelError(
            f"{path}: sha256 is {found}, model.toml says {card.weights.sha256}; the file was altered "
            "or cut off: restore it, or correct [weights] sha256 if you replaced it on purpose"
        )
    if card.weights.format in CODED_FORMATS and not card.weights.trusted:
        raise ModelError(
            f"{path}: a file of format {card.weights.format} holds a program, which loading it would let run; "
            "make sure where it came from, then set [weights] trusted = true, or convert it to safetensors or ONNX"
        )
    return content


def load_network(folder: Path, card: ModelCard, content: bytes, device: torch.device) -> nn.Module | None:
    """Build the network of a card, float32 and in evaluation mode, on `device`; None for ONNX.

    Raises:
        ModelError: the bytes are not of the card's format, or do not fit its graph.
    """
    where = str(folder / card.weights.file)
    kind = card.weights.format
    if kind == "onnx":
        return None
    if kind in {"safetensors", "state-dict", "torchxrayvision"}:
        network = _graph(card, content, where)
    elif kind == "torch-export":
        network = _adapted(_exported(content, where), card)
    else:
        if kind == "monai-bundle":
            _check_bundle(folder, card)
        network = _adapted(_script(content, device, where), card)
    if card.weights.cam_layer and card.weights.cam_layer not in dict(network.named_modules()):
        raise ModelError(f"{where}: the network has no layer '{card.weights.cam_layer}'")
    network.to(device=device, dtype=torch.float32)
    if kind != "torch-export":  # an exported program has its mode built in
        network.eval()
    return network.requires_grad_(requires_grad=False)


def load_onnx(folder: Path, card: ModelCard, content: bytes, device: torch.device) -> OnnxRuntime:
    """Open an ONNX Runtime session; a file that keeps its numbers in other files is refused.

    Raises:
        ModelError: no ONNX file, or not one with a single float32 input.
    """
    return OnnxRuntime(
        content,
        device,
        where=str(folder / card.weights.file),
        output=card.weights.output,
        softmax=card.task == "multi-class",
    )


def _graph(card: ModelCard, content: bytes, where: str) -> nn.Module:
    name = card.weights.graph or "densenet121"
    network = build_graph(name, labels=len(card.labels), channels=card.input.channels)
    if isinstance(network, DenseNet121) and card.weights.cam_layer in UNRECTIFIED:
        raise ModelError(
            f"{where}: cam_layer '{card.weights.cam_layer}' of graph '{name}' lies before its last ReLU, where places "
            "without a feature would light up: name 'relu'"
        )
    tensors = _tensors(card.weights.format, content, where)
    _fill(network, _renamed(tensors), where=where)
    return network if card.weights.output == "logits" else _adapted(network, card)


def _adapted(network: nn.Module, card: ModelCard) -> nn.Module:
    return Adapted(network, output=card.weights.output, softmax=card.task == "multi-class")


def _tensors(kind: str, content: bytes, where: str) -> dict[str, torch.Tensor]:
    if kind == "safetensors" or (kind == "torchxrayvision" and not content.startswith((_ZIP, b"\x80"))):
        try:
            return load_safetensors(content)
        except SafetensorError as error:
            raise ModelError(f"{where}: no safetensors file ({error})") from None
    try:
        found: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        IndexError,
    ):
        raise ModelError(
            f"{where}: holds more than a dictionary of tensors, which only a program could rebuild: "
            "where you trust it, save `model.state_dict()` as safetensors and use that"
        ) from None
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ModelError(f"{where}: is no dictionary of tensors; save `model.state_dict()`")
    return {str(name): value for name, value in found.items()}


def _renamed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # torchxrayvision keeps its operating points in a buffer; here they are in the card, as `op_norm`.
    return {_OLD_DENSENET.sub(r"\1\2", name): value for name, value in tensors.items() if name != "op_threshs"}


def _script(content: bytes, device: torch.device, where: str) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch prefers its newer format; hospitals have this
            network: nn.Module = torch.jit.load(io.BytesIO(content), map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{where}: no TorchScript file ({type(error).__name__})") from None
    return network


def _exported(content: bytes, where: str) -> nn.Module:
    try:
        program = torch.export.load(io.BytesIO(content))
        return program.module()
    except Exception as error:  # noqa: BLE001 - the format is young and its errors have no common base
        raise ModelError(f"{where}: no torch.export file of this torch ({type(error).__name__})") from None


def _check_bundle(folder: Path, card: ModelCard) -> None:
    """Compare a MONAI bundle's `metadata.json` with the card; the bundle's own pre-processing is never executed."""
    found = next(
        (path for path in (folder / "metadata.json", folder / "configs" / "metadata.json") if path.is_file()), None
    )
    if found is None:
        raise ModelError(f"{folder}: a MONAI bundle has metadata.json or configs/metadata.json")
    try:
        data = json.loads(found.read_text(encoding="utf-8"))["network_data_format"]
        image = next(iter(data["inputs"].values()))
        result = next(iter(data["outputs"].values()))
        channels, shape, outputs = image["num_channels"], list(image["spatial_shape"]), result["num_channels"]
    except (OSError, ValueError, KeyError, TypeError, StopIteration, AttributeError):
        raise ModelError(f"{found}: has no network_data_format with inputs and outputs") from None
    expected = [card.input.rows, card.input.columns]
    if card.input.slices:
        expected.insert(0, card.input.slices)
    # A bundle may leave an axis open with "*" or an expression such as "16*n".
    fits = len(shape) == len(expected) and all(
        not isinstance(size, int) or size == want for size, want in zip(shape, expected, strict=True)
    )
    if not fits or channels != card.input.channels:
        raise ModelError(
            f"{found}: reads {channels} channels of {shape}, model.toml says {card.input.channels} of {expected}"
        )
    if outputs != len(card.labels):
        raise ModelError(f"{found}: gives {outputs} outputs, model.toml names {len(card.labels)} labels")


def _fill(network: nn.Module, tensors: dict[str, torch.Tensor], *, where: str) -> None:
    expected = network.state_dict()
    # Weights of old torch versions do not count batches; nothing here reads the count.
    tensors = {k: v for k, v in expected.items() if k.endswith("num_batches_tracked")} | tensors
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    misshapen = sorted(k for k in expected.keys() & tensors.keys() if expected[k].shape != tensors[k].shape)
    for fault, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen)):
        if names:
            raise ModelError(f"{where}: does not fit the graph; {len(names)} tensors {fault}, first '{names[0]}'")
    network.load_state_dict(tensors, strict=True)
