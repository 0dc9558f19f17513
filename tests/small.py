"""A model of a few thousand weights at 32 px, for tests of what is around the networks."""

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
