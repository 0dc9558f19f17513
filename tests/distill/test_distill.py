"""The student, its losses, step strategies and mixer, compared with their definitions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from fada_core.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from fada_core.config import ControlConfig
from fada_core.data.batches import ClipBatch
from fada_core.distill.losses import min_snr_weight, sample_losses
from fada_core.distill.mixer import Mixer, MixerInputs, trust_in_truth
from fada_core.distill.strategies import StepStrategy, velocity_between
from fada_core.distill.student import count_parameters, make_student, merge_lora, parameter_groups, select_trainable
from fada_core.distill.teacher import GuidedTeacher
from fada_core.errors import FadaError
from fada_core.models.inputs import ClipInputs
from fada_core.models.networks import Networks
from fada_core.pipeline import Pipeline
from fada_core.sampling.guidance import branches, combine
from fada_core.sampling.schedule import NoiseSchedule
from tests.support.networks import SMALL, make_networks, run_clip

CONTROLS = {kind: ControlConfig(kind=kind, tokens=3, dim=16) for kind in ("tokens", "embedding")}
SCHEDULE = NoiseSchedule(SMALL.schedule)


@pytest.fixture(scope="module")
def teacher() -> Networks:
    return make_networks(SMALL)


def student_of(teacher: Networks, kind: str = "tokens", trained: bool = False) -> Networks:
    """A student; with `trained`, the last layers of its control are not zero."""
    torch.manual_seed(0)
    student = make_student(teacher, CONTROLS[kind]).eval().requires_grad_(False)
    if trained:
        for name, parameter in student.named_parameters():
            if ".control.attn.to_out" in name or "scale_embedding.linear_2" in name:
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    return student


def draws(count: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


@pytest.mark.parametrize("kind", CONTROLS)
def test_an_untrained_student_is_the_teachers_audio_branch(teacher: Networks, kind: str) -> None:
    student = student_of(teacher, kind)
    audio_alone = run_clip(teacher, steps=2, ref_cfg=1.0, audio_cfg=1.0)
    fast = run_clip(student, steps=2, ref_cfg=2.0, audio_cfg=6.5, one_pass=True)
    assert torch.equal(fast.latents, audio_alone.latents)
    assert fast.nfe == 2


@pytest.mark.parametrize("kind", CONTROLS)
def test_an_untrained_student_runs_branch_by_branch_like_its_teacher(teacher: Networks, kind: str) -> None:
    settings = {"steps": 2, "ref_cfg": 2.0, "audio_cfg": 6.5}
    assert torch.equal(run_clip(student_of(teacher, kind), **settings).latents, run_clip(teacher, **settings).latents)


@pytest.mark.parametrize("kind", CONTROLS)
def test_scales_reach_a_trained_student(teacher: Networks, kind: str) -> None:
    student = student_of(teacher, kind, trained=True)

    def fast(ref_cfg: float, audio_cfg: float) -> Tensor:
        return run_clip(student, steps=1, ref_cfg=ref_cfg, audio_cfg=audio_cfg, one_pass=True).latents

    assert not torch.allclose(fast(2.0, 3.0), fast(2.0, 6.5), atol=1e-3)
    assert not torch.allclose(fast(1.0, 3.0), fast(2.0, 3.0), atol=1e-3)


def test_tokens_are_mixed_like_predictions(teacher: Networks) -> None:
    tokens = student_of(teacher).denoising_unet.cfg_tokens
    sets = tokens.sets.weight.unflatten(1, (3, 16))
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    torch.testing.assert_close(tokens(corners), sets)
    mixed = combine(sets, torch.tensor(list(branches(2.0, 6.5).values())))
    torch.testing.assert_close(tokens(torch.tensor([[2.0, 6.5]]))[0], mixed)


def test_a_students_branches_tell_it_their_corner(teacher: Networks) -> None:
    """In balanced mode each branch has its own scales, (0, 0), (1, 0) or (1, 1), whatever the guidance."""
    student = student_of(teacher, trained=True)
    alone = run_clip(student, steps=1, ref_cfg=1.0, audio_cfg=1.0)
    told = run_clip(student, steps=1, ref_cfg=1.0, audio_cfg=1.0, one_pass=True)
    assert torch.equal(alone.latents, told.latents)


def test_evaluations_are_75_18_and_6(teacher: Networks) -> None:
    student = student_of(teacher)
    scales = {"ref_cfg": 2.0, "audio_cfg": 6.5}
    assert run_clip(teacher, steps=25, **scales).nfe == 75
    assert run_clip(student, steps=6, **scales).nfe == 18
    assert run_clip(student, steps=6, one_pass=True, **scales).nfe == 6


def test_checkpoint_keeps_the_student(teacher: Networks, tmp_path) -> None:
    student = student_of(teacher, trained=True)
    info = CheckpointInfo("student", steps=6, scale_ranges=((1.0, 2.5), (1.0, 8.0)))
    save_checkpoint(tmp_path / "student.safetensors", student, info)
    loaded, read = load_checkpoint(tmp_path / "student.safetensors")
    assert read.scale_ranges == info.scale_ranges
    kept = loaded.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in student.state_dict().items())
    ours, theirs = (run_clip(each, steps=1, one_pass=True).latents for each in (loaded, student))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)  # weights lie in another order, which rounds otherwise


def test_modes_of_a_student(teacher: Networks) -> None:
    info = CheckpointInfo("student", steps=6, scale_ranges=((1.0, 2.5), (1.0, 8.0)))
    pipe = Pipeline(student_of(teacher), info)
    condition = pipe.encode(torch.zeros(1, 3, 64, 64), 0.1 * torch.ones(640))
    next(pipe.sample(condition))
    assert pipe.stats.nfe_per_clip == 6  # fast is what a student does unasked
    next(pipe.sample(condition, mode="balanced", audio_cfg=12.0))
    assert pipe.stats.nfe_per_clip == 18
    with pytest.raises(FadaError, match=r"audio_cfg is 12, outside of 1 to 8"):
        pipe.sample(condition, mode="fast", audio_cfg=12.0)
    with pytest.raises(FadaError, match="needs a teacher"):
        pipe.sample(condition, mode="teacher")


def test_a_student_needs_a_control(teacher: Networks) -> None:
    with pytest.raises(FadaError, match="control"):
        make_student(teacher, ControlConfig())


@pytest.mark.parametrize("trainable", ["full", "tokens"])
def test_what_is_trained(teacher: Networks, trainable: str) -> None:
    student = make_student(teacher, CONTROLS["tokens"])
    select_trainable(student, trainable)
    trained = {name for name, p in student.named_parameters() if p.requires_grad}
    assert not any(name.startswith(("vae.", "audio_encoder.")) for name in trained)
    assert any(".control." in name for name in trained) and "denoising_unet.cfg_tokens.sets.weight" in trained
    assert ("reference_unet.conv_in.weight" in trained) == (trainable == "full")
    counts = count_parameters(student)
    assert (counts["trained"] == counts["control"]) == (trainable == "tokens")
    scales = [group.get("scale", 1.0) for group in parameter_groups(student, student, 10.0)]
    assert scales == ([1.0, 10.0] if trainable == "full" else [10.0])


def test_lora_trains_adapters_and_folds_into_plain_names(teacher: Networks) -> None:
    pytest.importorskip("peft")
    student = make_student(teacher, CONTROLS["tokens"]).eval()
    plain = set(student.state_dict())
    select_trainable(student, "lora", lora_rank=2)
    trained = [name for name, p in student.named_parameters() if p.requires_grad]
    assert all(".lora_" in name or ".control." in name or "cfg_tokens" in name for name in trained)
    assert any("reference_unet" in name and ".lora_" in name for name in trained)
    student.requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in student.named_parameters():
        if ".lora_B" in name:
            parameter.normal_(0, 0.1, generator=generator)
    adapted = run_clip(student, steps=1, one_pass=True).latents
    merge_lora(student)
    assert set(student.state_dict()) == plain
    torch.testing.assert_close(run_clip(student, steps=1, one_pass=True).latents, adapted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(adapted, run_clip(teacher, steps=1, ref_cfg=1.0, audio_cfg=1.0).latents, atol=1e-3)


def test_guided_teacher_is_the_samplers_guidance(teacher: Networks) -> None:
    """One step from noise with both."""
    config, frames = teacher.config, teacher.config.clip_frames
    generator = torch.Generator().manual_seed(3)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    channels, side = config.vae.latent_channels, config.size // config.vae.downscale
    batch = ClipBatch(
        ids=["a", "b"],
        quality=torch.ones(2),
        latents=randn(2, frames, channels, side, side),
        weights=torch.ones(2, frames, 1, side, side),
        portrait=randn(2, channels, side, side),
        motion=randn(2, config.motion_frames, channels, side, side),
        audio=randn(2, frames, config.condition.audio_window, config.audio.layers, config.audio.dim),
    )
    guided_teacher = GuidedTeacher(teacher, SCHEDULE)
    conditioning = guided_teacher.condition(batch)
    x_t, t = randn(*batch.latents.shape), torch.tensor([500, 900])
    scales = torch.tensor([[2.0, 6.5], [1.0, 0.0]])
    guided, audio_alone = guided_teacher.predict(x_t, t, scales, conditioning)

    def one(row: int, no_reference: bool, no_audio: bool) -> Tensor:
        drops = {"drop_reference": torch.tensor([no_reference]), "drop_audio": torch.tensor([no_audio])}
        alone = teacher.condition(replace(batch.inputs().select(torch.tensor([row])), **drops))
        now = t[row : row + 1]
        return teacher.predict(x_t[row : row + 1], now, *SCHEDULE.alpha_sigma(now), alone)[0]

    used = branches(2.0, 6.5)
    predictions = torch.stack([one(0, branch.drop_reference, branch.drop_audio) for branch in used])
    expected = combine(predictions, torch.tensor(list(used.values())))
    torch.testing.assert_close(guided[0], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(guided[1], one(1, False, True), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(audio_alone[0], one(0, False, False), atol=1e-4, rtol=1e-4)


# Losses


def spread(*values: float) -> Tensor:
    """Clips (batch, 1, 1, 1, 2) with these values everywhere."""
    return torch.tensor(values)[:, None, None, None, None].expand(-1, 1, 1, 1, 2).clone()


def test_losses_in_every_space_are_those_of_the_converted_predictions() -> None:
    t = torch.tensor([100, 600])
    alpha, sigma = SCHEDULE.alpha_sigma(t)
    x_t, a, b = spread(0.3, -0.2), spread(0.5, 1.0), spread(0.1, -0.4)
    weights = torch.ones_like(a)
    for space, convert in (("eps", SCHEDULE.to_epsilon), ("x0", SCHEDULE.to_x0)):
        expected = (convert(x_t, a, t) - convert(x_t, b, t)).square().flatten(1).mean(1)
        torch.testing.assert_close(sample_losses(a, b, weights, alpha, sigma, space=space), expected)


def test_weights_of_cells_do_not_change_the_scale() -> None:
    alpha, sigma = SCHEDULE.alpha_sigma(torch.tensor([500]))
    a, b = spread(1.0), spread(0.0)
    weights = torch.tensor([1.0, 9.0]).view(1, 1, 1, 1, 2)
    torch.testing.assert_close(sample_losses(a, b, weights, alpha, sigma), torch.tensor([1.0]))
    a[..., 0] = 0.0
    torch.testing.assert_close(sample_losses(a, b, weights, alpha, sigma), torch.tensor([0.9]))


def test_huber_is_square_near_zero_and_linear_far_away() -> None:
    alpha, sigma = SCHEDULE.alpha_sigma(torch.tensor([500, 500]))
    near = sample_losses(
        spread(1e-5, 100.0), spread(0.0, 0.0), torch.ones(2, 1, 1, 1, 1), alpha, sigma, penalty="huber"
    )
    torch.testing.assert_close(near, torch.tensor([1e-10 / 2e-3, 100.0 - 1e-3]), rtol=1e-2, atol=0)


def test_min_snr_is_the_same_measure_in_every_space() -> None:
    """weight * error^2 is the same for noise, velocity and clean sample if SNR is above 1."""
    t = torch.tensor([5, 60, 150])
    alpha, sigma = SCHEDULE.alpha_sigma(t)
    assert (alpha > sigma).all()
    errors = {"eps": alpha, "v": torch.ones(3), "x0": sigma}
    values = [min_snr_weight(alpha, sigma, s, 5.0) * errors[s].square() for s in ("eps", "v", "x0")]
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(values[1], values[2])
    assert min_snr_weight(*SCHEDULE.alpha_sigma(torch.tensor([999])), "v", 5.0).item() == pytest.approx(0.5)


# Step strategies


def exact(x0: Tensor):
    """The v-prediction of a model whose clean sample is always `x0`."""

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (v[:, None, None, None, None] for v in SCHEDULE.alpha_sigma(t))
        return (alpha * x_t - x0) / sigma

    return predict


@pytest.mark.parametrize("name", ["direct", "phased", "trajectory"])
def test_every_strategy_keeps_an_exact_teacher(name: str) -> None:
    """If all steps lead to the same x_0, many small steps equal a large one."""
    strategy = StepStrategy(name, SCHEDULE, steps=6, substeps=4)
    t = torch.tensor(strategy.grid()[:-1] if name == "phased" else SCHEDULE.timesteps(6))
    x0, noise = torch.randn(2, len(t), 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    x_t, model = SCHEDULE.add_noise(x0, noise, t), exact(x0)
    target = strategy.target(x_t, t, model(x_t, t), model, model)
    torch.testing.assert_close(target, model(x_t, t), atol=2e-4, rtol=1e-3)


def test_velocity_between_leads_there() -> None:
    t, s = torch.tensor([999, 500, 165]), torch.tensor([832, 100, -1])
    x_t, x_s = torch.randn(2, 3, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    v = velocity_between(SCHEDULE, x_t, x_s, t, s)
    torch.testing.assert_close(SCHEDULE.ddim_step(v, x_t, t, s), x_s, atol=1e-4, rtol=1e-3)


def test_trajectory_follows_the_teachers_steps(teacher: Networks) -> None:
    """One step of the student reaches the same point as four of the teacher."""
    strategy = StepStrategy("trajectory", SCHEDULE, steps=6, substeps=4)
    x_t, t = torch.randn(1, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([832])

    def bent(x: Tensor, now: Tensor) -> Tensor:
        return torch.sin(3 * x) + now / 1000

    path = [832, 790, 749, 708, 666]
    x = x_t
    for here, following in zip(path, path[1:], strict=False):
        x = SCHEDULE.ddim_step(bent(x, torch.tensor([here])), x, here, following)
    assert strategy.grid()[4:9] == path
    target = strategy.target(x_t, t, bent(x_t, t), bent, bent)
    torch.testing.assert_close(SCHEDULE.ddim_step(target, x_t, 832, 666), x, atol=1e-5, rtol=1e-4)


def test_phased_asks_the_student_only_within_the_phase() -> None:
    strategy = StepStrategy("phased", SCHEDULE, steps=6, substeps=4)
    asked: list[int] = []

    def student(x: Tensor, now: Tensor) -> Tensor:
        asked.extend(now.tolist())
        return torch.zeros_like(x)

    t = torch.tensor([999, 708])  # the first point of a phase, the last one of another
    x_t = torch.randn(2, 1, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    target = strategy.target(x_t, t, torch.ones_like(x_t), student, student)
    assert asked == [957, 708]
    # At the last point the teacher's step already ends at the edge: its own prediction is the target.
    torch.testing.assert_close(target[1], torch.ones_like(x_t[1]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "count"), [("direct", 6), ("trajectory", 6), ("phased", 24)])
def test_drawn_timesteps(name: str, count: int) -> None:
    drawn = StepStrategy(name, SCHEDULE).draw(draws(600)).tolist()
    assert len(set(drawn)) == count and max(drawn) == 999 and min(drawn) >= 0


# Mixer


def terms(**changes: Tensor | tuple[Tensor, Tensor]) -> MixerInputs:
    ones = torch.ones(4)
    values = {"distill": ones, "gt": ones, "teacher_error": ones, "quality": 0.5 * ones, "trust": ones}
    values |= {"gradient_norms": None}
    return MixerInputs(timesteps=torch.tensor([100, 100, 900, 900]), **{**values, **changes})


def weights_of(mixer: Mixer, given: MixerInputs) -> tuple[Tensor, Tensor]:
    return mixer(given, Accelerator(cpu=True))


def test_beyond_scales_of_one_only_the_teacher_knows() -> None:
    scales = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 2.0], [2.0, 6.5]])
    trust = trust_in_truth(scales, 1.0)
    torch.testing.assert_close(trust, torch.tensor([1.0, 1.0, 0.3679, 0.0015]), atol=1e-4, rtol=0)
    assert trust_in_truth(scales, 0.0).min() == 1
    for strategy in ("constant", "ratio", "confidence"):
        to_teacher, to_truth = weights_of(Mixer(strategy, 0.5, 1000), terms(trust=trust))
        torch.testing.assert_close(to_truth, 0.5 * trust)
        torch.testing.assert_close(to_teacher + to_truth, torch.ones(4))


def test_constant_mixer() -> None:
    teacher_weight, truth_weight = weights_of(Mixer("constant", 0.7, 1000), terms())
    torch.testing.assert_close(teacher_weight, torch.full((4,), 0.7))
    torch.testing.assert_close(truth_weight, torch.full((4,), 0.3))


def test_ratio_mixer_evens_out_the_scales_per_noise_level() -> None:
    given = terms(distill=torch.tensor([10.0, 10.0, 1.0, 1.0]), gt=torch.tensor([1.0, 1.0, 4.0, 4.0]))
    teacher_weight, truth_weight = weights_of(Mixer("ratio", 0.5, 1000), given)
    torch.testing.assert_close(teacher_weight * given.distill, truth_weight * given.gt)


def test_grad_norm_mixer_evens_out_the_gradients() -> None:
    norms = (torch.tensor(8.0), torch.tensor(2.0))
    teacher_weight, truth_weight = weights_of(Mixer("grad_norm", 0.5, 1000), terms(gradient_norms=norms))
    torch.testing.assert_close(teacher_weight * 8.0, truth_weight * 2.0)


def test_confidence_mixer_trusts_whoever_knows_better() -> None:
    mixer = Mixer("confidence", 0.5, 1000)
    given = terms(teacher_error=torch.tensor([1.0, 3.0, 1.0, 1.0]), quality=torch.tensor([0.5, 0.5, 0.0, 1.0]))
    share, truth = weights_of(mixer, given)
    torch.testing.assert_close(share + truth, torch.ones(4))
    assert share[0] > share[1], "a teacher that errs more is followed less"
    assert share[2] > share[3], "bad footage is followed less than good footage"
    assert share.min() >= 0.1 and share.max() <= 0.9


def test_running_means_are_part_of_the_state() -> None:
    mixer = Mixer("ratio", 0.5, 1000)
    weights_of(mixer, terms(distill=torch.tensor([10.0, 10.0, 1.0, 1.0])))
    again = Mixer("ratio", 0.5, 1000)
    again.load_state_dict(mixer.state_dict())
    for a, b in zip(weights_of(mixer, terms()), weights_of(again, terms()), strict=True):
        assert torch.equal(a, b)


def test_gradient_checkpointing_changes_nothing_but_memory(teacher: Networks) -> None:
    gradients = []
    for checkpointing in (False, True):
        student = student_of(teacher, trained=True).requires_grad_(True)
        student.denoising_unet.gradient_checkpointing = checkpointing
        config = replace(student.config)
        side = config.size // config.vae.downscale
        generator = torch.Generator().manual_seed(0)
        x, motion = torch.randn(2, 1, 2, config.vae.latent_channels, side, side, generator=generator)
        audio = torch.randn(
            1, 2, config.condition.audio_window, config.audio.layers, config.audio.dim, generator=generator
        )
        conditioning = student.condition(ClipInputs(x[:, 0], motion, audio, scales=torch.tensor([[2.0, 3.0]])))
        t = torch.tensor([500])
        student.predict(x, t, *SCHEDULE.alpha_sigma(t), conditioning).square().mean().backward()
        gradients.append({n: p.grad for n, p in student.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4)
