"""A pool of replicas under one policy, request by request, in virtual time.

Every request keeps its arrival, its length and its moment of start; nothing is averaged. What makes that fast
enough for a day of 1.4 million requests in seconds is what is *not* computed: the pace is fixed at the promised
time per output token, so that a request's end is known when it starts, and between two of them nothing happens.
A fixed pace is also what the lower bound and the published reference figures assume; engines whose speed depends on
their batch are in ``workbench.engine``.

The queue is one, first come first served, in front of all replicas, as with an endpoint picker that holds
requests back until an engine has room: a request starts on the least loaded replica (or, packing, on the fullest with
room) the moment any has a free slot. Where there is no such gateway, the queue stands for the engines' own waiting
queues, and shows up in them in equal parts; with late binding it flatters engines that cannot hand a waiting request
over to a new replica, all policies alike.

Modules: `setting` (what is given), `arrivals` (requests at the gateway), `rows`, `engines`, `engines_kv` and
`engines_clients` (requests on slots, of clients that wait or give up), `meters` (vLLM's counters), `deployment` (pods
that come and go), `scrape` (what a metrics store saw of them), `longtail_view` and `peer_view` (how that looks to a
policy), `pilots` and `policies` (who is at the controls), `accounts`, `waits` and `answers` (what it cost and brought),
`simulation` (the whole, in time), `run` (the result), `sizing` (what the trace needs, from its future).
"""
