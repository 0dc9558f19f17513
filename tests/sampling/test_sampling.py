"""Schedule, guidance, solvers and the sampling of clips."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file

from fada_core.config import ScheduleConfig
from fada_core.errors import FadaError
from fada_core.models import precondition
from fada_core.models.audio.projection import clip_windows
from fada_core.models.inputs import ClipInputs, Subject
from fada_core.models.networks import Networks
from fada_core.sampling.chain import next_motion, sample_chain
from fada_core.sampling.denoise import Denoiser, prepare_subject, sample_clip
from fada_core.sampling.guidance import branches, combine
from fada_core.sampling.schedule import NoiseSchedule
from fada_core.sampling.solvers import build_solver
from fada_core.settings import SOLVERS, SamplingSettings
from tests.models.test_parity_hallo import FIXTURE, TOLERANCE, Case
from tests.support.networks import IDENTITY, SMALL, make_features, make_networks, make_subject, run_clip

STEPS = (4, 6, 25, 30, 40)


@pytest.fixture(scope="module")
def small() -> Networks:
    return make_networks(SMALL)


@pytest.fixture(scope="module")
def with_identity() -> Networks:
    return make_networks(IDENTITY)


def assert_same(a: torch.Tensor, b: torch.Tensor) -> None:
    assert (a - b).abs().max() <= 1e-5 * max(1.0, b.abs().max().item())


def diffusers_ddim(config: ScheduleConfig) -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=config.train_timesteps,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule=config.beta_schedule,
        prediction_type="v_prediction" if config.prediction == "v" else "epsilon",
        rescale_betas_zero_snr=config.zero_snr,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
    )


@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear"])
@pytest.mark.parametrize("zero_snr", [True, False])
def test_alphas_equal_diffusers(beta_schedule, zero_snr):
    config = ScheduleConfig(beta_schedule=beta_schedule, zero_snr=zero_snr)
    alphas = NoiseSchedule(config).alpha_sigma(torch.arange(1000))[0].square()
    assert alphas.shape == (1000,) and alphas.dtype == torch.float32
    torch.testing.assert_close(alphas, diffusers_ddim(config).alphas_cumprod, atol=1e-5, rtol=0)
    assert (alphas[-1] == 0) == zero_snr


def test_trailing_timesteps_equal_diffusers_for_every_count():
    config = ScheduleConfig()
    schedule, other = NoiseSchedule(config), diffusers_ddim(config)
    for steps in range(1, 1001):
        other.set_timesteps(steps)
        assert schedule.timesteps(steps) == other.timesteps.tolist()[:steps]
    assert schedule.timesteps(6) == [999, 832, 666, 499, 332, 166]


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_step_counts_are_refused(steps):
    with pytest.raises(FadaError, match="1 to 1000"):
        NoiseSchedule(ScheduleConfig()).timesteps(steps)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(("prediction", "zero_snr"), [("v", True), ("v", False), ("epsilon", False)])
def test_stride_rule_samples_as_diffusers(steps, prediction, zero_snr):
    config = ScheduleConfig(prediction=prediction, zero_snr=zero_snr, previous_timestep="stride")
    schedule, other = NoiseSchedule(config), diffusers_ddim(config)
    other.set_timesteps(steps)
    generator = torch.Generator().manual_seed(0)
    x = ours = torch.randn(1, 2, 4, 3, 3, generator=generator)
    for t in schedule.timesteps(steps):
        output = torch.randn(x.shape, generator=generator)
        # From the same x every time: a step must agree, not only its average over a trajectory.
        ours = schedule.ddim_step(output, x, t, schedule.previous(t, steps))
        x = other.step(output, t, x).prev_sample
        scale = max(1.0, x.abs().max().item())  # noise prediction divides by a small alpha
        assert (ours - x).abs().max() / scale < 1e-5


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_a_ddim_step_is_a_line(prediction):
    """It is linear in x and the prediction, as CUDA graphs compute it."""
    schedule = NoiseSchedule(ScheduleConfig(prediction=prediction, zero_snr=prediction == "v"))
    solver, generator = build_solver(schedule, 6), torch.Generator().manual_seed(0)
    for t in solver.timesteps:
        x, output = torch.randn(2, 1, 4, 4, 3, 3, generator=generator)
        keep, take = solver.coefficients(t, x.device)
        torch.testing.assert_close(keep * x + take * output, solver.step(output, t, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", STEPS)
def test_next_rule_ends_at_the_clean_sample(steps):
    schedule = NoiseSchedule(ScheduleConfig(previous_timestep="next"))
    times = schedule.timesteps(steps)
    assert [schedule.previous(t, steps) for t in times] == [*times[1:], -1]
    x0, noise = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(1)).unbind(0)
    x = noise  # zero terminal SNR: pure noise is exactly x_T
    for t in times:
        x = schedule.ddim_step(schedule.velocity(x0, noise, t), x, t, schedule.previous(t, steps))
    torch.testing.assert_close(x, x0, atol=1e-5, rtol=0)


def test_conversions_are_inverse_for_one_timestep_per_row():
    generator = torch.Generator().manual_seed(2)
    x0, noise = torch.randn(2, 4, 2, 3, 4, 4, generator=generator)
    t = torch.tensor([999, 500, 3, 0])
    for config in (ScheduleConfig(), ScheduleConfig(zero_snr=False, prediction="epsilon")):
        schedule = NoiseSchedule(config)
        x_t, target = schedule.add_noise(x0, noise, t), schedule.target(x0, noise, t)
        torch.testing.assert_close(schedule.to_x0(x_t, target, t), x0, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(schedule.to_epsilon(x_t, target, t), noise, atol=1e-4, rtol=1e-4)
        back = schedule.ddim_step(target, x_t, t, torch.tensor([832, -1, -30, 0]))
        torch.testing.assert_close(back[0], schedule.add_noise(x0[0], noise[0], 832), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(back[1:3], x0[1:3], atol=1e-4, rtol=1e-4)


def test_noise_prediction_at_zero_snr_is_refused():
    with pytest.raises(FadaError, match="zero terminal SNR"):
        NoiseSchedule(ScheduleConfig(prediction="epsilon", zero_snr=True))


def test_preconditioning_is_exact_and_has_unit_variance():
    generator = torch.Generator().manual_seed(3)
    std, schedule = 0.6, NoiseSchedule(ScheduleConfig())
    t = torch.tensor([999, 700, 300, 20, 700])
    has_reference = torch.tensor([True, True, True, True, False])
    reference = torch.randn(5, 4, 16, 16, generator=generator) * has_reference[:, None, None, None]
    spread = torch.where(has_reference, std, 1.0)[:, None, None, None, None]
    x0 = reference[:, None] + spread * torch.randn(5, 8, 4, 16, 16, generator=generator)
    noise = torch.randn(x0.shape, generator=generator)
    x_t, v = schedule.add_noise(x0, noise, t), schedule.velocity(x0, noise, t)
    alpha, sigma = schedule.alpha_sigma(t)

    seen = precondition.network_input(x_t, reference, alpha, sigma, std, has_reference)
    assert (seen.flatten(1).std(1) - 1).abs().max() < 0.03
    # The output that gives v exactly has unit variance too, and leaves nothing of the input in it.
    zero = precondition.velocity(torch.zeros_like(v), x_t, reference, alpha, sigma, std, has_reference)
    one = precondition.velocity(torch.ones_like(v), x_t, reference, alpha, sigma, std, has_reference)
    wanted = (v - zero) / (one - zero)
    assert (wanted.flatten(1).std(1) - 1).abs().max() < 0.03
    assert (wanted * seen).flatten(1).mean(1).abs().max() < 0.03
    # Without a reference: plain v, whatever lies in the reference.
    other = torch.full_like(reference, 7.0)
    torch.testing.assert_close(precondition.network_input(x_t, other, alpha, sigma, std, has_reference)[4], x_t[4])
    torch.testing.assert_close(precondition.velocity(v, x_t, other, alpha, sigma, std, has_reference)[4], v[4])


@pytest.mark.parametrize(
    ("ref_cfg", "audio_cfg"), [(2.0, 6.5), (1.0, 1.0), (3.5, 3.5), (1.0, 4.0), (2.0, 0.0), (0.0, 0.0)]
)
def test_guidance_is_the_written_formula(ref_cfg, audio_cfg):
    drawn = torch.randn(3, 1, 2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    e = dict(zip(("base", "ref", "audio"), drawn, strict=True))
    wanted = e["base"] + ref_cfg * (e["ref"] - e["base"]) + audio_cfg * (e["audio"] - e["ref"])
    used = branches(ref_cfg, audio_cfg)
    predictions = torch.stack([e[branch.name] for branch in used])
    torch.testing.assert_close(combine(predictions, torch.tensor(list(used.values()), dtype=torch.float64)), wanted)
    assert all(used.values())
    assert sum(used.values()) == pytest.approx(1.0)


def test_only_needed_branches_are_used_and_base_comes_first():
    def names(*scales: float) -> list[str]:
        return [branch.name for branch in branches(*scales)]

    assert names(2.0, 6.5) == ["base", "ref", "audio"]
    assert names(3.5, 3.5) == ["base", "audio"]
    assert names(1.0, 6.5) == ["ref", "audio"]
    assert names(1.0, 1.0) == ["audio"]


@pytest.mark.parametrize(("scales", "passes"), [((2.0, 6.5), 75), ((1.0, 1.0), 25), ((3.5, 3.5), 50)])
def test_nfe_is_counted_per_branch(small, monkeypatch, scales, passes):
    rows = []
    forward = small.denoising_unet.forward
    monkeypatch.setattr(small.denoising_unet, "forward", lambda x, *a: rows.append(len(x)) or forward(x, *a))
    clip = run_clip(small, steps=25, ref_cfg=scales[0], audio_cfg=scales[1])
    assert clip.nfe == passes == sum(rows) // SMALL.clip_frames
    assert len(rows) == 25


@pytest.mark.parametrize("name", ["small", "with_identity"])
def test_branches_batched_or_one_by_one_give_the_same(name, request):
    networks = request.getfixturevalue(name)
    together, alone = (run_clip(networks, steps=3, batch_branches=batch) for batch in (True, False))
    assert_same(alone.latents, together.latents)
    assert alone.nfe == together.nfe == 9


@pytest.mark.parametrize("name", ["small", "with_identity"])
def test_portrait_features_computed_once_change_nothing(name, request):
    networks = request.getfixturevalue(name)
    subject = make_subject(networks)
    once = run_clip(networks, subject, steps=2)
    every_time = run_clip(networks, replace(subject, portrait_features=None), steps=2)
    assert_same(once.latents, every_time.latents)


def test_each_branch_sees_what_it_may(with_identity):
    """Base ignores portrait, identity and audio; ref ignores the audio; audio depends on all of them."""
    subject = make_subject(with_identity)
    other = prepare_subject(with_identity, subject.portrait + 1, subject.identity - 1, subject.face_box)
    other_audio = make_features(IDENTITY, 9).flip(0)

    def predictions(who: Subject, features: torch.Tensor) -> torch.Tensor:
        audio = clip_windows(features, 0, 4, IDENTITY.condition.audio_window).expand(3, -1, -1, -1, -1)
        inputs = ClipInputs(
            who.portrait.expand(3, -1, -1, -1),
            subject.portrait[:, None].expand(3, 2, -1, -1, -1),  # motion frames are kept by every branch
            audio,
            drop_reference=torch.tensor([True, False, False]),
            drop_audio=torch.tensor([True, True, False]),
            identity=who.identity.expand(3, -1),
            face_box=who.face_box.expand(3, -1, -1, -1),
        )
        x = torch.randn(1, 4, 16, 8, 8, generator=torch.Generator().manual_seed(5)).expand(3, -1, -1, -1, -1)
        t = torch.full((3,), 500)
        alpha, sigma = NoiseSchedule(IDENTITY.schedule).alpha_sigma(t)
        return with_identity.predict(x, t, alpha, sigma, with_identity.condition(inputs))

    first = predictions(subject, make_features(IDENTITY, 9))
    changed = [(predictions(other, make_features(IDENTITY, 9)) - first), (predictions(subject, other_audio) - first)]
    portrait, audio = ([row.abs().max().item() > 1e-4 for row in rows] for rows in changed)
    assert portrait == [False, True, True]
    assert audio == [False, False, True]


@pytest.mark.parametrize("name", ["small", "with_identity"])
def test_rows_come_in_any_order(name, request):
    """Each row has the same prediction as alone, also if every row is another clip."""
    networks = request.getfixturevalue(name)
    config, generator = networks.config, torch.Generator().manual_seed(4)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    rows, cells = 4, [(config.size // config.vae.downscale >> level) ** 2 for level in range(3)]
    latents = randn(rows, 4, 16, 8, 8)
    inputs = ClipInputs(
        randn(rows, 16, 8, 8),
        randn(rows, 2, 16, 8, 8),
        randn(rows, 4, config.condition.audio_window, config.audio.layers, config.audio.dim),
        drop_reference=torch.tensor([False, True, False, True]),
        drop_audio=torch.tensor([True, False, False, True]),
        identity=randn(rows, 10),
        face_box=torch.rand(rows, 3, 64, 64, generator=generator),
        masks=[[torch.rand(rows, count, 1, generator=generator)] * config.unet.audio_regions for count in cells],
    )
    t = torch.tensor([999, 700, 400, 100])

    def predict(rows: torch.Tensor) -> torch.Tensor:
        amplitudes = NoiseSchedule(config.schedule).alpha_sigma(t[rows])
        return networks.predict(latents[rows], t[rows], *amplitudes, networks.condition(inputs.select(rows)))

    with torch.no_grad():
        together = predict(torch.arange(rows))
        for row in range(rows):
            assert_same(together[row], predict(torch.tensor([row]))[0])
        assert_same(predict(torch.tensor([3, 1, 0, 2])), together[[3, 1, 0, 2]])


def test_seed_decides(small):
    first, again, other = (run_clip(small, seed=seed, steps=2).latents for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 6])
def test_solvers_reach_the_clean_sample(solver, steps):
    schedule = NoiseSchedule(ScheduleConfig())
    x0, noise = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(1)).unbind(0)
    made = build_solver(schedule, steps, solver)
    assert made.timesteps == schedule.timesteps(steps)
    x = noise
    for t in made.timesteps:
        x = made.step(schedule.velocity(x0, noise, t), t, x)
    torch.testing.assert_close(x, x0, atol=2e-3, rtol=0)  # diffusers starts at a tiny alpha, not at 0


@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers_run_on_networks(small, solver):
    clip = run_clip(small, steps=4, solver=solver)
    assert clip.latents.isfinite().all() and clip.nfe == 12


def test_unknown_solver_is_refused():
    with pytest.raises(FadaError, match="ddim, dpm"):
        build_solver(NoiseSchedule(ScheduleConfig()), 4, "euler")


def test_residual_model_without_v_prediction_is_refused():
    with pytest.raises(FadaError, match="residual_std"):
        Networks(replace(SMALL, schedule=ScheduleConfig(prediction="epsilon", zero_snr=False)))


def run_chain(networks: Networks, frames: int, callback=None, steps: int = 2, after: torch.Tensor | None = None):
    config = networks.config
    return sample_chain(
        Denoiser(networks),
        make_subject(networks),
        make_features(config, frames),
        SamplingSettings(steps=steps, ref_cfg=1.0, audio_cfg=1.0),
        torch.Generator().manual_seed(0),
        callback,
        after,
    )


@pytest.mark.parametrize(("frames", "lengths"), [(1, [1]), (4, [4]), (5, [4, 1]), (11, [4, 4, 3])])
def test_chain_has_the_frames_of_the_audio(small, frames, lengths):
    assert [clip.latents.shape for clip in run_chain(small, frames)] == [(1, n, 16, 8, 8) for n in lengths]


def test_chain_is_lazy_and_forgets(small, monkeypatch):
    calls = []
    predict = small.predict
    monkeypatch.setattr(small, "predict", lambda *a: calls.append(1) or predict(*a))
    chain = run_chain(small, 4000)
    assert not calls
    next(chain)
    assert len(calls) == 2


@pytest.mark.parametrize("name", ["small", "with_identity"])
def test_a_clip_sees_the_last_frames_of_the_one_before(name, request, monkeypatch):
    networks = request.getfixturevalue(name)
    seen = []
    features = networks.reference_features
    monkeypatch.setattr(
        networks, "reference_features", lambda p, m, t: (m.shape[1] and seen.append(m[:1].clone())) or features(p, m, t)
    )
    clips = list(run_chain(networks, 8))
    portrait = make_subject(networks).portrait
    assert torch.equal(seen[0], portrait[:, None].expand_as(seen[0]))
    assert torch.equal(seen[1], next_motion(Denoiser(networks), clips[0].latents))
    last = clips[0].latents[:, -2:]
    if networks.config.motion_space == "latents":
        assert torch.equal(seen[1], last)
    else:
        assert torch.equal(seen[1][0], networks.vae.encode(networks.vae.decode(last[0])))


@pytest.mark.parametrize("name", ["small", "with_identity"])
def test_sampling_goes_on_after_the_first_clips(name, request):
    networks = request.getfixturevalue(name)
    whole = [clip.latents for clip in run_chain(networks, 14)]
    for count in range(1, len(whole)):
        calls = []
        after = torch.cat(whole[:count], 1)
        rest = list(run_chain(networks, 14, lambda *told, calls=calls: calls.append(told[:2]), after=after))
        assert all(torch.equal(clip.latents, x) for clip, x in zip(rest, whole[count:], strict=True))
        assert calls == [(step, 2 * len(whole)) for step in range(2 * count + 1, 2 * len(whole) + 1)]


def test_windows_reach_over_the_clip_but_not_over_the_ends():
    features = torch.arange(10.0)[:, None, None]
    windows = clip_windows(features, 4, 4, 5)[0, ..., 0, 0]
    assert windows[0].tolist() == [2, 3, 4, 5, 6] and windows[3].tolist() == [5, 6, 7, 8, 9]
    assert clip_windows(features, 0, 4, 5)[0, 0, :, 0, 0].tolist() == [0, 0, 0, 1, 2]
    assert clip_windows(features, 8, 4, 5)[0, 3, :, 0, 0].tolist() == [9] * 5


def test_callback_counts_all_steps_and_can_interrupt(small):
    class Interrupted(Exception):
        pass

    calls = []

    def callback(done, steps, latents):
        calls.append((done, steps, tuple(latents.shape)))
        if done == 3:
            raise Interrupted

    chain = run_chain(small, 8, callback)
    next(chain)
    with pytest.raises(Interrupted):
        next(chain)
    assert calls == [(done, 4, (4, 16, 8, 8)) for done in (1, 2, 3)]


def test_published_row_order_runs_batched_only(with_identity):
    networks = make_networks(replace(IDENTITY, hallo_compat=True))
    published = run_clip(networks, steps=2, ref_cfg=3.5, audio_cfg=3.5).latents
    correct = run_clip(with_identity, steps=2, ref_cfg=3.5, audio_cfg=3.5).latents
    assert not torch.allclose(published, correct, atol=1e-3)
    # Without guidance there is one row, and nothing to mix up.
    unguided = {"steps": 2, "ref_cfg": 1.0, "audio_cfg": 1.0}
    assert_same(run_clip(networks, **unguided).latents, run_clip(with_identity, **unguided).latents)
    with pytest.raises(FadaError, match="batch_branches"):
        run_clip(networks, steps=2, batch_branches=False)


def test_preview_has_the_size_of_the_video(small):
    shown = small.vae.preview(make_subject(small).portrait.expand(2, -1, -1, -1))
    assert shown.shape == (2, 3, 64, 64) and shown.abs().max() <= 1


@pytest.mark.parametrize(
    ("outputs", "scale", "compat"), [("cfg", 3.5, True), ("nocfg", 1.0, True), ("nocfg", 1.0, False)]
)
def test_a_clip_equals_hallos(monkeypatch, outputs, scale, compat):
    """From the networks' inputs to the clean latents; equal scales are Hallo's two-branch guidance."""
    case = Case()
    networks = case.networks.eval()
    networks.config = replace(case.config, hallo_compat=compat)
    inputs, expected = case.inputs, load_file(FIXTURE / f"outputs_{outputs}.safetensors")
    portrait, motion = inputs["ref_latents"][:1], inputs["ref_latents"][None, 1:]
    subject = prepare_subject(networks, portrait, inputs["face_emb"], inputs["face_mask_image"], case.masks)
    settings = SamplingSettings(
        steps=4, ref_cfg=scale, audio_cfg=scale, region_weights=tuple(case.info["config"]["motion_scale"])
    )
    monkeypatch.setattr(torch, "randn", lambda *_, **__: inputs["latents"].transpose(1, 2))
    clip = sample_clip(Denoiser(networks), subject, motion, case.audio, settings, torch.Generator())
    torch.testing.assert_close(clip.latents.transpose(1, 2), expected["latents_3"], atol=TOLERANCE, rtol=0)
