"""The mathematics of sampling: noise schedule, guidance, solvers, clips and how they follow each other."""
