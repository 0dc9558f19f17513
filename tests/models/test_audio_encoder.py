"""Audio features: equal to Hallo's, in sync with the video, and independent of the recording's length."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights
from safetensors.torch import load_file
from torch import Tensor
from transformers import Wav2Vec2Config, WhisperConfig, WhisperFeatureExtractor, WhisperModel

from fada_core.config import ECHOMIMIC, PORTRAIT, AudioEncoderConfig
from fada_core.errors import FadaError
from fada_core.models.audio import audio_encoder_weights, build_audio_encoder
from fada_core.models.audio import wav2vec2 as audio
from fada_core.models.audio.mel import MelEncoder
from fada_core.models.audio.projection import window_features
from fada_core.models.audio.wav2vec2 import Wav2Vec2Encoder, wav2vec2_weights
from fada_core.models.audio.whisper import WhisperEncoder, whisper_weights

FIXTURE = Path(__file__).parents[1] / "fixtures" / "hallo_audio"
INFO = json.loads((FIXTURE / "audio_info.json").read_text())
SMALL = AudioEncoderConfig(layers=3, dim=32)
WHISPER = WhisperConfig(
    d_model=16,
    encoder_layers=2,
    encoder_attention_heads=2,
    encoder_ffn_dim=32,
    decoder_layers=1,
    decoder_attention_heads=2,
    decoder_ffn_dim=32,
)
SILENCE = (math.log(1e-5) + 4) / 4


def noise(samples: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def hallo() -> dict[str, Tensor]:
    return load_file(FIXTURE / "audio_io.safetensors")


def wav2vec2(config: AudioEncoderConfig = SMALL) -> Wav2Vec2Encoder:
    encoder = Wav2Vec2Encoder(config, Wav2Vec2Config(**INFO["config"]))
    encoder.model.load_state_dict(wav2vec2_weights(load_file(FIXTURE / "audio_wav2vec.safetensors")))
    return encoder


def test_features_equal_hallos(hallo: dict[str, Tensor]) -> None:
    features = wav2vec2().encode(hallo["waveform_16k"], INFO["seq_len"], INFO["fps"])
    assert features.shape == hallo["audio_emb"].shape
    assert (features - hallo["audio_emb"]).abs().max() < 1e-4
    assert (features[:, -1] - hallo["last_hidden_state"][0]).abs().max() < 1e-4


def test_windows_around_frames_equal_hallos(hallo: dict[str, Tensor]) -> None:
    features = wav2vec2().encode(hallo["waveform_16k"], INFO["seq_len"], INFO["fps"])
    rows = [[min(max(i + k, 0), INFO["seq_len"] - 1) for k in range(-2, 3)] for i in range(INFO["seq_len"])]
    assert (window_features(features, 5) - hallo["audio_emb"][torch.tensor(rows)]).abs().max() < 1e-4


def test_fewer_frames_are_the_first_of_more(hallo: dict[str, Tensor]) -> None:
    encoder = wav2vec2()
    features = encoder.encode(hallo["waveform_16k"], INFO["audio_length"], INFO["fps"])
    assert (features - hallo["audio_emb"][: INFO["audio_length"]]).abs().max() < 1e-4


def test_training_mode_changes_nothing(hallo: dict[str, Tensor]) -> None:
    encoder = wav2vec2().train()
    runs = [encoder.encode(hallo["waveform_16k"], 16, 25) for _ in range(2)]
    assert torch.equal(*runs)
    assert not runs[0].requires_grad


def test_convolutions_in_blocks_equal_one_pass(hallo: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    waveform = hallo["waveform_16k"]
    whole = wav2vec2().encode(waveform, 35, 25)
    monkeypatch.setattr(audio, "_BLOCK_SAMPLES", 4000)
    assert (wav2vec2().encode(waveform, 35, 25) - whole).abs().max() < 1e-4


def test_windows_with_all_context_equal_one_pass(hallo: dict[str, Tensor]) -> None:
    windowed = wav2vec2(replace(SMALL, window_seconds=0.4, context_seconds=2.0))
    features = windowed.encode(hallo["waveform_16k"], INFO["seq_len"], INFO["fps"])
    assert (features - hallo["audio_emb"]).abs().max() < 1e-4


def test_windows_differ_from_one_pass_by_far_attention_alone() -> None:
    # Loud, silent, faint: windows that normalised by themselves would differ. Attention is switched off, since that of
    # random weights reaches over the whole recording; the positional convolution's 8 rows are within the context.
    waveform = torch.cat([noise(16000 * 5), torch.zeros(16000 * 5), 0.1 * noise(16000 * 4, 1)])
    encoders = [wav2vec2(replace(SMALL, window_seconds=window, context_seconds=0.5)) for window in (60.0, 3.0)]
    for encoder in encoders:
        for layer in encoder.model.encoder.layers:
            layer.attention.out_proj.weight.zero_()
    whole, windows = (encoder.encode(waveform, 350, 25) for encoder in encoders)
    assert windows.shape == (350, 3, 32)
    assert (windows - whole).abs().max() < 1e-4


@pytest.mark.parametrize("samples", [1, 100, 1600, 641])
@pytest.mark.parametrize("kind", ["mel", "wav2vec2"])
def test_very_short_audio(samples: int, kind: str) -> None:
    encoder = wav2vec2() if kind == "wav2vec2" else MelEncoder(PORTRAIT.audio)
    frames = math.ceil(samples / 640)
    for count in (frames, frames + 20):
        features = encoder.encode(noise(samples), count, 25.0)
        assert features.shape == (count, encoder.config.layers, encoder.config.dim)
        assert features.isfinite().all()


@pytest.mark.parametrize("fps", [12.5, 25.0, 29.97, 60.0])
def test_silence_and_other_rates(fps: float) -> None:
    for encoder in (wav2vec2(), MelEncoder(PORTRAIT.audio)):
        features = encoder.encode(torch.zeros(16000), 40, fps)
        assert len(features) == 40
        assert features.isfinite().all()


def test_mel_sees_a_click_in_the_frame_of_its_time() -> None:
    encoder = MelEncoder(PORTRAIT.audio)
    for fps in (25.0, 30.0):
        for frame in (0, 7, 19):
            waveform = torch.zeros(16000)
            waveform[round((frame + 0.5) / fps * 16000)] = 1.0
            loudness = encoder.encode(waveform, 20, fps).mean((1, 2))
            assert int(loudness.argmax()) == frame


def test_mel_columns_are_centred_on_the_frame() -> None:
    waveform = torch.zeros(16000)
    waveform[10 * 640 + 320] = 1.0  # the middle of frame 10
    columns = MelEncoder(PORTRAIT.audio).encode(waveform, 25, 25.0)[10, 0].view(4, 40)
    assert torch.allclose(columns, columns.flip(0), atol=1e-5)
    assert columns[1].mean() > columns[0].mean()


def test_mel_is_about_unit_range_and_silent_past_the_end() -> None:
    waveform = torch.sin(2 * math.pi * 300 * torch.arange(16000) / 16000)
    features = MelEncoder(PORTRAIT.audio).encode(waveform, 50, 25.0)
    assert features[:24].max() < 1.5
    assert torch.allclose(features[26:], torch.tensor(SILENCE))


def test_mel_of_a_part_does_not_depend_on_the_rest() -> None:
    waveform = noise(16000 * 4)
    whole = MelEncoder(PORTRAIT.audio).encode(waveform, 100, 25.0)
    blocks = MelEncoder(replace(PORTRAIT.audio, window_seconds=0.5)).encode(waveform, 100, 25.0)
    assert torch.allclose(whole, blocks, atol=1e-5)
    quieter = torch.cat([waveform[:32000], 0.01 * waveform[32000:]])
    assert torch.equal(MelEncoder(PORTRAIT.audio).encode(quieter, 100, 25.0)[:49], whole[:49])


def test_names_of_published_weights() -> None:
    weights = load_file(FIXTURE / "audio_wav2vec.safetensors")
    published = {f"wav2vec2.{name}": value for name, value in weights.items()}
    conv = "wav2vec2.encoder.pos_conv_embed.conv."
    published[conv + "weight_g"] = published.pop(conv + "parametrizations.weight.original0")
    published[conv + "weight_v"] = published.pop(conv + "parametrizations.weight.original1")
    published["lm_head.weight"] = torch.zeros(12, 32)
    assert set(wav2vec2_weights(published)) == set(wav2vec2().model.state_dict())


def test_wav2vec2_base_by_default() -> None:
    with init_empty_weights(include_buffers=False):
        encoder = build_audio_encoder(AudioEncoderConfig())
    assert sum(p.numel() for p in encoder.parameters()) == 94_371_712 - 768  # the published one has a mask embedding


def test_contradicting_shapes_are_refused() -> None:
    with pytest.raises(FadaError, match="3 layers of width 32"):
        Wav2Vec2Encoder(AudioEncoderConfig(), Wav2Vec2Config(**INFO["config"]))
    with pytest.raises(FadaError, match="wav2vec2-base"):
        Wav2Vec2Encoder(SMALL, Wav2Vec2Config(**{**INFO["config"], "do_stable_layer_norm": True}))
    with pytest.raises(FadaError, match="dim 160"):
        MelEncoder(replace(PORTRAIT.audio, dim=80))


def whisper() -> WhisperEncoder:
    torch.manual_seed(0)
    return WhisperEncoder(AudioEncoderConfig(kind="whisper", layers=30, dim=16), WHISPER)


def test_whisper_states_equal_transformers() -> None:
    """On 30 s, without padding; the last state is taken before the final norm, as in EchoMimic."""
    waveform = noise(30 * 16000)
    torch.manual_seed(1)
    theirs = WhisperModel(WHISPER).eval()
    encoder = whisper()
    encoder.model.load_state_dict(whisper_weights(theirs.state_dict()))
    mel = WhisperFeatureExtractor()(waveform.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    with torch.no_grad():
        embedded, inner, last = theirs.encoder(mel, output_hidden_states=True).hidden_states
    frames = 24 * 30
    features = encoder.encode(waveform, frames, 24.0)
    assert features.shape == (frames, 30, 16)
    rows = features.unflatten(1, (10, 3))
    for frame in (0, 1, 333, frames - 1):
        around = [min(max(int(frame * 50 / 24) + k, 0), 1499) for k in range(-4, 6)]
        assert (rows[frame, :, 0] - embedded[0, around]).abs().max() < 1e-4
        assert (rows[frame, :, 1] - inner[0, around]).abs().max() < 1e-3
        assert (theirs.encoder.layer_norm(rows[frame, :, 2]) - last[0, around]).abs().max() < 1e-3


@pytest.mark.parametrize("samples", [1, 100, 641, 31 * 16000])
def test_whisper_takes_any_length(samples: int) -> None:
    frames = math.ceil(samples * 24 / 16000) + 2
    features = whisper().encode(noise(samples), frames, 24.0)
    assert features.shape == (frames, 30, 16)
    assert features.isfinite().all()


def test_whisper_tiny_by_default_and_its_names() -> None:
    with init_empty_weights(include_buffers=False):
        encoder = build_audio_encoder(ECHOMIMIC.audio)
    wanted = {name: value.shape for name, value in encoder.model.state_dict().items()}
    assert sum(math.prod(shape) for shape in wanted.values()) == 8_208_384 - 2 * 384  # less its last norm
    openai = {"encoder.positional_embedding": (1500, 384), "encoder.ln_post.weight": (384,), "decoder.ln.bias": (384,)}
    openai |= {"encoder.conv1.weight": (384, 80, 3), "encoder.conv2.weight": (384, 384, 3)}
    openai |= {f"encoder.conv{i}.bias": (384,) for i in (1, 2)}
    for i in range(4):
        block = f"encoder.blocks.{i}."
        openai |= {f"{block}attn.{part}.weight": (384, 384) for part in ("query", "key", "value", "out")}
        openai |= {f"{block}attn.{part}.bias": (384,) for part in ("query", "value", "out")}
        openai |= {f"{block}{norm}.{kind}": (384,) for norm in ("attn_ln", "mlp_ln") for kind in ("weight", "bias")}
        openai |= {f"{block}mlp.0.weight": (1536, 384), f"{block}mlp.0.bias": (1536,)}
        openai |= {f"{block}mlp.2.weight": (384, 1536), f"{block}mlp.2.bias": (384,)}
    published = {name: torch.empty(shape, device="meta") for name, shape in openai.items()}
    renamed = audio_encoder_weights(ECHOMIMIC.audio, published)
    assert {name: value.shape for name, value in renamed.items()} == wanted


def test_contradicting_whispers_are_refused() -> None:
    with pytest.raises(FadaError, match="2 layers of width 16"):
        WhisperEncoder(ECHOMIMIC.audio, WHISPER)
    with pytest.raises(FadaError, match="10 rows"):
        WhisperEncoder(replace(ECHOMIMIC.audio, layers=5))
