"""The ComfyUI nodes. They translate between ComfyUI and `fada_core`, and compute nothing themselves."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from ..fada_core.errors import FadaError
from .decode import FADADecode
from .encode import FADAEncode
from .load_audio import FADALoadAudio
from .load_model import FADALoadModel
from .paste_back import FADAPasteBack
from .sampler import FADASampler
from .start import bring_material, register_model_folder
from .video_combine import FADAVideoCombine

# ComfyUI shows an error's class with its module, whose name would here be a path on the user's disk.
FadaError.__module__ = "builtins"


class FadaExtension(ComfyExtension):
    """All nodes of the pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        register_model_folder()
        bring_material()
        return [
            FADALoadModel,
            FADALoadAudio,
            FADAEncode,
            FADASampler,
            FADADecode,
            FADAPasteBack,
            FADAVideoCombine,
        ]
