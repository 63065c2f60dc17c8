# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""TRL's correction for the mismatch to the engine, and the weight of a trajectory: which product is applied where."""

import math

import pytest
import torch

from .engine import lora, move, trainer_with


CAP, HIGH, BETA, MIRROR_BETA = 1.1, 0.1, 0.2, 0.4


@pytest.fixture(scope="module")
def trainer(policy, tmp_path_factory):
    return trainer_with(
        policy,
        tmp_path_factory.mktemp("correction"),
        peft_config=lora(),
        variant=None,
        importance_sampling_level="trajectory",
        loss_type="dr_grpo",
        epsilon_high=HIGH,
        beta=BETA,
        mirror_beta=MIRROR_BETA,
        steps_per_generation=4,
        vllm_importance_sampling_mode="sequence_truncate",
        vllm_importance_sampling_clip_max=CAP,
    )


def logps_of(trainer, row):
    prompt = row["prompt_ids"][row["prompt_mask"].bool()]
    completion = row["completion_ids"][row["completion_mask"].bool()]
    with torch.no_grad():
        logits = trainer.model(input_ids=torch.cat([prompt, completion])[None]).logits[0].double()
    of_completion = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return of_completion.gather(1, completion[:, None])[:, 0].tolist()


def reverse_kl(logp, anchor, old):
    """Weighted with the token's ratio: its mean over tokens of the older policy is the KL of the current one."""
    return math.exp(logp - old) * (math.exp(anchor - logp) - (anchor - logp) - 1)


def test_policy_term_is_corrected_once_per_trajectory_and_kl_terms_are_not(trainer):
    trainer.vllm_generation.sync_weights()
    # The engine does not hear of this, so that the correction has something to correct.
    move(trainer, 0.01)
    trainer._last_loaded_step = trainer.state.global_step
    trainer.current_gradient_accumulation_steps = 1
    reported = []
    generate = trainer.vllm_generation.generate

    def keep(*args, **kwargs):
        answer = generate(*args, **kwargs)
        reported.extend(zip(answer[1], answer[2], strict=True))
        return answer

    trainer.vllm_generation.generate = keep
    batch = next(iter(trainer.get_train_dataloader()))
    inputs = trainer._prepare_inputs(batch)
    rows = [{name: inputs[name][i] for name in inputs if inputs[name].dim() > 0} for i in range(8)]
    old = [logps_of(trainer, row) for row in rows]
    move(trainer, 0.01)
    loss = trainer.compute_loss(trainer.model, inputs).item()
    new = [logps_of(trainer, row) for row in rows]
    with trainer.model.disable_adapter():
        reference = [logps_of(trainer, row) for row in rows]

    sampled = {tuple(completion): [logp for (logp,) in logps] for completion, logps in reported}
    terms, factors, weights = [], [], []
    for i, row in enumerate(rows):
        tokens = tuple(row["completion_ids"][row["completion_mask"].bool()].tolist())
        by_engine = row["sampling_per_token_logps"][: len(tokens)].tolist()
        assert tokens in sampled
        factors.append(min(CAP, math.exp(sum(old[i]) - sum(by_engine))))
        weights.append(math.exp(sum(new[i]) - sum(old[i])))
        terms.append(-factors[-1] * min(weights[-1], 1 + HIGH) * row["advantages"].item())
        for logp, ref, before in zip(new[i], reference[i], old[i], strict=True):
            terms[-1] += BETA * reverse_kl(logp, ref, before)
            terms[-1] += MIRROR_BETA * reverse_kl(logp, before, before)
    # Something to tell the products apart by: factors and weights that are capped, and such that are not.
    assert min(factors) < 0.9
    assert sum(factor == CAP for factor in factors) not in (0, 8)
    assert sum(weight > 1 + HIGH for weight in weights) not in (0, 8)
    assert loss == pytest.approx(sum(terms) / (8 * trainer.max_completion_length), rel=1e-4)
