"""The contract with users: pydantic models of spec and status, and the generator of ``crds/``."""
