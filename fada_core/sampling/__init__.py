"""Sampling: noise schedule, guidance, solvers, clips and their chaining."""
