"""Opens weight files of other projects, mapped from the disk and never executed, and identifies unexpected ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import FadaError
from ..pickles import PickleError, TornError, load_pickle, occupies_its_size
from ..records import shortened

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
UNFINISHED = (".part", ".crdownload", ".download", ".incomplete")  #: suffixes of unfinished downloads
_WRAPPERS = ("state_dict", "model_state_dict", "params_ema", "params")  # entries in which trainers store weights


def find(folders: Iterable[Path], *stems: str) -> Path | None:
    """The first weight file with one of these names (without suffix), in the order of the folders."""
    names = [(folder, stem) for folder in folders for stem in stems]
    return next((p for folder, stem in names for s in SUFFIXES if (p := folder / f"{stem}{s}").is_file()), None)


def weight_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())


def read_tensors(path: Path, expected: str) -> dict[str, Tensor]:
    """All tensors of a safetensors file or a torch pickle, by name.

    They are mapped from the disk; only pickles from before torch 1.6 are read into memory.

    Args:
        expected: description of the expected file, for errors.

    Raises:
        FadaError: an incomplete file, a file that has no weights, or a pickle that holds more than plain data.
    """

    def wrong(what: str, advice: str) -> FadaError:
        return FadaError(f"'{path.name}' {what}; expected {expected}: {advice}.")

    head = _head(path)
    torn = wrong(f"is not a complete file ({_size(path)})", "download it again")
    if head.startswith(b"version https://git-lfs"):
        raise wrong("is only a pointer of Git LFS", "fetch the file itself with 'git lfs pull'")
    if head.lstrip()[:1] == b"<":
        raise wrong("is a web page", "download the file itself")
    if path.suffix in UNFINISHED:
        raise wrong(f"is an unfinished download ({_size(path)})", "finish it")
    if path.suffix == ".safetensors":
        try:
            content = _read_safetensors(path)
        except SafetensorError as error:
            raise torn from error
        return _unwrapped(content, wrong)
    if not head.startswith((b"PK\x03\x04", b"\x80")):
        raise wrong("is neither a safetensors file nor a torch pickle", "download it again")
    try:
        content = load_pickle(path)
    except PickleError as error:
        raise (torn if isinstance(error, TornError) else wrong(str(error), error.advice)) from error
    return _unwrapped(content, wrong)


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e9:.2f} GB" if size > 1e8 else f"{size / 1e6:.2f} MB"


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise FadaError(f"'{path}' cannot be read ({error.strerror}); check the path.") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        if "fada.config" in (file.metadata() or {}):
            raise FadaError(f"'{path.name}' is already a FADA checkpoint; use it as it is.")
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


def _unwrapped(content: Any, wrong: Callable[[str, str], FadaError]) -> dict[str, Tensor]:
    """The weights of a file, which may be in an entry of _WRAPPERS and have names with the prefix 'module.'."""
    if isinstance(content, dict):
        content = next((content[name] for name in _WRAPPERS if isinstance(content.get(name), dict)), content)
    if not isinstance(content, dict) or not content:
        raise wrong("holds no weights", "check that it is the right file")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            entry = f"'{shortened(name)}'" if isinstance(name, str) else f"an entry named by a {type(name).__name__}"
            raise wrong(f"holds {entry}, which is not a tensor", "check that it is the right file")
        if not occupies_its_size(value):
            raise wrong(f"holds '{shortened(name)}', which repeats a few values", "get the original")
    if all(name.startswith("module.") for name in content):
        content = {name.removeprefix("module."): value for name, value in content.items()}
    return content


SEVERAL = "one of several networks, as in EchoMimic and AnimateDiff"  #: not a complete model
_FOREIGN = (  # parts of tensor names, and the kind of file that has them; the first match counts
    (("lora_up.", "lora_down.", ".lora_", ".lora.", "lora_A.", "lora_B.", ".hada_w1_", ".lokr_w1"), "a LoRA"),
    (("conditioner.embedders.", "label_emb.", "add_embedding."), "an SDXL checkpoint"),
    (("model.diffusion_model.",), "a Stable Diffusion checkpoint"),
    (("quantize.embedding.", "fuse_convs_dict.", "conv_first."), "a super-resolution network (Hallo2's is net_g.pth)"),
    (("attn1_5.",), "V-Express"),
    (("wav2vec2.", "feature_extractor.conv_layers."), "a wav2vec2 audio encoder"),
    (("encoder.blocks.0.attn.", "encoder.embed_positions."), "a Whisper audio encoder"),
    (("decoder.mid", "decoder.layers.", "first_stage_model."), "an autoencoder"),
    (("audio_modules.",), "Hallo"),
    (("motion_modules.", "transformer_blocks.0.attn1."), SEVERAL),
)


def identify(names: Iterable[str]) -> str:
    """Description of a file from the names of its tensors."""
    names = list(names)
    for parts, title in _FOREIGN:
        if any(part in name for name in names for part in parts):
            return title
    return f"a file with tensors like '{shortened(names[0], 120)}'"
