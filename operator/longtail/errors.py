"""Every error longtail raises on purpose, in one tree.

Adapters translate foreign exceptions at the edge, so that the loop can decide by type what to do::

    LongtailError
    ├── SettingsError             the administrator's configuration is wrong: refuse to start
    ├── SpecError                 a resource passed the schema but cannot be used: condition, hold
    ├── MetricsError              nothing trustworthy was read
    │   ├── MetricsUnavailable    no answer: refused, timed out, 5xx, not JSON
    │   ├── MetricsPartial        an answer with warnings: a part of the data may be missing
    │   └── QueryRejected         the server understood and refused (4xx): retrying will not help
    ├── ClusterError              the Kubernetes API did not do what was asked
    │   ├── ClusterUnavailable    no answer, 429 or 5xx: try again next tick
    │   ├── NotFound              404: the object or its /scale is not there
    │   ├── Refused               403 or 422: permission or validation
    │   └── Conflict              409: somebody else wrote first; look again next tick
    │       └── NotLeading        not sent: another operator may be writing by now
    └── TraceError                a trace file cannot be used: says file, line and column
"""


class LongtailError(Exception):
    """Root of all errors raised on purpose."""


class SettingsError(LongtailError):
    """A setting is missing or invalid. The message names key and value."""


class SpecError(LongtailError):
    """A resource cannot be used. The message names field and value."""


class MetricsError(LongtailError):
    """Nothing trustworthy was read from a metrics source."""


class MetricsUnavailable(MetricsError):
    """The metrics source gave no answer."""


class MetricsPartial(MetricsError):
    """The metrics source answered with warnings, so a part of the data may be missing."""


class QueryRejected(MetricsError):
    """The metrics source refused the query."""


class ClusterError(LongtailError):
    """The Kubernetes API did not do what was asked."""


class ClusterUnavailable(ClusterError):
    """The Kubernetes API gave no answer, or asked to come back later."""


class NotFound(ClusterError):
    """The object, or its subresource, does not exist."""


class Refused(ClusterError):
    """The Kubernetes API refused for good: permission or validation."""


class Conflict(ClusterError):
    """The object changed since it was read."""


class NotLeading(Conflict):
    """A write was not sent, because another operator may be writing by now."""


class TraceError(LongtailError):
    """A trace cannot be used. The message names file, line and column."""
