"""In-process servers and manifests for component tests: real sockets, no cluster."""
