"""The face in a portrait: find it, its region and masks, who it is, and the square pasted back into the picture."""
