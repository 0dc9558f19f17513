"""Reading and writing sound, pictures and video, within lists of formats and limits of size."""
