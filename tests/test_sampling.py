"""Schedule, guidance, solvers and the sampling of clips."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from fada_core.config import ScheduleConfig
from fada_core.errors import FadaError
from fada_core.models import precondition
from fada_core.sampling.schedule import NoiseSchedule

STEPS = (4, 6, 25, 30, 40)


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
    alphas = NoiseSchedule(config).alphas_cumprod
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
    torch.testing.assert_close(
        precondition.network_input(x_t, other, alpha, sigma, std, has_reference)[4], x_t[4]
    )
    torch.testing.assert_close(
        precondition.velocity(v, x_t, other, alpha, sigma, std, has_reference)[4], v[4]
    )
