"""Clip ranges at FLUX's size and at the zoo's: the same share is clipped at an equal change of the policy."""

import math

import pytest
import torch
import yaml
from imports import ROOT
from rl_fixtures import settings

from mcpipe.objectives.sde import log_prob
from mcpipe.train.rl.policy_gradient import surrogate

STEPS, SAMPLES = 2, 300
FLUX, ZOO = 65_536, 3_456
STATED = {"clip_low": 1e-4, "clip_high": 1e-4}


def clipped_share(divergence, dimensions, stated_for):
    """Share of samples of negative advantage that are clipped after every step moved by ``divergence`` nats."""
    random = torch.Generator().manual_seed(0)
    moved = math.sqrt(2 * divergence / dimensions)  # standard deviations per dimension
    old, new = [], []
    for _ in range(SAMPLES):
        noise = torch.randn(STEPS, dimensions, generator=random)
        old.append(log_prob(noise, torch.zeros(STEPS, dimensions), 1.0))
        new.append(log_prob(noise, torch.full((STEPS, dimensions), moved), 1.0))
    update = settings(update={**STATED, "clip_dimensions": stated_for}).update
    logp = torch.stack(new).double(), torch.stack(old).double()
    objective = surrogate(*logp, -torch.ones(SAMPLES, dtype=torch.float64), update, dimensions)
    return (objective.coefficients == 0).all(1).double().mean().item()


def predicted(divergence):
    """The share of total log ratios ~ N(-K, 2 K / steps) below that of the clip range."""
    limit = FLUX * math.log1p(-STATED["clip_low"])
    spread = math.sqrt(2 * divergence / STEPS)
    return (1 + math.erf((limit + divergence) / spread / math.sqrt(2))) / 2


@pytest.mark.parametrize("divergence", [3.0, 5.0, 8.0])
def test_the_same_share_is_clipped_at_both_sizes_when_the_policy_has_moved_by_the_same(divergence):
    shares = [clipped_share(divergence, size, FLUX) for size in (FLUX, ZOO)]
    assert shares == pytest.approx([predicted(divergence)] * 2, abs=0.08), "three standard errors of 300 samples"


def test_a_range_that_is_not_scaled_clips_nearly_everything_at_the_smaller_size():
    assert clipped_share(5.0, FLUX, FLUX) < 0.35
    assert clipped_share(5.0, ZOO, ZOO) > 0.9


def test_ranges_are_as_stated_at_their_own_size_and_keep_their_product_with_it_at_others():
    update = settings(update={"clip_low": 3e-4, "clip_high": 4e-4, "clip_dimensions": FLUX}).update
    assert update.clips(FLUX) == (3e-4, 4e-4)
    assert update.clips(ZOO) == pytest.approx((3e-4 * FLUX / ZOO, 4e-4 * FLUX / ZOO))
    with pytest.raises(ValueError, match=r"a clip range of 0.0003 at 65,536 dimensions is 1.23 at the 16 of this"):
        update.clips(16)


def test_the_zoos_default_stands_for_the_ratio_noise_that_its_comment_names():
    """The divergence at which the shift of a ratio is the range itself, and the noise of a ratio there."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    stated = yaml.safe_load(text)["rl_update"]
    divergence = stated["clip_low"] * stated["clip_dimensions"]
    noise = {size: math.sqrt(2 * divergence) / size for size in (FLUX, ZOO)}
    clips = stated["clip_low"] * stated["clip_dimensions"] / ZOO
    for number in (f"{divergence:.1f} nats", f"{noise[FLUX]:.1e}", f"{noise[ZOO]:.1e}", f"{clips:.1e}", f"{ZOO:,}"):
        assert number.replace("e-0", "e-") in text.replace("\n  # ", " "), number
