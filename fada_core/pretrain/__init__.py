"""Trainings that start from fresh weights: autoencoder, audio projection, teacher, decoder and face finder."""
