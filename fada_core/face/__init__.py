"""The face in a portrait: detection, region and masks, identity embedding, and pasting the square back."""
