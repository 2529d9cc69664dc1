"""One inference server, simulated: continuous batching, the metrics of real engines, a live process."""
