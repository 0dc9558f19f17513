"""Talking three-dimensional people: shape, motion, skin, hair, clothes, light and the renderer."""
