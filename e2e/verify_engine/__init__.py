"""Checks our vocabularies against real engines: a vLLM that runs on the CPU, and SGLang's published wheel."""
