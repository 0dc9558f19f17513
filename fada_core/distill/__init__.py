"""Mixed-supervised multi-CFG distillation (FADA, arXiv 2412.16915): a student of six steps, guided by tokens."""
