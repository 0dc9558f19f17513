"""How many of the cases each kind gets, by what one of its cases takes; apart, because the watcher needs no torch."""

SHARES = {
    "states": 1.4,
    "pictures": 3.5,
    "recordings": 3.5,
    "manifests": 3.0,
    "checkpoints": 2.5,
    "conversions": 0.9,
    "jobs": 0.6,
}
