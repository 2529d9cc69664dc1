"""Which autoscaler is cheaper for the same promise kept, and by how much.

Every policy is swept over its one knob and compared where it keeps the promise equally often: a policy with a
cheaper point at a worse attainment is not cheaper. Peers are tuned in hindsight, longtail is also shown at what
it does by itself.

Modules: `case` (the work and the pool), `search` (which knob to try next), `rows` (what a run says, and what a
sweep says at equal attainment), `journal` (runs that need not be made again), `trial` (one run), `frontier`
(all of them, on all cores), `summary` (against the bars), `pictures` and `page` (how it looks).
"""
