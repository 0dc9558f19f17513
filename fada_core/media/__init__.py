"""Files in and out: sound, pictures, video; every edge with its list of formats and its limits."""
