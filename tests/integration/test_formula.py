# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The real trainer's loss and gradient against the formulas of `reference.py`, on random log-probs."""

from importlib.metadata import version

import pytest
import torch
from packaging.version import Version
from trl import GRPOTrainer

from trl_grpo_variants.compat import REDIVIDED
from trl_grpo_variants.objective.divergences import DIVERGENCES
from trl_grpo_variants.objective.policies import POLICY_TERMS
from trl_grpo_variants.objective.token_advantages import TOKEN_ADVANTAGES

from .. import reference
from ..tiny import make_trainer


B, T, MAX_LENGTH = 6, 5, 7
LOSS_TYPES = ["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"]
# Neither a power of two nor equal, so that a wrong factor shows.
ACCUMULATION, STEPS_PER_GENERATION = 3, 6


class ScoredBy:
    """Stands in for the policy's forward pass: gives the log-probs of a leaf whose gradient the test reads."""

    def __init__(self, monkeypatch):
        # A seed at which weights of either sign of advantage lie above the cap, of one sign more than of the other, and
        # others below it.
        generator = torch.Generator().manual_seed(66)

        def random(shift=0.0):
            logps = -1.5 + shift + 0.7 * torch.randn(B, T, generator=generator, dtype=torch.float64)
            return logps.clamp(max=-0.02)

        self.logps = random().float().requires_grad_()
        self.old_logps, self.ref_logps, self.anchor_logps = random(), random(0.3), random(-0.3)
        self.advantages = torch.randn(B, generator=generator, dtype=torch.float64)
        lengths = torch.tensor([5, 3, 1, 0, 4, 5])
        self.completion_mask = (torch.arange(T) < lengths[:, None]).int()
        self.tool_mask = torch.ones(B, T, dtype=torch.int)
        self.tool_mask[0, 2] = self.tool_mask[2, 0] = 0
        self.sampler_factor = torch.rand(B, 1, generator=generator, dtype=torch.float64) + 0.5
        self.entropies = torch.rand(B, T, generator=generator)
        self.tokens = 31.0
        monkeypatch.setattr(
            GRPOTrainer,
            "_get_per_token_logps_and_entropies",
            lambda *args, **kwargs: (self.logps, self.entropies, None),
        )

    def inputs(self, *, anchor=False, tools=True, sampler=False):
        inputs = {
            "prompt_ids": torch.full((B, 2), 2),
            "prompt_mask": torch.ones(B, 2, dtype=torch.int),
            "completion_ids": torch.full((B, T), 3),
            "completion_mask": self.completion_mask,
            "advantages": self.advantages.float(),
            "num_items_in_batch": torch.tensor(self.tokens * STEPS_PER_GENERATION / ACCUMULATION),
            "old_per_token_logps": self.old_logps.float(),
            "ref_per_token_logps": self.ref_logps.float(),
        }
        if anchor:
            inputs["mirror_per_token_logps"] = self.anchor_logps.float()
        if tools:
            inputs["tool_mask"] = self.tool_mask
        if sampler:
            inputs["importance_sampling_ratio"] = self.sampler_factor.float()
        return inputs

    def batch(self, *, anchor=False, tools=True, sampler=False):
        ones = torch.ones(B, T, dtype=torch.float64)
        return reference.Batch(
            logps=self.logps.detach().double().requires_grad_(),
            old_logps=self.old_logps.float().double(),
            ref_logps=self.ref_logps.float().double(),
            anchor_logps=(self.anchor_logps if anchor else self.old_logps).float().double(),
            mask=self.completion_mask * (self.tool_mask if tools else 1),
            advantages=self.advantages.float().double(),
            sampler_factor=self.sampler_factor.float().double() * ones if sampler else ones,
            tokens_per_step=self.tokens,
            max_completion_length=MAX_LENGTH,
            entropies=self.entropies.double(),
        )


@pytest.fixture
def trainer_for(policy_path, tmp_path):
    def make(mode="train", **settings):
        # TRL's own loss, which a test may compare with, has it off before 1.10.
        settings = {"use_bias_correction_kl": True} | settings
        settings |= {
            "max_completion_length": MAX_LENGTH,
            "gradient_accumulation_steps": ACCUMULATION,
            "steps_per_generation": STEPS_PER_GENERATION,
        }
        if settings.get("trainer_class") is not GRPOTrainer:
            # The forward pass that stands in does not look at what it is given.
            settings = {"trim_padding": False, "skip_inert_rows": False} | settings
        if Version(version("trl")) < Version("1.10") and settings.get("loss_type", "dapo") in REDIVIDED:
            pytest.skip("The reference divides as later versions do.")
        trainer = make_trainer(policy_path, tmp_path, **settings)
        trainer.current_gradient_accumulation_steps = ACCUMULATION
        trainer.model.train(mode == "train")
        return trainer

    return make


def assert_equal(trainer, forward, batch, inputs, **formula):
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    expected = reference.loss(batch, **formula) / (
        1 if formula["loss_type"] in ("dapo", "cispo", "vespo") else ACCUMULATION
    )
    expected.backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(forward.logps.grad.double(), batch.logps.grad, rtol=1e-5, atol=1e-7)
    return loss


def logged(trainer, mode="train"):
    """What one call of the loss would log."""
    return {name: values[0] for name, values in trainer._metrics[mode].items()} | trainer._means.pop(mode)


KL = [
    pytest.param({}, id="no_kl"),
    pytest.param({"beta": 0.3}, id="reference"),
    pytest.param({"mirror_beta": 0.4}, id="mirror"),
    pytest.param({"beta": 0.3, "mirror_beta": 0.4}, id="dual"),
]


# What TRL does not compute, with the ways to sum it.
OWN_TERMS = [
    pytest.param(name, loss_type, id=f"{name}-{loss_type}")
    for name, part in POLICY_TERMS.items()
    if part.function is not None
    for loss_type in ["dr_grpo", "dapo", "bnpo", *([] if part.is_per_trajectory else ["grpo", "luspo"])]
]


# Of other terms 0.3 and 0.4.
BOUNDS = {"binary_tv": (0.1, 0.15), "binary_kl": (0.04, 0.05), "dynamic": (0.1, 0.15)}
# Others than the defaults.
POLICY_SETTINGS = {
    "binary_tv": [{"anchor": "trainer"}],
    "binary_kl": [{"anchor": "trainer"}],
    "preserving": [{"keep_low": 0.5, "keep_high": 0.25, "dual_clip": 2.0}],
    "dynamic": [{"max_ratio": 1.3}],
    "tapered": [{"level": "token"}, {"level": "sequence"}],
    "covariance": [{"penalty": 0.5, "share": 0.4}],
    "flipped": [{"quantile": 0.3, "max_weight": 1.5}],
}


def bounds_for(name):
    return dict(zip(("epsilon", "epsilon_high"), BOUNDS.get(name, (0.3, 0.4)), strict=True))


@pytest.mark.parametrize("kl", KL)
@pytest.mark.parametrize(("name", "loss_type"), OWN_TERMS)
def test_policy_term(trainer_for, monkeypatch, name, loss_type, kl):
    bounds = bounds_for(name)
    trainer = trainer_for(policy_loss=name, loss_type=loss_type, **bounds, **kl)
    forward = ScoredBy(monkeypatch)
    formula = {"policy": name, "loss_type": loss_type, **bounds, **kl}
    assert_equal(trainer, forward, forward.batch(), forward.inputs(), **formula)
    # Not what stock GRPO would do with the same.
    batch = forward.batch()
    reference.loss(batch, **formula | {"policy": "clipped"}).backward()
    own = forward.logps.grad * (1 if loss_type == "dapo" else ACCUMULATION)
    assert (own - batch.logps.grad).norm() > 0.02 * batch.logps.grad.norm()


def test_every_setting_of_a_term_is_tried():
    for name, part in POLICY_TERMS.items():
        own = {setting.name for setting in part.settings if part.is_own(setting)}
        assert own == {setting for settings in POLICY_SETTINGS.get(name, []) for setting in settings}


@pytest.mark.parametrize(
    ("name", "settings"),
    [(name, settings) for name, several in POLICY_SETTINGS.items() for settings in several],
    ids=str,
)
def test_settings_of_a_policy_term(trainer_for, monkeypatch, name, settings):
    trainer = trainer_for(
        policy_loss=name, policy_loss_kwargs=settings, loss_type="dr_grpo", beta=0.3, **bounds_for(name)
    )
    forward = ScoredBy(monkeypatch)
    formula = {"policy": name, "policy_settings": settings, "loss_type": "dr_grpo", "beta": 0.3, **bounds_for(name)}
    assert_equal(trainer, forward, forward.batch(), forward.inputs(), **formula)


@pytest.mark.parametrize("correction", [True, False])
@pytest.mark.parametrize("anchor", ["sampler", "trainer"])
@pytest.mark.parametrize("name", ["binary_tv", "binary_kl"])
def test_a_ratio_to_the_engine_holds_its_correction(trainer_for, monkeypatch, name, anchor, correction):
    """With the trainer's log-probs TRL's factor corrects the mismatch to the engine, as for any other term."""
    trainer = trainer_for(
        policy_loss=name, policy_loss_kwargs={"anchor": anchor}, loss_type="dapo", mirror_beta=0.4, **bounds_for(name)
    )
    trainer.use_vllm = correction
    forward = ScoredBy(monkeypatch)
    sampled = (forward.old_logps + 0.3 * torch.randn(B, T, generator=torch.Generator().manual_seed(0))).clamp(
        max=-0.01
    )
    inputs = forward.inputs(sampler=correction) | {"sampling_per_token_logps": sampled.float()}
    # A token that the engine gave no log-prob for.
    inputs["sampling_per_token_logps"][1, 1] = torch.nan
    batch = forward.batch(sampler=correction and anchor == "trainer")
    batch.sampling_logps = sampled.float().double()
    batch.sampling_logps[1, 1] = batch.old_logps[1, 1]
    settings = {"policy": name, "policy_settings": {"anchor": anchor}, "loss_type": "dapo", "mirror_beta": 0.4}
    assert_equal(trainer, forward, batch, inputs, **settings, **bounds_for(name))
    assert logged(trainer)[f"{name}/dropped"] > 0


@pytest.mark.parametrize("anchor", ["sampler", "trainer"])
def test_the_engine_is_another_policy_at_the_first_step_too(trainer_for, monkeypatch, anchor):
    trainer = trainer_for(
        policy_loss="binary_tv", policy_loss_kwargs={"anchor": anchor}, loss_type="dapo", epsilon=0.01
    )
    forward = ScoredBy(monkeypatch)
    inputs = forward.inputs() | {"sampling_per_token_logps": forward.old_logps.float()}
    del inputs["old_per_token_logps"]
    trainer.compute_loss(trainer.model, inputs)
    assert ("binary_tv/dropped" in logged(trainer)) == (anchor == "sampler")


TOKEN_SETTINGS = {
    "entropy_shaped": {"alpha": 0.7, "kappa": 3.0},
    "probability_weighted": {"weight": 0.6},
}
OWN_TOKEN_ADVANTAGES = [name for name, part in TOKEN_ADVANTAGES.items() if part.function is not None]


@pytest.mark.parametrize("given", [True, False], ids=["settings", "defaults"])
@pytest.mark.parametrize(
    "settings",
    [
        *[{"loss_type": loss_type} for loss_type in ("grpo", "dr_grpo", "dapo", "bnpo", "luspo")],
        {"level": "sequence", "loss_type": "grpo", "beta": 0.3},
        {"level": "none", "loss_type": "grpo", "mirror_beta": 0.4},
        {"policy": "geometric", "loss_type": "dapo", "beta": 0.3, "mirror_beta": 0.4},
        {"policy": "flipped", "loss_type": "bnpo"},
        {"policy": "binary_tv", "loss_type": "dr_grpo"},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", OWN_TOKEN_ADVANTAGES)
def test_token_advantage(trainer_for, monkeypatch, name, settings, given):
    """With TRL's own policy term as with others."""
    kwargs = TOKEN_SETTINGS[name] if given else {}
    names = {"level": "importance_sampling_level", "policy": "policy_loss"}
    trainer = trainer_for(
        token_advantage=name,
        token_advantage_kwargs=kwargs,
        **{names.get(key, key): value for key, value in settings.items()},
    )
    trainer.use_vllm = True
    forward = ScoredBy(monkeypatch)
    formula = settings | {"token_advantage": name, "token_settings": kwargs}
    inputs, batch = forward.inputs(sampler=True), forward.batch(sampler=True)
    assert_equal(trainer, forward, batch, inputs, **formula)
    # It is no other way to write uniform ones.
    batch = forward.batch(sampler=True)
    reference.loss(batch, **formula | {"token_advantage": "uniform"}).backward()
    own = forward.logps.grad * (1 if settings["loss_type"] == "dapo" else ACCUMULATION)
    assert (own - batch.logps.grad).norm() > 0.01 * batch.logps.grad.norm()


def test_no_gradient_is_taken_of_the_entropies_of_advantages(trainer_for, monkeypatch):
    trainer = trainer_for(token_advantage="entropy_shaped", loss_type="grpo")
    forward = ScoredBy(monkeypatch)
    forward.entropies.requires_grad_()
    loss = trainer.compute_loss(trainer.model, forward.inputs())
    (gradient,) = torch.autograd.grad(loss, forward.entropies, allow_unused=True)
    assert gradient is None


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("kl", KL[1:])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergence(trainer_for, monkeypatch, name, kl, level):
    trainer = trainer_for(
        kl_estimator=name, loss_type="dr_grpo", importance_sampling_level=level, scale_rewards="none", **kl
    )
    forward = ScoredBy(monkeypatch)
    formula = {"estimator": name, "loss_type": "dr_grpo", "level": level, **kl}
    assert_equal(trainer, forward, forward.batch(), forward.inputs(), **formula)


@pytest.mark.parametrize("kl", KL)
@pytest.mark.parametrize("loss_type", ["dr_grpo", "dapo", "bnpo"])
@pytest.mark.parametrize("clip", ["upper", "two_sided", "none"])
def test_trajectory(trainer_for, monkeypatch, clip, loss_type, kl):
    trainer = trainer_for(
        importance_sampling_level="trajectory", trajectory_clip=clip, loss_type=loss_type, epsilon_high=0.5, **kl
    )
    forward = ScoredBy(monkeypatch)
    assert_equal(
        trainer,
        forward,
        forward.batch(),
        forward.inputs(),
        level="trajectory",
        clip=clip,
        loss_type=loss_type,
        epsilon_high=0.5,
        **kl,
    )


@pytest.mark.parametrize("kl", KL)
@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo", "bnpo", "luspo"])
def test_no_importance_sampling(trainer_for, monkeypatch, loss_type, kl):
    trainer = trainer_for(importance_sampling_level="none", loss_type=loss_type, **kl)
    forward = ScoredBy(monkeypatch)
    assert_equal(trainer, forward, forward.batch(), forward.inputs(), level="none", loss_type=loss_type, **kl)


@pytest.mark.parametrize("kl", KL[1:])
@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo", "bnpo", "luspo"])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_kl_terms_beside_trls_policy_term(trainer_for, monkeypatch, level, loss_type, kl):
    trainer = trainer_for(loss_type=loss_type, importance_sampling_level=level, scale_rewards="none", **kl)
    forward = ScoredBy(monkeypatch)
    assert_equal(trainer, forward, forward.batch(), forward.inputs(), level=level, loss_type=loss_type, **kl)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_mirror_adds_its_kl_to_whatever_trl_computes(trainer_for, monkeypatch, loss_type, level):
    settings = {"loss_type": loss_type, "importance_sampling_level": level, "beta": 0.1}
    results = {}
    for mirror_beta in (0.0, 0.4):
        trainer = trainer_for(mirror_beta=mirror_beta, **settings)
        forward = ScoredBy(monkeypatch)
        loss = trainer.compute_loss(trainer.model, forward.inputs())
        loss.backward()
        results[mirror_beta] = loss.double(), forward.logps.grad.double()

    batch = forward.batch()
    batch.advantages.zero_()
    term = reference.loss(batch, level=level, loss_type=loss_type, mirror_beta=0.4)
    term = term / (1 if loss_type in ("dapo", "cispo", "vespo") else ACCUMULATION)
    term.backward()
    torch.testing.assert_close(results[0.4][0] - results[0.0][0], term, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(results[0.4][1] - results[0.0][1], batch.logps.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(
            {"importance_sampling_level": "trajectory", "loss_type": "dr_grpo", "mirror_beta": 0.4}, id="tic"
        ),
        pytest.param({"importance_sampling_level": "none", "loss_type": "grpo", "mirror_beta": 0.4}, id="no_is"),
        pytest.param({"loss_type": "dr_grpo", "mirror_beta": 0.4, "beta": 0.3}, id="dual"),
    ],
)
def test_older_anchor_and_evaluation_mode(trainer_for, monkeypatch, settings):
    trainer = trainer_for(mode="eval", mirror_sync_steps=8, **settings)
    forward = ScoredBy(monkeypatch)
    batch = forward.batch(anchor=True)
    formula = {"level": settings.get("importance_sampling_level", "token")} | {
        k: v for k, v in settings.items() if k != "importance_sampling_level"
    }
    loss = trainer.compute_loss(trainer.model, forward.inputs(anchor=True))
    torch.testing.assert_close(loss.double(), reference.loss(batch, **formula), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("level", ["trajectory", "none"])
def test_vllm_correction_multiplies_the_policy_term_and_not_the_kl(trainer_for, monkeypatch, level):
    trainer = trainer_for(importance_sampling_level=level, loss_type="dr_grpo", beta=0.3, mirror_beta=0.4)
    trainer.use_vllm = True
    forward = ScoredBy(monkeypatch)
    assert_equal(
        trainer,
        forward,
        forward.batch(sampler=True),
        forward.inputs(sampler=True),
        level=level,
        loss_type="dr_grpo",
        beta=0.3,
        mirror_beta=0.4,
    )


@pytest.mark.parametrize("level", ["trajectory", "none"])
def test_off_policy_sequences_are_masked_as_in_trl(trainer_for, monkeypatch, level):
    trainer = trainer_for(importance_sampling_level=level, loss_type="dr_grpo", off_policy_mask_threshold=0.1)
    forward = ScoredBy(monkeypatch)
    batch = forward.batch()
    keep = GRPOTrainer.get_off_policy_mask(
        batch.advantages[:, None], batch.logps, batch.old_logps, batch.mask, off_policy_threshold=0.1
    )
    assert 0 < keep.sum() < B
    batch.sampler_factor = batch.sampler_factor * keep
    assert_equal(trainer, forward, batch, forward.inputs(), level=level, loss_type="dr_grpo")


def test_high_entropy_tokens_select_the_score(trainer_for, monkeypatch):
    trainer = trainer_for(importance_sampling_level="none", loss_type="dr_grpo", top_entropy_quantile=0.25)
    forward = ScoredBy(monkeypatch)
    batch = forward.batch()
    threshold = forward.entropies[batch.mask.bool()].quantile(0.75)
    batch.sampler_factor = batch.sampler_factor * (forward.entropies >= threshold)
    assert_equal(trainer, forward, batch, forward.inputs(), level="none", loss_type="dr_grpo")


def test_without_old_logps_every_ratio_is_one(trainer_for, monkeypatch):
    """As TRL does when generation and optimisation are aligned: the gradient is the on-policy one."""
    trainer = trainer_for(importance_sampling_level="trajectory", loss_type="dr_grpo", mirror_beta=0.4)
    forward = ScoredBy(monkeypatch)
    forward.old_logps = forward.logps.detach().double()
    inputs = forward.inputs()
    del inputs["old_per_token_logps"]
    assert_equal(trainer, forward, forward.batch(), inputs, level="trajectory", loss_type="dr_grpo")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "kl",
    [
        {},
        {"beta": 0.3, "mirror_beta": 0.4},
        {"beta": 0.3, "mirror_beta": 0.4, "kl_estimator": "sequence_squared"},
        {"beta": 0.3, "kl_placement": "reward"},
    ],
    ids=["no_kl", "dual", "sequence_squared", "reward"],
)
@pytest.mark.parametrize(
    "settings",
    [
        {"importance_sampling_level": "trajectory", "trajectory_clip": "upper"},
        {"importance_sampling_level": "trajectory", "trajectory_clip": "two_sided"},
        {"importance_sampling_level": "trajectory", "trajectory_clip": "none"},
        {"importance_sampling_level": "none"},
        {"importance_sampling_level": "token", "reward_variance_epsilon": 1e-5},
        *[{"policy_loss": name} for name in POLICY_TERMS if name not in ("clipped", "score", "trajectory")],
        {"policy_loss": "tapered", "policy_loss_kwargs": {"level": "token"}},
        {"policy_loss": "tapered", "token_advantage": "entropy_shaped"},
        {"policy_loss": "score", "token_advantage": "probability_weighted"},
    ],
    ids=str,
)
@pytest.mark.parametrize("extreme", [-1e4, 1e4])
def test_extremes_are_finite(trainer_for, monkeypatch, extreme, settings, kl, dtype):
    if extreme > 0 and settings.get("importance_sampling_level") == "token" and not kl:
        pytest.skip("stock TRL's own policy term: its ratio is unbounded for negative advantages")
    trainer = trainer_for(loss_type="dr_grpo", **settings, **kl)
    forward = ScoredBy(monkeypatch)
    forward.logps = forward.logps.detach().to(dtype).requires_grad_()
    forward.old_logps[0] -= extreme
    forward.ref_logps[1] += extreme
    forward.anchor_logps[4] += extreme
    forward.completion_mask[5] = 0
    inputs = forward.inputs(anchor=bool(kl))

    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()

    assert loss.isfinite()
    assert forward.logps.grad.isfinite().all()


SKIPPING = [
    pytest.param({"importance_sampling_level": "token"}, id="stock"),
    pytest.param({"importance_sampling_level": "sequence"}, id="stock_sequence"),
    pytest.param({"importance_sampling_level": "trajectory", "trajectory_clip": "none"}, id="trajectory"),
    pytest.param({"importance_sampling_level": "none", "mirror_beta": 0.4}, id="mirror"),
    pytest.param({"token_advantage": "entropy_shaped"}, id="entropy_shaped"),
    pytest.param({"policy_loss": "flipped", "token_advantage": "probability_weighted"}, id="flipped"),
    pytest.param({"policy_loss": "binary_kl", "beta": 0.3, "kl_placement": "reward"}, id="binary_kl"),
    pytest.param({"beta": 0.3, "mirror_beta": 0.4, "mask_zero_variance_groups": True}, id="masked"),
]


@pytest.mark.parametrize("settings", SKIPPING)
def test_rows_that_are_skipped_count_nowhere(trainer_for, monkeypatch, settings):
    """Whatever their old log-probs are: their own come back as zeros, at which no ratio is to be taken."""
    skipped = torch.arange(B) % 3 == 1
    results = []
    for old in (-100.0, 0.0):
        trainer = trainer_for(skip_inert_rows=True, loss_type="dr_grpo", **settings)
        trainer._forward = lambda score, *args, needed, **kwargs: score(*args, **kwargs)
        forward = ScoredBy(monkeypatch)
        forward.logps.data[skipped], forward.old_logps[skipped], forward.advantages[skipped] = 0.0, old, 0.0
        inputs = forward.inputs() | {"needed": ~skipped}
        if trainer.args.mask_zero_variance_groups:
            inputs["has_variance"] = ~skipped
        loss = trainer.compute_loss(trainer.model, inputs)
        loss.backward()
        metrics = logged(trainer)
        results.append((loss, forward.logps.grad, torch.tensor(list(metrics.values()))))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    assert results[0][1][~skipped].abs().max() > 0 == results[0][1][skipped].abs().max()
    # The means are those over the tokens of the other rows.
    batch = forward.batch()
    mask = batch.mask.bool() & ~skipped[:, None]
    log_ratio = (batch.logps - batch.old_logps).detach()
    assert metrics["entropy"] == pytest.approx(forward.entropies[mask].mean().item(), rel=1e-5)
    if trainer.args.mirror_beta:
        divergence = log_ratio.exp() * log_ratio - log_ratio.exp() + 1
        assert metrics["mirror_kl"] == pytest.approx(divergence[mask].mean().item(), rel=1e-5)
    log_weights = torch.where(mask, log_ratio, 0.0).sum(1)[mask.any(1)]
    assert metrics["trajectory/log_weight_std"] == pytest.approx(log_weights.std(correction=0).item(), rel=1e-5)


@pytest.mark.parametrize("tokens", [31.0, 0.0])
@pytest.mark.parametrize("loss_type", ["dr_grpo", "bnpo", "dapo", "grpo", "luspo"])
@pytest.mark.parametrize(
    "level", ["trajectory", "none", "token", "sequence", "tapered", "covariance", "flipped", "dynamic", "binary_kl"]
)
def test_batch_without_any_token_has_zero_gradient(trainer_for, monkeypatch, level, loss_type, tokens):
    if level == "trajectory" and loss_type in ("grpo", "luspo"):
        pytest.skip("refused")
    chosen = {"policy_loss" if level in POLICY_TERMS and level != "trajectory" else "importance_sampling_level": level}
    estimator = "k3" if level in ("trajectory", "none") else "sequence_squared"
    trainer = trainer_for(**chosen, loss_type=loss_type, beta=0.3, mirror_beta=0.4, kl_estimator=estimator)
    forward = ScoredBy(monkeypatch)
    forward.tokens = tokens
    forward.completion_mask.zero_()

    loss = trainer.compute_loss(trainer.model, forward.inputs())
    loss.backward()

    assert loss.item() == 0
    assert forward.logps.grad.abs().max() == 0


def test_metrics_are_averages_over_tokens_and_sequences(trainer_for, monkeypatch):
    trainer = trainer_for(
        importance_sampling_level="trajectory", loss_type="dr_grpo", epsilon_high=0.5, beta=0.3, mirror_beta=0.4
    )
    forward = ScoredBy(monkeypatch)
    trainer.compute_loss(trainer.model, forward.inputs())
    metrics = logged(trainer)

    batch = forward.batch()
    mask = batch.mask.bool()
    log_ratio = (batch.logps - batch.old_logps).detach()
    ratio = log_ratio.exp()
    d = (batch.ref_logps - batch.logps).detach()
    log_weights = torch.where(mask, log_ratio, 0.0).sum(1)[mask.any(1)]
    weights = log_weights.exp()
    advantages = batch.advantages[mask.any(1)]
    assert metrics["kl"] == pytest.approx((ratio * (d.exp() - d - 1))[mask].mean().item(), rel=1e-5)
    assert metrics["mirror_kl"] == pytest.approx((ratio * log_ratio - ratio + 1)[mask].mean().item(), rel=1e-5)
    assert metrics["trajectory/log_weight_std"] == pytest.approx(log_weights.std(correction=0).item(), rel=1e-5)
    ess = weights.sum() ** 2 / (len(weights) * (weights**2).sum())
    assert metrics["trajectory/ess"] == pytest.approx(ess.item(), rel=1e-5)
    clipped = weights > 1.5
    assert (clipped & (advantages < 0)).sum() > (clipped & (advantages > 0)).sum() > 0
    assert metrics["trajectory/clipped_positive"] == (clipped & (advantages > 0)).double().mean().item()
    assert metrics["trajectory/clipped_negative"] == (clipped & (advantages < 0)).double().mean().item()
    assert not [name for name in metrics if name.startswith("clip_ratio")]


def test_advantages_of_a_subclass_may_be_per_token(trainer_for, monkeypatch):
    """TRL accepts (B, T) from subclasses; constant ones are the same as (B,)."""
    trainer = trainer_for(importance_sampling_level="none", loss_type="dr_grpo", mirror_beta=0.4)
    forward = ScoredBy(monkeypatch)
    inputs = forward.inputs()
    inputs["advantages"] = inputs["advantages"].unsqueeze(1).expand(B, T)
    assert_equal(trainer, forward, forward.batch(), inputs, level="none", loss_type="dr_grpo", mirror_beta=0.4)


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo", "bnpo", "cispo"])
@pytest.mark.parametrize("level", ["token", "sequence", "none"])
def test_masked_groups_keep_normaliser_entropy_and_kl_metric(trainer_for, monkeypatch, loss_type, level):
    """The mask takes the KL terms of its rows and nothing else; their advantages are zero already."""
    if level == "none" and loss_type == "cispo":
        pytest.skip("refused")
    results = {}
    for masked in (True, False):
        trainer = trainer_for(
            importance_sampling_level=level,
            loss_type=loss_type,
            beta=0.3,
            mirror_beta=0.4,
            entropy_coef=0.1,
            mask_zero_variance_groups=True,
        )
        forward = ScoredBy(monkeypatch)
        forward.advantages[[1, 4]] = 0
        inputs = forward.inputs()
        if masked:
            inputs["has_variance"] = forward.advantages != 0
        else:
            # Rows without KL, made by hand: there the anchors are the policy.
            forward.old_logps[[1, 4]] = forward.ref_logps[[1, 4]] = forward.logps.detach()[[1, 4]].double()
            inputs |= {key: forward.inputs()[key] for key in ("old_per_token_logps", "ref_per_token_logps")}
        loss = trainer.compute_loss(trainer.model, inputs)
        loss.backward()
        results[masked] = loss, forward.logps.grad, logged(trainer)

    torch.testing.assert_close(results[True][:2], results[False][:2], rtol=1e-5, atol=1e-7)
    assert results[True][2]["entropy"] == results[False][2]["entropy"]
    batch = ScoredBy(monkeypatch).batch()
    mask, d = batch.mask.bool(), (batch.ref_logps - batch.logps).detach()
    ratio = (batch.logps - batch.old_logps).detach().exp()
    if level == "sequence":
        ratio = (torch.where(mask, ratio.log(), 0.0).sum(1, keepdim=True) / mask.sum(1, keepdim=True)).exp()
    kl = (ratio * (d.exp() - d - 1))[mask].mean().item()
    assert results[True][2]["kl"] == pytest.approx(kl, rel=1e-5)


@pytest.mark.parametrize("use_bias_correction_kl", [True, False])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_kl_metric_is_trls_whatever_is_masked(trainer_for, monkeypatch, level, use_bias_correction_kl):
    kl = {}
    for name, settings in {
        "stock": {"trainer_class": GRPOTrainer},
        "trimmed": {"skip_inert_rows": True},
        "unmasked": {"variant": "reference"},
        "nothing_masked": {"variant": "reference", "mask_zero_variance_groups": True},
        "masked": {"variant": "reference", "mask_zero_variance_groups": True},
    }.items():
        settings |= {"importance_sampling_level": level, "use_bias_correction_kl": use_bias_correction_kl}
        trainer = trainer_for(beta=0.3, **settings)
        forward = ScoredBy(monkeypatch)
        inputs = forward.inputs()
        if settings.get("mask_zero_variance_groups"):
            inputs["has_variance"] = (
                torch.ones(B, dtype=torch.bool) if name == "nothing_masked" else torch.arange(B) > 2
            )
        trainer.compute_loss(trainer.model, inputs)
        kl[name] = trainer._metrics["train"]["kl"][0] if name == "stock" else logged(trainer)["kl"]
    assert kl == {name: pytest.approx(kl["stock"], rel=1e-5) for name in kl}


@pytest.mark.parametrize("settings", [{}, {"mirror_beta": 0.4}, {"policy_loss": "score", "mirror_beta": 0.4}], ids=str)
def test_a_kl_in_the_reward_is_none_in_the_loss_and_logged_as_if_it_were(trainer_for, monkeypatch, settings):
    trainer = trainer_for(beta=0.3, kl_placement="reward", loss_type="dr_grpo", **settings)
    forward = ScoredBy(monkeypatch)
    formula = {"policy" if name == "policy_loss" else name: value for name, value in settings.items()}
    assert_equal(trainer, forward, forward.batch(), forward.inputs(), loss_type="dr_grpo", **formula)
    batch = forward.batch()
    d, ratio = (batch.ref_logps - batch.logps).detach(), (batch.logps - batch.old_logps).detach().exp()
    expected = (ratio * (d.exp() - d - 1))[batch.mask.bool()].mean().item()
    assert logged(trainer)["kl"] == pytest.approx(expected, rel=1e-5)


def test_policy_loss_metric_holds_our_terms_too(trainer_for, monkeypatch):
    trainer = trainer_for(
        importance_sampling_level="trajectory", loss_type="dr_grpo", mirror_beta=0.4, beta=0.3, entropy_coef=0.1
    )
    forward = ScoredBy(monkeypatch)
    trainer.compute_loss(trainer.model, forward.inputs())

    expected = reference.loss(forward.batch(), level="trajectory", loss_type="dr_grpo", mirror_beta=0.4, beta=0.3)
    assert trainer._metrics["train"]["policy_loss"][0] == pytest.approx(expected.item(), rel=1e-5)
