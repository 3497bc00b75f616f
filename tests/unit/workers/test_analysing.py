from __future__ import annotations

import json
import subprocess
import sys

_ZYGOTE = """
import json, sys, threading
from service.settings import load_settings
from workers.analysing import import_ahead

import_ahead(load_settings(None, {}))
import torch

print(json.dumps({
    "threads": threading.active_count(),
    "cuda": torch.cuda.is_initialized(),
    "imported": [name for name in ("workers.tasks", "workers.explainers.cam", "workers.assessors.faithfulness",
                                   "dicom_nodes.objects.structured_report", "torch._dynamo", "scipy.stats")
                 if name in sys.modules],
}))
"""


def test_what_processes_are_forked_from_has_imported_what_pipelines_name_and_has_run_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", _ZYGOTE], check=True, capture_output=True, text=True, timeout=170)
    found = json.loads(done.stdout)
    assert (found["threads"], found["cuda"]) == (1, False)
    assert len(found["imported"]) == 6
