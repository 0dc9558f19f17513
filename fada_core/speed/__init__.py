"""How the same computation is made fast: compiling, CUDA graphs, fused layers, overlap, offloading."""
