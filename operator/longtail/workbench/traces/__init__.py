"""Request traces: when each request arrived and how many tokens it took. Read, generated, composed."""

from longtail.workbench.traces.reading import read_trace
from longtail.workbench.traces.trace import Trace

__all__ = ["Trace", "read_trace"]
