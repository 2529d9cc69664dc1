"""Every policy by name, at its defaults or with its one knob at a value, for the pool of a setting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from longtail.errors import SettingsError
from longtail.workbench.fleet.pilots import LONGTAIL, Fixed, Peer, longtail
from longtail.workbench.fleet.setting import EPOCH_SECONDS, Setting
from longtail.workbench.fleet.simulation import Pilot
from longtail.workbench.peers import catalogue
from longtail.workbench.peers.oracle import Truth
from longtail.workbench.traces.trace import Floats, Trace

LONGTAIL_KNOB = "attainment asked for (0..1)"
LONGTAIL_GRID = (0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998)
_FIXED = "fixed-"


@dataclass(frozen=True, slots=True)
class Knob:
    """The one parameter of a policy that hindsight may tune."""

    meaning: str
    """In words with its unit."""
    grid: tuple[float, ...]


def truth_of(trace: Trace, setting: Setting) -> Truth:
    """What the oracles are told of a trace."""
    served = trace.select(trace.output_tokens > 0)
    slot_seconds: Floats = np.multiply(served.output_tokens, setting.replica.seconds_per_token, dtype=np.float64)
    return Truth.of(
        arrivals=served.arrival_seconds + EPOCH_SECONDS,
        slot_seconds=slot_seconds,
    )


def knobs(setting: Setting, *, truth: Truth | None = None) -> Mapping[str, Knob]:
    """All policies by name: longtail, then the peers, and the oracles where there is a truth to tell them."""
    peers = {name: Knob(peer.policy.knob, peer.grid) for name, peer in _peers(setting, truth).items()}
    return {LONGTAIL: Knob(LONGTAIL_KNOB, LONGTAIL_GRID), **peers}


def pilot(
    name: str,
    setting: Setting,
    *,
    knob: float | None = None,
    truth: Truth | None = None,
    max_output_tokens: float = 32_768.0,
) -> Pilot:
    """A policy, fresh, at the controls.

    Args:
        name: ``longtail``, a peer of the catalogue, or ``fixed-N``.
        setting: of the simulation it is to fly.
        knob: value of its knob (for longtail the share of requests that is promised); None is its default.
        truth: for the oracles.
        max_output_tokens: hard cap of an answer, which longtail's users state.

    Raises:
        SettingsError: there is no such policy, or its knob cannot have this value.
    """
    if name == LONGTAIL:
        if knob is not None and not 0.5 <= knob <= 0.999:
            raise SettingsError(f"knob: {LONGTAIL_KNOB} must be within [0.5, 0.999], got {knob:g}")
        return longtail(
            setting,
            attainment=0.99 if knob is None else knob,
            max_output_tokens=max_output_tokens,
            startup_seconds=setting.cold_start_seconds,
        )
    if name.startswith(_FIXED) and name.removeprefix(_FIXED).isdecimal():
        return Fixed(int(name.removeprefix(_FIXED)))
    peers = _peers(setting, truth)
    if name not in peers:
        raise SettingsError(f"policy: no {name!r} among {', '.join((LONGTAIL, *peers, 'fixed-N'))}")
    policy = peers[name].policy
    try:
        return Peer(policy if knob is None else policy.tuned(knob), setting.replica)
    except ValueError as error:
        raise SettingsError(f"knob: {error}") from error


def names(setting: Setting) -> Sequence[str]:
    """Policies that need not be told the truth."""
    return tuple(knobs(setting))


def _peers(setting: Setting, truth: Truth | None) -> Mapping[str, catalogue.Peer]:
    service = catalogue.Service(
        slots_per_replica=setting.replica.slots,
        min_replicas=setting.min_replicas,
        max_replicas=setting.max_replicas,
        startup_seconds=setting.cold_start_seconds,
        time_per_output_token_seconds=setting.replica.seconds_per_token,
    )
    return catalogue.catalogue(service, truth=truth)
