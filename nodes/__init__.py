"""FADA's nodes. They translate between ComfyUI and `fada_core.pipeline`, and compute nothing themselves."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .decode import FADADecode
from .encode import FADAEncode
from .load_audio import FADALoadAudio
from .load_model import FADALoadModel, register_model_folder
from .paste_back import FADAPasteBack
from .sampler import FADASampler
from .video_combine import FADAVideoCombine


class FadaExtension(ComfyExtension):
    """All nodes of the pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        register_model_folder()
        return [
            FADALoadModel,
            FADALoadAudio,
            FADAEncode,
            FADASampler,
            FADADecode,
            FADAPasteBack,
            FADAVideoCombine,
        ]
