"""Speed: how long sampling takes, stage by stage, against the arithmetic it does and against the plain way."""
