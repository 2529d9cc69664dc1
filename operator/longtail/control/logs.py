"""One JSON object a line on standard error, for everything: ours, kopf's, the libraries'."""

import json
import logging
import sys
from typing import Final

from longtail.control.clock import rfc3339_micro

_ATTRIBUTES: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUIET: Final = {
    # kopf's INFO tells of every watch and handler; what matters of it is WARNING.
    "kopf": logging.WARNING,
    "aiohttp.access": logging.WARNING,
    "urllib3": logging.WARNING,
    "asyncio": logging.WARNING,
}


class JSONFormatter(logging.Formatter):
    """Writes a record with whatever was given as ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line: dict[str, object] = {
            "time": rfc3339_micro(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _ATTRIBUTES}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logs(*, level: str) -> None:
    """Send all logs of the process to standard error, and keep the libraries quiet unless debugging."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name, quiet in _QUIET.items():
        logging.getLogger(name).setLevel(logging.NOTSET if level == "DEBUG" else quiet)
