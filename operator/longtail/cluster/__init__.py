"""Kubernetes: what is watched (store, targets, pods) and what is written (/scale, status, events)."""
