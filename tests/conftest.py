"""For all tests: no test is timed. A busy machine is not a finding; figures belong to the benchmarks."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
