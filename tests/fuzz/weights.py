"""The share of the cases of each kind, by their duration. Separate, because the watcher does not need torch."""

SHARES = {
    "states": 1.4,
    "pictures": 3.5,
    "recordings": 3.5,
    "manifests": 3.0,
    "checkpoints": 2.5,
    "conversions": 0.9,
    "jobs": 0.6,
}
