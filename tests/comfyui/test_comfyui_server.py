"""The pack in a real ComfyUI, its server and, with playwright and a Chromium, its frontend.

Runs where COMFYUI_DIR names a work tree of ComfyUI; COMFYUI_PYTHON is the python that runs it (default: this one).
"""

from __future__ import annotations

import copy
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from safetensors.torch import load_file

from fada_core import load
from fada_core.checkpoint import CheckpointInfo, save_checkpoint
from fada_core.config import PORTRAIT, ControlConfig
from fada_core.media.audio import load_audio
from fada_core.media.image import load_image
from fada_core.media.video import VideoWriter, probe, read_video
from fada_core.models.networks import Networks
from tests.comfyui.process import COMFYUI, ROOT, Server, comfyui
from tests.comfyui.stand_in import stand_ins

pytestmark = pytest.mark.skipif(not COMFYUI, reason="COMFYUI_DIR names no ComfyUI")

TWINS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "workflows" / "api").glob("*.json"))}
GRAPH = TWINS["talking_portrait"]
SMALL = replace(PORTRAIT, name="small", size=64)
TEACHER, STUDENT = "small.safetensors", "small-student.safetensors"
SECONDS = 0.6
LONG = 2.4  #: seconds of five clips


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComfyUI's folders, with two small models with random weights, a portrait and a sound."""
    base = tmp_path_factory.mktemp("comfyui")
    (base / "input").mkdir()
    stand_ins(base / "models/fada", list(TWINS.values()))
    for name, role, config in [
        (TEACHER, "teacher", SMALL),
        (STUDENT, "student", replace(SMALL, control=ControlConfig(kind="tokens"))),
    ]:
        torch.manual_seed(0)
        networks = Networks(config).requires_grad_(False)
        for parameter in networks.denoising_unet.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.5 * parameter[0].numel() ** -0.5)
        save_checkpoint(base / "models/fada" / name, networks, CheckpointInfo(role, steps=2))
    pixels = np.random.default_rng(0).integers(0, 255, (80, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(base / "input/fada_portrait.png")
    for name, seconds in [("fada_speech.wav", SECONDS), ("long.wav", LONG), ("the_same.wav", LONG)]:
        t = np.arange(round(seconds * 44100)) / 44100
        soundfile.write(base / "input" / name, (0.3 * np.sin(2 * math.pi * 180 * t)).astype(np.float32), 44100)
    soundfile.write(base / "input/empty.wav", np.zeros(0, np.float32), 44100)
    (base / "input/text.wav").write_text("not a sound")
    (base / "models/fada/broken.safetensors").write_bytes(b"broken")
    return base


@pytest.fixture(scope="module")
def server(base: Path) -> Iterator[Server]:
    with comfyui(base) as made:
        yield made


def graph(twin: dict[str, Any] = GRAPH, **changes: dict[str, Any]) -> dict[str, Any]:
    """A shipped workflow with a small model; `inputs` replaces inputs of its nodes by type."""
    made = copy.deepcopy(twin)
    student = any(node["inputs"].get("mode") in ("fast", "balanced") for node in made.values())
    changes = {"FADALoadModel": {"model": STUDENT if student else TEACHER}} | changes
    for node in made.values():
        node["inputs"] |= changes.get(node["class_type"], {})
    return made


def succeeded(result: dict[str, Any]) -> dict[str, Any]:
    """The outputs of a finished workflow, by node."""
    assert result["status"]["status_str"] == "success", result["status"]
    return result["outputs"]


def messages(result: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [detail for kind, detail in result["status"]["messages"] if kind == name]


def written(result: dict[str, Any]) -> dict[str, Any]:
    """The output of the one node that has written files."""
    (output,) = (output for output in succeeded(result).values() if "images" in output or "latents" in output)
    return output


def square(made: dict[str, Any]) -> dict[str, Any]:
    """The graph with a video of the square only."""
    for node in made.values():
        if node["class_type"] == "FADAVideoCombine":
            del node["inputs"]["image"], node["inputs"]["region"]
    return made


def video(server: Server, output: dict[str, Any]) -> Path:
    (shown,) = output["images"]
    return server.base / "output" / shown["subfolder"] / shown["filename"]


@pytest.mark.parametrize("name", TWINS)
def test_every_shipped_graph_runs(server, name):
    output = written(server.finish(server.start(graph(TWINS[name]))))
    assert output["animated"] == [True]
    assert probe(video(server, output)).frames == SECONDS * SMALL.fps


def test_the_graph_makes_the_pipelines_video(server, tmp_path):
    path = video(server, written(server.finish(server.start(square(graph())))))

    pipe = load(server.base / "models/fada" / TEACHER, "cpu")
    speech = load_audio(server.base / "input/fada_speech.wav")
    cond = pipe.encode(load_image(server.base / "input/fada_portrait.png"), speech)
    with VideoWriter(tmp_path / "direct.mp4", 64, 64, pipe.config.fps, speech) as writer:
        for latents in pipe.sample(cond, seed=0):
            writer.write(pipe.decode(latents))
    assert probe(path) == probe(tmp_path / "direct.mp4")
    for made, direct in zip(read_video(path), read_video(tmp_path / "direct.mp4"), strict=True):
        assert np.abs(made.astype(int) - direct).mean() < 1
    assert b'{"made": "here"}' in path.read_bytes()  # the graph can be dropped back onto ComfyUI


def test_what_did_not_change_is_not_computed_again(server):
    def cached(**changes: dict[str, Any]) -> set[str]:
        result = server.finish(server.start(graph(**changes)))
        succeeded(result)
        (told,) = messages(result, "execution_cached")
        return {GRAPH[node]["class_type"] for node in told["nodes"]}

    loaded = {"FADALoadModel", "LoadImage", "FADALoadAudio"}
    cached(FADASampler={"seed": 7})
    assert cached(FADASampler={"seed": 7}) >= loaded | {"FADAEncode", "FADASampler"}
    assert cached(FADASampler={"seed": 8}) == loaded | {"FADAEncode"}
    assert cached(FADASampler={"seed": 8, "audio_cfg": 3.0}) == loaded | {"FADAEncode"}


def test_two_prompts_queued(server):
    prompts = [server.start(graph(FADASampler={"seed": seed})) for seed in (11, 12)]
    assert len({video(server, written(server.finish(prompt))) for prompt in prompts}) == 2


def sampled(sound: str, seed: int) -> dict[str, Any]:
    """A graph that saves the latents of five clips."""
    made = graph(FADALoadAudio={"audio": sound}, FADASampler={"steps": 8, "seed": seed})
    made["6"] = {"class_type": "SaveLatent", "inputs": {"samples": ["5", 0], "filename_prefix": "latents/x"}}
    return made


def saved_latents(server: Server, result: dict[str, Any]) -> torch.Tensor:
    (entry,) = written(result)["latents"]
    return load_file(server.base / "output" / entry["subfolder"] / entry["filename"])["latent_tensor"]


def seconds_between(result: dict[str, Any]) -> float:
    """Seconds from the start to the end of a workflow."""
    times = [detail["timestamp"] for _, detail in result["status"]["messages"]]
    return (times[-1] - times[0]) / 1000


def stop(server: Server, prompt: str, after: float) -> float | None:
    """Stop a workflow some seconds after its start; returns how many seconds later it stopped, None: it had ended."""
    while not server.get("/queue")["queue_running"]:
        time.sleep(0.05)
    time.sleep(after)
    pressed = time.time()
    server.post("/interrupt", {"prompt_id": prompt})
    result = server.finish(prompt, 60)
    if not (told := messages(result, "execution_interrupted")):
        return None
    assert not result["outputs"]
    return told[0]["timestamp"] / 1000 - pressed


def test_a_stopped_sampling_goes_on(server):
    """Stop takes effect within a step; the next run makes the same video as without a stop."""
    whole = server.finish(server.start(sampled("long.wav", 0)))
    seconds = seconds_between(whole)
    # As often as a busy machine was quicker than before.
    for seed in range(1, 9):
        took = stop(server, server.start(sampled("long.wav", seed)), 0.6 * seconds)
        if took is not None:
            break
    assert took < 3 * seconds / 40 + 1  # of forty steps
    latents = saved_latents(server, server.finish(server.start(sampled("long.wav", seed))))
    # Of another file with the same sound nothing is in ComfyUI's cache, or in the condition that belongs to the first.
    expected = saved_latents(server, server.finish(server.start(sampled("the_same.wav", seed))))
    assert torch.equal(latents, expected)
    (told,) = re.findall(r"FADA Sampler resumes after (\d+) of 60 frames", (server.base / "server.log").read_text())
    assert int(told) in (12, 24, 36, 48)


def test_of_a_batch_that_was_stopped_the_finished_videos_stay(server):
    """If the second of two portraits is stopped, the first one's video is kept, and the second resumes."""

    def batch(sound: str, seed: int) -> dict[str, Any]:
        made = sampled(sound, seed)
        made["7"] = {"class_type": "RepeatImageBatch", "inputs": {"image": ["2", 0], "amount": 2}}
        made["4"]["inputs"]["image"] = ["7", 0]
        return made

    seconds = seconds_between(server.finish(server.start(batch("long.wav", 2))))
    # As often as a busy machine was quicker than before.
    seed = next(seed for seed in range(3, 9) if stop(server, server.start(batch("long.wav", seed)), 0.7 * seconds))
    rest = server.finish(server.start(batch("long.wav", seed)))
    assert len(written(rest)["latents"]) == 2
    assert "FADA Sampler reuses 60 frames" in (server.base / "server.log").read_text()


@pytest.mark.parametrize(
    ("node", "inputs", "words"),
    [
        ("FADASampler", {"mode": "fast"}, "needs a student checkpoint"),
        ("FADALoadAudio", {"audio": "empty.wav"}, "is empty"),
        ("FADALoadAudio", {"audio": "text.wav"}, "text.wav"),
        ("FADALoadAudio", {"start": 100.0}, "start"),
        ("FADALoadModel", {"model": "broken.safetensors"}, "not a whole safetensors file"),
        ("FADAEncode", {"face_box": "1 2 3"}, "four numbers"),
        ("FADAEncode", {"crop_margin": math.nan}, "margin"),
        ("FADAEncode", {"face_index": 3}, "no face number 3"),
        ("FADASampler", {"mode": "xyz"}, "mode is missing"),
        ("FADASampler", {"mode": None}, "mode is missing"),
        ("FADASampler", {"mode.guidance_from": 0.9, "mode.guidance_to": 0.1, "mode": "teacher"}, "Guidance"),
        ("FADASampler", {"audio_cfg": math.nan}, "audio_cfg"),
        ("FADAVideoCombine", {"fps": math.nan}, "fps"),
        ("FADAVideoCombine", {"filename_prefix": "../../x"}, "leads out"),
        ("FADAVideoCombine", {"filename_prefix": "x" * 300}, "not a valid file name"),
        ("FADALoadAudio", {"audio": None}, "choose a file"),
        ("FADALoadAudio", {"duration": math.nan}, "duration"),
    ],
)
def test_mistakes_are_told_in_the_node(server, node, inputs, words):
    model = {} if node == "FADALoadModel" else {"FADALoadModel": {"model": TEACHER}}
    result = server.finish(server.start(graph(**model, **{node: inputs})))
    (error,) = messages(result, "execution_error")
    assert (error["node_type"], error["exception_type"]) == (node, "FadaError")
    assert words in error["exception_message"]


@pytest.mark.parametrize(
    ("node", "inputs", "words"),
    [
        ("FADALoadAudio", {"audio": "../fada_portrait.png"}, "outside of ComfyUI's folders"),
        ("FADALoadAudio", {"audio": "gone.wav"}, "There is no file 'gone.wav'"),
        ("FADASampler", {"audio_cfg": 50.0}, "bigger than max"),
        ("FADALoadModel", {"model": "gone.safetensors"}, "put it into models/fada"),
        ("FADALoadModel", {"model": "hallo2.safetensors"}, "huggingface.co/fudan-generative-ai/hallo2"),
        ("FADALoadModel", {"model": 5}, "give a name"),
        ("FADALoadAudio", {"audio": 5}, "choose a file"),
        ("FADALoadAudio", {"audio": ""}, "choose a file"),
        ("FADAEncode", {"image": "x"}, "connect the output of a node"),
        ("FADASampler", {"cond": 5}, "connect the output of a node"),
        ("FADAVideoCombine", {"frames": 5}, "connect the output of a node"),
        ("FADAVideoCombine", {"format": "xyz"}, "not in"),
        ("FADAVideoCombine", {"crf": 99}, "bigger than max"),
    ],
)
def test_mistakes_that_are_refused_at_once(server, node, inputs, words):
    assert words in json.dumps(server.post("/prompt", {"prompt": graph(**{node: inputs})}))


@pytest.mark.parametrize("mode", ["auto", "teacher"])
def test_optional_inputs_may_be_absent(server, mode):
    """This includes the inputs of a mode."""
    made = graph(FADASampler={"mode": mode})
    for node in made.values():
        for name in ("crop_margin", "face_box", "face_model", "identity_model", "face_index", "compute", "crf",
                     "save_output", "audioUI"):  # fmt: skip
            node["inputs"].pop(name, None)
    assert probe(video(server, written(server.finish(server.start(square(made)))))).frames == SECONDS * SMALL.fps


def test_a_video_is_portrait_and_sound(server):
    clip = server.base / "input" / "clip.mp4"
    t = torch.arange(round(SECONDS * 44100)) / 44100
    sound = 0.3 * torch.sin(2 * math.pi * 180 * t).repeat(2, 1)
    with VideoWriter(clip, 80, 96, 25, sound, audio_rate=44100) as writer:
        for shade in torch.linspace(-0.5, 0.5, round(SECONDS * 25)):
            writer.write(torch.linspace(-0.5, 0.5, 80).expand(1, 3, 96, 80) + shade / 2)
    made = graph()
    made["7"] = {"class_type": "LoadVideo", "inputs": {"file": clip.name}}
    made["4"]["inputs"] |= {"image": ["7", 0], "audio": ["7", 0]}
    facts = probe(video(server, written(server.finish(server.start(made)))))
    assert (facts.width, facts.height) == (80, 96)
    assert abs(facts.frames - SECONDS * SMALL.fps) <= 1 and facts.audio_duration > 0


def test_previews_follow_comfyuis_method(server):
    """With none, no pictures are made; otherwise the sampler finally plays the finished video."""
    for method, seed in [("none", 21), ("auto", 22)]:
        extra = {"preview_method": method}
        answer = server.post("/prompt", {"prompt": graph(FADASampler={"seed": seed}), "extra_data": extra})
        outputs = succeeded(server.finish(answer["prompt_id"]))
        assert ("5" in outputs) == (method == "auto")
    (entry,) = outputs["5"]["images"]
    with Image.open(server.base / "temp" / entry["filename"]) as moving:
        assert moving.n_frames == math.ceil(SECONDS * SMALL.fps / 2)


def test_what_a_video_is_for(server):
    made = graph(FADAVideoCombine={"save_output": False, "format": "gif", "filename_prefix": "%date:yyyy%/looked"})
    output = written(server.finish(server.start(made)))
    (entry,) = output["images"]
    assert (entry["type"], entry["subfolder"]) == ("temp", time.strftime("%Y"))
    path = server.base / "temp" / entry["subfolder"] / entry["filename"]
    with Image.open(path) as moving, Image.open(path.with_suffix(".png")) as still:
        assert moving.n_frames == SECONDS * SMALL.fps
        assert json.loads(still.text["workflow"]) == {"made": "here"}  # a gif has no room for it


def test_the_face_is_shown_before_a_run(server):
    told = server.get("/fada/face?image=fada_portrait.png&margin=0.4&box=&model=none&index=0")
    assert (told["width"], told["height"], told["source"]) == (70, 80, "assumed")
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.get("/fada/face?image=../x.png&margin=0.4&box=&model=none&index=0")
    assert (caught.value.code, "outside" in json.load(caught.value)["message"]) == (400, True)


def test_plays_with_comfyuis_own_nodes(server):
    """Core Load Audio, Save Video, a video's sound; two samplers on one condition; what makes frames larger or more."""
    made = square(graph())
    sampler = made["5"]["inputs"]
    made |= {
        "3": {"class_type": "LoadAudio", "inputs": {"audio": "fada_speech.wav"}},
        "7": {
            "class_type": "SaveVideo",
            "inputs": {"video": ["6", 0], "filename_prefix": "core/saved", "format": "auto", "codec": "auto"},
        },
        "8": {"class_type": "FADASampler", "inputs": sampler | {"seed": 1, "steps": 1}},
        "9": {"class_type": "FADADecode", "inputs": {"model": ["1", 0], "latent": ["8", 0]}},
        "10": {
            "class_type": "ImageScaleBy",
            "inputs": {"image": ["9", 0], "upscale_method": "bilinear", "scale_by": 1.5},
        },
        "11": {
            "class_type": "FADAVideoCombine",
            "inputs": {"frames": ["10", 0], "audio": ["3", 0], "fps": 0, "filename_prefix": "up", "format": "webm"},
        },
        "12": {"class_type": "RepeatImageBatch", "inputs": {"image": ["9", 0], "amount": 2}},  # as interpolation does
        "13": {
            "class_type": "FADAVideoCombine",
            "inputs": {"frames": ["12", 0], "audio": ["3", 0], "fps": 50, "filename_prefix": "more", "format": "mp4"},
        },
        "14": {"class_type": "GetVideoComponents", "inputs": {"video": ["13", 0]}},
        "15": {
            "class_type": "FADAEncode",
            "inputs": {"model": ["1", 0], "image": ["2", 0], "audio": ["14", 1]},
        },
        "16": {"class_type": "FADASampler", "inputs": sampler | {"cond": ["15", 0], "steps": 1}},
        "17": {
            "class_type": "FADAVideoCombine",
            "inputs": {"frames": ["16", 0], "model": ["1", 0], "fps": 0, "filename_prefix": "of", "format": "mp4"},
        },
    }
    outputs = succeeded(server.finish(server.start(made)))
    frames = SECONDS * SMALL.fps
    latents, scaled = (probe(video(server, outputs[node])) for node in ("6", "11"))
    assert (latents.width, latents.frames, scaled.width, scaled.frames) == (64, frames, 96, frames)
    assert abs(latents.audio_duration - SECONDS) < 0.1 > abs(scaled.audio_duration - SECONDS)
    more, of_video = (probe(video(server, outputs[node])) for node in ("13", "17"))
    assert (more.frames, more.fps, more.duration) == (2 * frames, 50, pytest.approx(SECONDS))
    assert abs(of_video.audio_duration - SECONDS) < 0.1 and abs(of_video.frames - frames) <= 1
    saved = probe(server.base / "output" / "core" / outputs["7"]["images"][0]["filename"])
    assert (saved.frames, saved.audio_duration > 0) == (frames, True)


def test_several_portraits_in_a_batch(server):
    made = graph()
    made["7"] = {"class_type": "RepeatImageBatch", "inputs": {"image": ["2", 0], "amount": 2}}
    made["4"]["inputs"]["image"] = ["7", 0]
    made["6"]["inputs"]["filename_prefix"] = "several"
    output = written(server.finish(server.start(made)))
    names = [shown["filename"] for shown in output["images"]]
    assert len(set(names)) == 2
    assert all(probe(server.base / "output" / name).height == 80 for name in names)


def in_comfyui(script: str, base: Path, *arguments: str) -> dict[str, Any]:
    """The JSON that a script of this folder prints in ComfyUI's Python, with ComfyUI's folders in `base`."""
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    command = [python, str(Path(__file__).parent / script), *arguments, "--cpu", "--base-directory", str(base)]
    done = subprocess.run(command, cwd=COMFYUI, capture_output=True, text=True, timeout=900)  # noqa: S603
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_little_memory_keeps_part_of_the_weights_away(base, tmp_path):
    told = in_comfyui("little_memory.py", tmp_path, str(base / "models/fada" / STUDENT))
    assert told["whole"]["loaded"] == told["whole"]["size"]
    assert 0 < told["part"]["loaded"] <= told["budget"] < told["part"]["size"]
    assert told["part"]["away"] > 0 == told["whole"]["away"]
    assert told["difference"] < 1e-4


_OWN_PACKAGES = """
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from pip._vendor.packaging.requirements import Requirement
todo, found = [line for line in open(sys.argv[1]) if line.strip() and line[0] != "#"] + ["pip", "setuptools"], {}
while todo:
    wanted = Requirement(todo.pop())
    if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
        continue
    try:
        there = distribution(wanted.name)
    except PackageNotFoundError:
        continue
    if there._path not in found:
        found[there._path] = there.name
        todo += there.requires or []
for path in found:
    (Path(sys.argv[2]) / path.name).symlink_to(path)
print(*found.values())
"""


def test_the_requirements_change_nothing_that_comfyui_brings(tmp_path):
    """Checks pip's plan in an environment that has only ComfyUI's requirements and their dependencies."""
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)

    def run(*arguments: str, **environment: str) -> str:
        environment = os.environ | environment
        return subprocess.run([python, *arguments], capture_output=True, text=True, check=True, env=environment).stdout  # noqa: S603

    own = run("-c", _OWN_PACKAGES, str(Path(COMFYUI) / "requirements.txt"), str(tmp_path)).lower().split()
    assert {"torch", "numpy", "transformers", "pillow", "av"} <= set(own) and "diffusers" not in own
    pip = Path(run("-c", "import pip; print(pip.__path__[0])").strip())
    (tmp_path / "pip").symlink_to(pip)
    arguments = ["install", "--dry-run", "--quiet", "--report", "-", "-r", str(ROOT / "requirements.txt")]
    plan = json.loads(run("-S", "-m", "pip", *arguments, PYTHONPATH=str(tmp_path)))
    planned = {entry["metadata"]["name"].lower() for entry in plan["install"]}
    assert "diffusers" in planned and not planned & set(own)


def test_graphs_and_help_are_served(server):
    assert sorted(server.get("/workflow_templates")["comfyui-fada"]) == list(TWINS)
    served = server.get("/api/workflow_templates/comfyui-fada/talking_portrait.json")
    assert served == json.loads((ROOT / "workflows" / "talking_portrait.json").read_text())
    with urllib.request.urlopen(server.url + "/extensions/comfyui-fada/docs/FADASampler.md") as answer:  # noqa: S310
        assert answer.read().startswith(b"# FADA Sampler")
    blueprints = server.get("/global_subgraphs").values()
    assert "FADA talking portrait, lip sync avatar" in [entry["name"] for entry in blueprints]


def test_the_import_is_quick_and_touches_nothing(tmp_path):
    """CPU time is measured, because other processes slow the clock."""
    told = in_comfyui("import_cost.py", tmp_path)
    assert len(told["nodes"]) == 7
    assert told["processor"] < 0.3, told
    assert (told["said"], told["touched"]) == ("", [])


def test_comfyuis_log_has_one_line_of_the_pack(server):
    log = (server.base / "server.log").read_text()
    (line,) = (line for line in log.splitlines() if "comfyui-fada" in line and "seconds" in line)
    assert "IMPORT FAILED" not in line
    before, _, after = log.partition("Import times for custom nodes")
    assert after
    assert not [text for text in before.splitlines() if "fada" in text.lower() and "symlink" not in text]


def as_made(page: Any, prompt: dict[str, Any]) -> dict[str, Any]:
    """The graph in API format as this frontend has it: newer ones leave the sound's player out."""
    made = copy.deepcopy(prompt)
    if "audioUI" not in page.serialise()[0]["3"]["inputs"]:
        made["3"]["inputs"].pop("audioUI", None)
    return made


@pytest.mark.skipif(not importlib.util.find_spec("playwright"), reason="playwright is not installed")
def test_the_frontend_makes_the_twins_of_the_graphs(server):
    from tests.comfyui.browser import frontend

    with frontend(server.url) as page:
        for name, twin in TWINS.items():
            page.load(json.loads((ROOT / "workflows" / f"{name}.json").read_text()))
            assert page.serialise()[0] == as_made(page, twin), name
            assert page.problems() == [], name


@pytest.mark.skipif(not importlib.util.find_spec("playwright"), reason="playwright is not installed")
def test_someone_drags_the_graph_and_presses_run(base, tmp_path):
    """In a ComfyUI that was just installed: the pack's own material speaks at the first press; a second one makes and
    writes nothing; then with an own picture and sound, and a box that is dragged around the face. The video plays in
    the node, and dropped onto an empty canvas it gives back the graph."""
    from tests.comfyui.browser import frontend

    own = tmp_path / "own"
    own.mkdir()
    picture, sound = own / "my face.png", own / "my voice.wav"
    picture.write_bytes((base / "input/fada_portrait.png").read_bytes())
    sound.write_bytes((base / "input/fada_speech.wav").read_bytes())
    with comfyui(tmp_path / "comfyui") as installed, frontend(installed.url) as page:
        made = installed.base / "output/FADA"
        page.drop(ROOT / "workflows" / "talking_portrait.json")
        page.set("FADALoadAudio", "duration", 0.6)
        assert page.problems() == []
        page.press_run()
        assert page.played("FADAVideoCombine", "talking_00001_.mp4", 900) == SECONDS
        assert page.run(900).startswith("execution_success")
        assert [path.name for path in made.iterdir()] == ["talking_00001_.mp4"]

        page.drop(picture, "LoadImage")
        page.drop(sound, "FADALoadAudio")
        page.drag_box("FADAEncode", (0.2, 0.3), (0.7, 0.8))
        left, top, right, bottom = map(int, page.serialise()[0]["4"]["inputs"]["face_box"].split())
        assert (left, top, right, bottom) == pytest.approx((14, 24, 49, 64), abs=2)  # of 70 x 80
        assert page.run(900).startswith("execution_success")
        assert page.played("FADAVideoCombine", "talking_00002_.mp4", 60) == SECONDS
        used = page.serialise()[0]
        assert (used["2"]["inputs"]["image"], used["3"]["inputs"]["audio"]) == (picture.name, sound.name)
        assert "video-preview" not in used["6"]["inputs"]

        page.clear()
        page.drop(made / "talking_00002_.mp4")
        assert page.serialise()[0] == used


def test_runs_again_after_a_restart(base):
    with comfyui(base) as again:
        succeeded(again.finish(again.start(graph())))
