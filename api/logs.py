"""Log lines as JSON, one a request, or as text for people."""

from __future__ import annotations

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

from kg.settings import Settings

ACCESS = logging.getLogger("strata.access")
LOG = logging.getLogger("strata")


class _Text(logging.Formatter):
    """A line for people, with the fields of a request behind the message."""

    _FIELDS = ("status", "ms", "bytes", "request_id", "query_hash")

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields = [f"{n}={v}" for n in self._FIELDS if (v := getattr(record, n, None)) not in (None, "")]
        return " ".join([super().format(record), *fields])


def configure(settings: Settings) -> None:
    """Send the log of the service and of its server to standard error, in one format."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.log_format == "json":
        names = {"levelname": "level", "asctime": "time", "name": "logger"}
        layout = "%(asctime)s %(levelname)s %(name)s %(message)s"
        handler.setFormatter(JsonFormatter(layout, rename_fields=names, datefmt="%Y-%m-%dT%H:%M:%S%z"))
    else:
        handler.setFormatter(_Text("%(asctime)s %(levelname)s %(message)s"))
    level = settings.log_level.upper()
    for name in ("strata", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler] if name != "uvicorn.error" else []
        logger.propagate = name == "uvicorn.error"
        logger.setLevel(level)
    logging.getLogger("uvicorn.access").disabled = True  # ours says more
