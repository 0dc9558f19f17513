"""`python -m fada_core.evaluate`: measures of generated videos on held-out avatars, portraits or real footage."""
