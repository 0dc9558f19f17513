"""Turns real footage into training data: shots, face tracks, square clips with sound, boxes, scores, a manifest."""
