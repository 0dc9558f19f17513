"""Benchmarks of sampling: time by stage, arithmetic and memory, compared with the sampling of published code."""
