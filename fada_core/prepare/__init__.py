"""Real footage to training data: shots, face tracks, square clips with sound, boxes, quality scores, a manifest."""
