"""What happens once, when ComfyUI starts: the folder for models, and material to try the graphs with."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import folder_paths

FOLDER = "fada"
MATERIAL = Path(__file__).parents[1] / "workflows" / "input"
"""Portrait and speech that the graphs name. Any file that is put here is copied."""

log = logging.getLogger("fada.nodes")


def register_model_folder() -> None:
    """Make `models/fada` and make it known, next to folders that extra_model_paths.yaml may name; safetensors only."""
    folder = os.path.join(folder_paths.models_dir, FOLDER)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        log.warning("FADA cannot make the folder %s (%s); the models that come with it work.", folder, error.strerror)
    folder_paths.add_model_folder_path(FOLDER, folder, is_default=True)
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, {".safetensors"})


def bring_material() -> None:
    """Copy the graphs' portrait and speech to ComfyUI's input folder, where they are not there; no file is replaced."""
    target = Path(folder_paths.get_input_directory())
    for source in sorted(MATERIAL.iterdir()):
        part = target / f".{source.name}.part"
        try:
            target.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(target / source.name):
                part.write_bytes(source.read_bytes())
                part.rename(target / source.name)  # whole, or not there
        except OSError as error:
            log.warning("FADA cannot copy %s to %s (%s); its graphs ask for it.", source.name, target, error.strerror)
            return
