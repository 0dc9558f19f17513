"""`python -m fada_core.pretrain`: the shipped model's autoencoder and teacher, trained on rendered avatars."""
