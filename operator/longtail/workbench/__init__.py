"""The other uses of demand and policy: engine simulator, traces, evaluation."""
