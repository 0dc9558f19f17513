"""`python -m fada_core.evaluate`: what a model's videos are worth, on avatars that no training has seen."""
