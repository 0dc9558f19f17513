"""Clips to learn from."""
