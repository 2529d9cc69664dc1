"""longtail: the autoscaler for reasoning models.

One fleet loop reads what engines and gateways report, works out the tokens still owed, looks ahead one
measured cold start, and scales. The same pure functions run in the operator, in tests, and over recorded
history. ``docs/design.md`` is the map of this package.
"""
