"""Logs: one line an event, the process's name in front, never a dataset, a name or a patient's number."""

from __future__ import annotations

import json
import logging
import re
import sys
import warnings
from datetime import UTC, datetime
from typing import TextIO

log = logging.getLogger(__name__)

_FORMAT = "%(asctime)s %(levelname)s {process}: %(message)s"
_JOB = re.compile(r"\bjob ([0-9a-f]{32})\b")


def configure_logging(process: str, *, form: str = "text", verbose: bool = False) -> None:
    """Log to standard error; libraries only from warnings up, because some of them log datasets at debug.

    Args:
        process: what this process is called.
        form: `text`, or `json`: one object a line, with the job's id where the line is about one.
        verbose: our own debugging lines too.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_first_line_of_others)
    handler.setFormatter(JsonLines(process) if form == "json" else logging.Formatter(_FORMAT.format(process=process)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for package in ("service", "dicom_nodes", "workers"):
        logging.getLogger(package).setLevel(logging.DEBUG if verbose else logging.INFO)
    # pydicom and pynetdicom put values of elements into warnings and errors.
    for chatty in ("pydicom", "pynetdicom", "highdicom"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)

    # Libraries warn with values of elements in the text; what kind of warning it was, and where, is enough.
    warnings.showwarning = _show_warning


def _first_line_of_others(record: logging.LogRecord) -> bool:
    """Keep the first line of a library's message: Celery quotes whole messages of the queue behind it."""
    if not record.name.startswith(("service", "dicom_nodes", "workers")):
        record.msg, record.args = record.getMessage().partition("\n")[0], ()
        record.exc_info = record.exc_text = None
    return True


def _show_warning(  # noqa: PLR0917 -- the signature of warnings.showwarning
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    del message, file, line
    log.warning("%s at %s:%d", category.__name__, filename, lineno)


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Write time, level, process, logger, message, and the job's id. An exception is named, not quoted."""
        text = record.getMessage()
        job = _JOB.search(text)
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": text,
            **({"job": job.group(1)} if job else {}),
            **({"exception": record.exc_info[0].__name__} if record.exc_info and record.exc_info[0] else {}),
        }
        return json.dumps(line, ensure_ascii=True)
