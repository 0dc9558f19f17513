"""Small models with latent cells of 8 px, for tests; in all else they are like the shipped ones.

`SMALL` has a few thousand weights, and pictures of 32 px.
"""

from dataclasses import replace

from fada_core.config import PORTRAIT

SMALL_UNET = replace(PORTRAIT.unet, in_channels=16, block_out_channels=(32, 32, 64), norm_groups=8, audio_token_dim=16)
SMALL_VAE = replace(
    PORTRAIT.vae, latent_channels=16, downscale=8, width=8, decoder_widths=(16, 8), decoder_blocks=(1, 1)
)
SMALL = replace(
    PORTRAIT,
    name="small",
    size=32,
    clip_frames=4,
    unet=replace(SMALL_UNET, block_out_channels=(16, 32), attention_levels=(True, True), num_heads=2),
    condition=replace(PORTRAIT.condition, audio_hidden=16),
    vae=SMALL_VAE,
)

ARCFACE = bytes.fromhex(  # a network of ArcFace's form that averages the picture: 3 numbers
    "08083a570a190a01781201612211476c6f62616c41766572616765506f6f6c0a0f0a01611201792207466c617474656e1201675a1b0a01781216"
    "0a14080112100a0208010a0208030a0208700a02087062090a017912040a02080142040a00100d"
)
