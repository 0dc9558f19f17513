"""Training data: clips from avatars, manifests or shards, encoded and drawn in batches."""
