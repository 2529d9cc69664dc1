"""What can go wrong in the harness, each with a message that a reader can act on."""

from __future__ import annotations


class HarnessError(Exception):
    """Base of every error that the harness raises on purpose."""


class BuildError(HarnessError):
    """The components could not be built; the message ends with the last lines of the Go command."""


class ProcessError(HarnessError):
    """A component died or did not become ready in time; the message ends with the last lines of its log."""


class CommandError(HarnessError):
    """A command, kubectl or our own, returned an error; the message holds its arguments and what it wrote."""


class NotYetError(HarnessError):
    """A condition that was waited for did not come true in time."""
