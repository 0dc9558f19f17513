"""A model of a few thousand weights at 32 px, for tests of code around the networks."""

from dataclasses import replace

from fada_core.config import TINY

SMALL_VAE = replace(TINY.vae, width=8, decoder_widths=(16, 8), decoder_blocks=(1, 1))
SMALL = replace(
    TINY,
    name="small",
    size=32,
    clip_frames=4,
    unet=replace(TINY.unet, block_out_channels=(16, 32), attention_levels=(True, True), norm_groups=8, num_heads=2),
    condition=replace(TINY.condition, audio_hidden=16),
    vae=SMALL_VAE,
)

ARCFACE = bytes.fromhex(  # a network of ArcFace's form that averages the picture: 3 numbers
    "08083a570a190a01781201612211476c6f62616c41766572616765506f6f6c0a0f0a01611201792207466c617474656e1201675a1b0a01781216"
    "0a14080112100a0208010a0208030a0208700a02087062090a017912040a02080142040a00100d"
)
