"""The PromQL sums that recipes scale on, as functions of the view. None is an empty vector."""

from longtail.workbench.peers.view import PeerView, total


def waiting_requests(seen: PeerView) -> float | None:
    """``sum(vllm:num_requests_waiting)``: 0 until saturation, then without bound."""
    return total(seen, "waiting_requests")


def running_requests(seen: PeerView) -> float | None:
    """``sum(vllm:num_requests_running)``."""
    return total(seen, "running_requests")


def kv_used_ratio(seen: PeerView) -> float | None:
    """``sum(vllm:kv_cache_usage_perc)``: pods' worth of full KV cache; at most 1 per pod."""
    return total(seen, "kv_used_ratio")


def gateway_waiting_requests(seen: PeerView) -> float | None:
    """``sum(llm_d_epp_flow_control_queue_size)``."""
    return seen.gateway_waiting_requests


def gateway_running_requests(seen: PeerView) -> float | None:
    """``sum(llm_d_epp_request_running)``: sent to an engine and not answered, engine queues included."""
    if seen.door_requests is None:
        return None
    return max(0.0, seen.door_requests - (seen.gateway_waiting_requests or 0.0))
