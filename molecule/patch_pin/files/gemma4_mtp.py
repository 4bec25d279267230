"""Stands for a patch: its content is that of no vLLM, and not that of the stub's image."""
