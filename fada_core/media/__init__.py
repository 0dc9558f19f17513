"""Files in and out: sound, pictures, video."""
