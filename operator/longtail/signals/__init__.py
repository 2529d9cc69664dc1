"""What is read: Prometheus, one vocabulary per engine, GPU occupancy; samples become observations."""
