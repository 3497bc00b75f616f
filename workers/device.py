"""Which device computes, and what makes its arithmetic repeatable."""

from __future__ import annotations

import torch

from service.errors import SettingsError
from service.validation import nearest


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called `name`: `auto` (CUDA when there is one), `cpu`, `cuda` or `cuda:N`.

    Raises:
        SettingsError: the name is unknown, or there is no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in {"cpu", "cuda"} or (number and not number.isdecimal()):
        raise SettingsError(f"device '{name}' is unknown{nearest(name, ['auto', 'cpu', 'cuda'])}")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise SettingsError(f"device '{name}' does not exist here; write 'auto' or 'cpu'")
    return torch.device(name)


def autocast(device: torch.device, *, enabled: bool = True) -> torch.autocast:
    """Return a context of bfloat16 arithmetic, on the CPU and on CUDA alike.

    bfloat16 has float32's range, so no gradient scaling is needed (Kalamkar et al. 2019, arXiv:1905.12322).
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
