"""Actions at the start of ComfyUI: register the folder for models, copy the example graphs' input files."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import folder_paths

FOLDER = "fada"
MATERIAL = Path(__file__).parents[1] / "workflows" / "input"
"""Input files of the example graphs; all files in this folder are copied."""

log = logging.getLogger("fada.nodes")


def register_model_folder() -> None:
    """Create `models/fada` and register it for .safetensors files, besides folders from extra_model_paths.yaml."""
    folder = os.path.join(folder_paths.models_dir, FOLDER)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        log.warning("FADA cannot create the folder %s (%s); only its own models are available.", folder, error.strerror)
    folder_paths.add_model_folder_path(FOLDER, folder, is_default=True)
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, {".safetensors"})


def bring_material() -> None:
    """Copy the example graphs' input files to ComfyUI's input folder, unless there are files with these names."""
    target = Path(folder_paths.get_input_directory())
    for source in sorted(MATERIAL.iterdir()):
        part = target / f".{source.name}.part"
        try:
            target.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(target / source.name):
                part.write_bytes(source.read_bytes())
                part.rename(target / source.name)  # so that no incomplete file can remain
        except OSError as error:
            log.warning(
                "FADA cannot copy %s to %s (%s); its example graphs need it.", source.name, target, error.strerror
            )
            return
