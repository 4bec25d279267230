"""Stands where the real image has the file that a patch replaces. Its content is that of no vLLM."""
