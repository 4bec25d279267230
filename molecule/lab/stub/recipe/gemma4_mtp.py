"""Stands where the depot has the file of the patch: not the one that the stub's image holds, and as little of any vLLM."""
