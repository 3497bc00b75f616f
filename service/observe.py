"""Logs: one line an event, the process's name in front, never a dataset, a name or a patient's number."""

from __future__ import annotations

import logging
import sys

_FORMAT = "%(asctime)s %(levelname)s {process}: %(message)s"


def configure_logging(process: str, *, verbose: bool = False) -> None:
    """Log to standard error; libraries only from warnings up, because some of them log datasets at debug."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_FORMAT.format(process=process)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for package in ("service", "dicom_nodes", "workers"):
        logging.getLogger(package).setLevel(logging.DEBUG if verbose else logging.INFO)
    # pydicom and pynetdicom put values of elements into warnings and errors.
    for chatty in ("pydicom", "pynetdicom", "highdicom"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
