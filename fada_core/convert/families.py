"""The published models: their files and configs, detection, and checks of their tensors."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from ..checkpoint import CheckpointInfo
from ..config import ECHOMIMIC, SD15, ModelConfig
from ..errors import FadaError
from ..records import read_json, shortened
from .files import SEVERAL, SUFFIXES, UNFINISHED, find, identify, read_tensors, weight_files

log = logging.getLogger("fada.convert")
_HALLO = replace(SD15, name="hallo", schedule=replace(SD15.schedule, previous_timestep="stride"))
_BASE = "derived from Stable Diffusion, CreativeML OpenRAIL-M"
_EITHER = "Hallo's net.pth, or EchoMimic's reference_unet.pth and its other files"
_OTHERS = {  # file name without suffix -> project, which FADA does not support
    "pose_guider": "AniPortrait or AnimateAnyone",
    "pose_encoder": "EchoMimicV2",
    "v_kps_guider": "V-Express",
}


@dataclass(frozen=True)
class Family:
    """A published model."""

    title: str
    files: dict[str, str]
    """File name without suffix -> prefix of its tensors in FADA. Tensors of a later file replace those of an earlier
    one."""
    model: ModelConfig
    info: CheckpointInfo
    vae: tuple[str, ...] = ("sd-vae-ft-mse", "../sd-vae-ft-mse")  #: places in the authors' instructions, as below
    audio_encoder: tuple[str, ...] = ("../wav2vec/wav2vec2-base-960h", "wav2vec/wav2vec2-base-960h")


def _hallo(title: str, source: str) -> Family:
    # The authors sample with 40 steps of two branches at scale 3.5.
    info = CheckpointInfo("teacher", 40, 3.5, 3.5, license=f"MIT ({_BASE})", source=source)
    return Family(title, {"net": ""}, replace(_HALLO, name=title.lower()), info)


def _echomimic(title: str, suffix: str, info: CheckpointInfo) -> Family:
    files = {
        "reference_unet": "reference_unet.",
        f"motion_module{suffix}": "denoising_unet.",
        f"denoising_unet{suffix}": "denoising_unet.",
        "face_locator": "face_locator.",
    }
    info = replace(info, license=f"Apache-2.0 ({_BASE})", source="https://huggingface.co/BadToBest/EchoMimic")
    model = replace(ECHOMIMIC, name=f"echomimic{suffix.replace('_', '-')}")
    whisper = ("audio_processor/whisper_tiny.pt", "audio_processor/tiny.pt", "whisper-tiny")
    return Family(title, files, model, info, audio_encoder=whisper)


FAMILIES = {
    "hallo": _hallo("Hallo", "https://huggingface.co/fudan-generative-ai/hallo"),
    "hallo2": _hallo("Hallo2", "https://huggingface.co/fudan-generative-ai/hallo2"),
    "echomimic": _echomimic("EchoMimic", "", CheckpointInfo("teacher", 30, 2.5, 2.5)),
    # Distilled to a single branch without guidance, so its scales are fixed at 1.
    "echomimic-acc": _echomimic(
        "EchoMimic accelerated", "_acc", CheckpointInfo("student", 6, 1.0, 1.0, ((1.0, 1.0), (1.0, 1.0)))
    ),
}


def home(src: Path, family: str | None) -> Path:
    """The folder of the networks: `src`, its subfolder with the model's name, or the folder of a file.

    Raises:
        FadaError: `src` is missing, or has subfolders for both Hallo and Hallo2.
    """
    if not src.exists():
        raise FadaError(f"There is no '{src}'; give the folder with the downloaded weights.")
    if src.is_file():
        return src.parent
    names = [family] if family else ["hallo", "hallo2"]
    inside = [src / name for name in names if find([src / name], "net")]
    if len(inside) > 1:
        raise FadaError(f"'{src}' holds both Hallo and Hallo2; choose one with --from.")
    return inside[0] if inside and not find([src], "net") else src


def detect(src: Path, folder: Path) -> str:
    """The family of a folder, from its file names and their tensors.

    Raises:
        FadaError: none or both of EchoMimic's two.
    """
    if find([folder], "net") or _hallo_file(src, folder):
        return "hallo2" if folder.name == "hallo2" else "hallo"
    found = [name for name in ("echomimic", "echomimic-acc") if _files(FAMILIES[name], folder)]
    if len(found) == 2:
        raise FadaError(f"'{src}' holds EchoMimic and its accelerated weights; choose with --from echomimic[-acc].")
    if not found:
        some = FAMILIES["echomimic-acc" if find([folder], "denoising_unet_acc") else "echomimic"]
        raise _wrong(src, folder, _EITHER, some)
    return found[0]


def networks_files(src: Path, folder: Path, family: Family) -> dict[Path, str]:
    """The family's files in the folder with their prefixes.

    Raises:
        FadaError: some are missing; the message says what is there instead.
    """
    files = _files(family, folder)
    if (src.is_file() or not files) and family.title.startswith("Hallo") and (only := _hallo_file(src, folder)):
        files = {only: ""}
    if not files or (src.is_file() and src not in files):
        names = ", ".join(f"{stem}.pth" for stem in family.files)
        raise _wrong(src, folder, f"{family.title}'s {names}", family)
    return files


def _hallo_file(src: Path, folder: Path) -> Path | None:
    """The given file, or the only one in the folder, if it has Hallo's keys, whatever its name."""
    files = [src] if src.is_file() else weight_files(folder)
    return files[0] if len(files) == 1 and identify(read_tensors(files[0], _EITHER)) == "Hallo" else None


def _files(family: Family, folder: Path) -> dict[Path, str]:
    found = {find([folder], stem): prefix for stem, prefix in family.files.items()}
    # Motion modules may also be in the denoising network's file; the check of names finds missing tensors.
    needed = [find([folder], stem) for stem in family.files if not stem.startswith("motion_module")]
    return {} if None in needed else {path: prefix for path, prefix in found.items() if path}


def _wrong(src: Path, folder: Path, expected: str, family: Family) -> FadaError:
    """The error that says what is there instead of `expected`; `family`: model of which some files may be there."""
    files = [src] if src.is_file() else weight_files(folder)
    if not files:
        return FadaError(f"'{src}' {_without_weights(folder)}; expected {expected}.")
    if src.is_dir():
        for stem, title in _OTHERS.items():
            if find([folder], stem):
                return FadaError(f"'{src}' is {title}, which FADA cannot run; expected {expected}.")
    telling = files if len(files) == 1 else [path for path in files if path.stem.startswith("denoising_unet")]
    kinds = [identify(read_tensors(path, expected)) for path in telling[:1]]
    lacking = [f"{stem}.pth" for stem in family.files if not find([folder], stem)]
    if src.is_dir() and len(lacking) < len(family.files) and kinds in ([], [SEVERAL]):
        return FadaError(
            f"'{src}' lacks {', '.join(lacking)} of {family.title}; expected {expected}: download the rest."
        )
    if kinds:
        return FadaError(f"'{telling[0].name}' is {kinds[0]}; expected {expected}.")
    names = ", ".join(path.name for path in files[:4])
    return FadaError(f"'{src}' holds {names}{' ...' if len(files) > 4 else ''}; expected {expected}.")


def _without_weights(folder: Path) -> str:
    """Description of a folder without weight files, for an error."""
    described = folder / "model_index.json"
    if described.is_file():
        settings = read_json(described, "the pipeline's description")
        name = settings.get("_class_name") if isinstance(settings, dict) else None
        return f"is a {shortened(str(name or 'pipeline'))} of diffusers"
    # Browsers leave unfinished files in the folder itself, Hugging Face's downloader in a subfolder.
    places = folder.glob("*"), (folder / ".cache" / "huggingface" / "download").rglob("*")
    unfinished = [path.name for place in places for path in sorted(place) if path.suffix in UNFINISHED]
    if unfinished:
        return f"holds only an unfinished download, {unfinished[0]}"
    inside = [path for path in sorted(folder.glob("*/*")) if path.suffix in SUFFIXES]
    return f"holds no weights itself, but '{inside[0].parent}' does" if inside else "holds no weights"


def without_dead(tensors: dict[str, Tensor], model: ModelConfig) -> dict[str, Tensor]:
    """Remove motion modules that the model never runs: in Hallo's weights, those of the level without attention."""
    if model.unet.motion_everywhere:
        return tensors
    levels = model.unet.attention_levels
    dead = [i for i, attends in enumerate(levels) if not attends]
    prefixes = [f"denoising_unet.down_blocks.{i}.motion_modules." for i in dead]
    prefixes += [f"denoising_unet.up_blocks.{len(levels) - 1 - i}.motion_modules." for i in dead]
    return {name: value for name, value in tensors.items() if not name.startswith(tuple(prefixes))}


def check(tensors: dict[str, Tensor], wanted: dict[str, Tensor], title: str, source: Path) -> None:
    """Raise `FadaError` unless names, shapes and kinds of numbers are as wanted; every unknown name is logged.

    Args:
        title: of the wanted model, for errors.
        source: file or folder of the tensors, for errors.
    """
    unknown = sorted(set(tensors) - set(wanted))
    missing = sorted(set(wanted) - set(tensors))
    if not set(tensors) & set(wanted):
        raise FadaError(f"'{source}' is {identify(tensors)}, not {title}; check the path.")
    if unknown:
        for name in unknown:
            log.error("unknown tensor: %s", shortened(name, 300))
        raise FadaError(
            f"{title} has no '{shortened(unknown[0], 120)}' ({len(unknown)} such tensors in '{source}', all named "
            "above); these weights are of another version, use the published ones."
        )
    if missing:
        raise FadaError(
            f"{title} needs '{missing[0]}' ({len(missing)} tensors in all), which '{source}' lacks; "
            "check that all files are there and of the same version."
        )
    for name, value in tensors.items():
        if value.shape != wanted[name].shape:
            raise FadaError(
                f"'{name}' in '{source}' has the shape {tuple(value.shape)}, not {title}'s "
                f"{tuple(wanted[name].shape)}; check that it is the right file."
            )
        if value.is_floating_point() != wanted[name].is_floating_point() or value.is_complex():
            raise FadaError(f"'{name}' in '{source}' holds {value.dtype}, which weights cannot have; get the original.")


def first_existing(folder: Path, places: Iterable[str]) -> Path | None:
    """The first of these places, relative to the folder, that exists."""
    return next((folder / place for place in places if (folder / place).exists()), None)
