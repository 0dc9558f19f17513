"""Faster or smaller execution of the same computation: compiling, CUDA graphs, fused layers, overlap, offloading."""
