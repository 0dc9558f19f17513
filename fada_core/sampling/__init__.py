"""The mathematics of sampling: noise schedule, guidance, solvers, one clip, and sequences of clips."""
