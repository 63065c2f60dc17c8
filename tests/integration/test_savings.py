# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Leaving out padding and inert rows changes what an update costs, and nothing else."""

import dataclasses

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
from trl import GRPOTrainer
from trl.trainer import utils as trl_utils

from trl_grpo_variants import get_variant
from trl_grpo_variants.forward.lines import LineForward
from trl_grpo_variants.forward.trimmed import TrimmedForward

from ..tiny import WORDS, make_trainer, own_variants
from .test_parity import TIMES


LOSS_TYPES = ["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"]
# Two optimizer steps on one rollout of 24 rows whose lengths differ, so that the second one is off policy.
RUN = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 3,
    "steps_per_generation": 6,
    "num_generations": 4,
    "max_completion_length": 24,
    "max_steps": 2,
    "optim": "sgd",
    "learning_rate": 0.5,
    "max_grad_norm": 0.0,
    "generation_kwargs": {"pad_token_id": 0},
}
has_lines = pytest.mark.skipif(not hasattr(trl_utils, "add_fused_lm_head"), reason="TRL scores no lines")
LINES = {"packed": {"pack_rollout": True}, "shared": {"share_prompt": True}}
ON = {"trim_padding": True, "skip_inert_rows": True}
OFF = {"trim_padding": False, "skip_inert_rows": False}


def every_other_group(completion_ids, **_):
    """Rewards of which half the groups have no variance."""
    return [float(len(ids)) if (i // 4) % 2 else 1.0 for i, ids in enumerate(completion_ids)]


def every_other_group_in_part(completion_ids, **_):
    """The same of successes and failures, which any advantage takes."""
    return [float(len(ids) % 2) if (i // 4) % 2 else 1.0 for i, ids in enumerate(completion_ids)]


def no_advantage_is_zero(completion_ids, **_):
    return [float((i % 4) ** 2) for i in range(len(completion_ids))]


def equal_rewards(completion_ids, **_):
    return [1.0] * len(completion_ids)


class Counted:
    """Counts the tokens that a trainer's model computes in forward passes with gradients."""

    def __init__(self, trainer):
        self.tokens = self.passes = 0
        trainer.model.get_input_embeddings().register_forward_hook(self.count)

    def count(self, _, inputs, output):
        if torch.is_grad_enabled():
            self.tokens += inputs[0].numel()
            self.passes += 1


def update(policy_path, output_dir, **settings):
    """What a run has added to the parameters, and the trainer."""
    trainer = make_trainer(policy_path, output_dir, **({"reward_funcs": every_other_group} | RUN | settings))
    if hasattr(trainer, "_forward"):
        # Rows as few and short as these would not be divided.
        trainer._forward = dataclasses.replace(trainer._forward, split_cost=0)
    trainer.counted = Counted(trainer)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.train()
    after = list(trainer.model.parameters())
    return torch.cat([(b - a).detach().flatten() for a, b in zip(before, after, strict=True)]), trainer


def assert_same_update(policy_path, output_dir, reference=None, saves=True, **settings):
    """Against stock TRL where that can be, and otherwise against the variant with every row as padded."""
    reference = {"trainer_class": GRPOTrainer} if reference is None else reference
    expected, padded = update(policy_path, output_dir, **(settings | reference))
    actual, trimmed = update(policy_path, output_dir, **(settings | ON))
    assert expected.norm() > 1e-3
    assert (actual - expected).norm() <= 1e-5 * expected.norm()
    if saves:
        assert trimmed.counted.tokens < 0.8 * padded.counted.tokens
    return padded, trimmed


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_stock_losses(policy_path, tmp_path, loss_type, level):
    assert_same_update(policy_path, tmp_path, loss_type=loss_type, importance_sampling_level=level)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_stock_losses_with_a_reference(policy_path, tmp_path, loss_type):
    assert_same_update(policy_path, tmp_path, loss_type=loss_type, beta=0.1)


# Of those that TRL alone computes, the ones whose loss looks at more than a token's ratio.
STOCK = ("mean_only", "reference_mean_only", "grpo_upper_clip", "gspo", "vespo", "scale_rl", "dapo", "off_policy_mask")


@pytest.mark.parametrize("variant", own_variants(*STOCK))
def test_variants(policy_path, tmp_path, variant):
    own = "advantage" in get_variant(variant).settings
    rewards = {"reward_funcs": every_other_group_in_part} if own else {}
    assert_same_update(policy_path, tmp_path, OFF, variant=variant, **rewards)


@pytest.mark.parametrize("variant", ["high_entropy_tokens", "adaptive_entropy"])
def test_variants_whose_rows_count_together_skip_none(policy_path, tmp_path, variant):
    trainer = update(policy_path, tmp_path, variant=variant)[1]
    assert (trainer.args.trim_padding, trainer.args.skip_inert_rows) == (True, False)
    with pytest.warns(UserWarning, match="`skip_inert_rows=True` does nothing: a term of the loss relates all rows"):
        assert_same_update(policy_path, tmp_path, OFF, saves=False, variant=variant)


@pytest.mark.parametrize(
    "settings",
    [
        {"importance_sampling_level": "trajectory", "loss_type": "dapo"},
        {"importance_sampling_level": "trajectory", "loss_type": "bnpo"},
        {"importance_sampling_level": "none", "loss_type": "luspo"},
        {"beta": 0.1, "mirror_beta": 0.2, "mirror_sync_steps": 4},
        {"beta": 0.1, "mirror_beta": 0.2, "mask_zero_variance_groups": True},
        {"mirror_beta": 0.2, "mirror_sync_steps": 4, "mask_zero_variance_groups": True, "variant": "tic_grpo"},
        {"reward_variance_epsilon": 1e-5, "mask_truncated_completions": True},
    ],
    ids=lambda settings: ",".join(settings),
)
def test_parameters_of_the_variants(policy_path, tmp_path, settings):
    assert_same_update(policy_path, tmp_path, OFF, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"mask_truncated_completions": True, "max_completion_length": 12},
        {"gradient_accumulation_steps": 1, "steps_per_generation": 2},
        {"gradient_accumulation_steps": 6, "steps_per_generation": 3, "max_steps": 1},
        {"gradient_accumulation_steps": 2, "steps_per_generation": 3, "max_steps": 1},
        {"per_device_train_batch_size": 12, "gradient_accumulation_steps": 1, "steps_per_generation": 2},
        {"num_iterations": 2},
        {"off_policy_mask_threshold": 0.01},
        {"pad_to_multiple_of": 8},
        {"peft_config": LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"), "beta": 0.1},
        {"gradient_checkpointing": True},
        {"temperature": 0.7, "delta": 1.5, "scale_rewards": "batch"},
    ],
    ids=lambda settings: ",".join(settings),
)
def test_settings(policy_path, tmp_path, settings):
    assert_same_update(policy_path, tmp_path, **settings)


@pytest.mark.parametrize("settings", [{"entropy_coef": 0.1}, {"top_entropy_quantile": 0.5}], ids=lambda s: ",".join(s))
def test_rows_that_count_together_stay_together(policy_path, tmp_path, settings):
    assert_same_update(policy_path, tmp_path, saves=False, **settings)


def test_positions_that_count_the_padding(tmp_path, policy_path):
    """A model with a learned embedding per column: the padding on the left belongs to what it computes."""
    config = GPT2Config(
        vocab_size=len(WORDS), n_embd=16, n_layer=2, n_head=2, n_positions=64, pad_token_id=0, eos_token_id=1,
        bos_token_id=None, initializer_range=0.3, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip

    def model():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config)
        model.config._name_or_path = policy_path
        return model

    expected, _ = update(policy_path, tmp_path, model=model(), trainer_class=GRPOTrainer)
    actual, trainer = update(policy_path, tmp_path, model=model(), **ON)
    assert trainer._forward.trim == "right"
    assert (actual - expected).norm() <= 1e-5 * expected.norm()


@has_lines
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("lines", LINES)
@pytest.mark.parametrize(
    "settings",
    [
        {"loss_type": "dapo", "beta": 0.1},
        {"loss_type": "bnpo", "gradient_checkpointing": True},
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "temperature": 0.7},
        {"beta": 0.1, "peft_config": LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")},
        {"mask_truncated_completions": True, "max_completion_length": 12},
    ],
    ids=lambda settings: ",".join(settings),
)
def test_lines(policy_path, tmp_path, lines, attention, settings):
    def model():
        return AutoModelForCausalLM.from_pretrained(policy_path, dtype=torch.float32, attn_implementation=attention)

    expected, padded = update(policy_path, tmp_path, model=model(), trainer_class=GRPOTrainer, **settings)
    actual, lined = update(policy_path, tmp_path, model=model(), **LINES[lines], **ON, **settings)
    assert isinstance(lined._forward, LineForward)
    assert (actual - expected).norm() <= 1e-5 * expected.norm()
    assert lined.counted.tokens < 0.8 * padded.counted.tokens


@has_lines
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("lines", LINES)
@pytest.mark.parametrize("precision", ["weights", "autocast"])
def test_lines_in_half_precision(policy_path, tmp_path, lines, attention, precision):
    """Log-probs differ by rounding, which is no leak; what is added to the attention's logits has their precision."""
    dtype = torch.bfloat16 if precision == "weights" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(policy_path, dtype=dtype, attn_implementation=attention)
    masks = []
    model.model.register_forward_pre_hook(
        lambda _, args, inputs: masks.append(inputs["attention_mask"]), with_kwargs=True
    )
    trainer = make_trainer(policy_path, tmp_path, model=model, bf16=precision == "autocast", **RUN, **LINES[lines])
    trainer.train()
    assert isinstance(trainer._forward, LineForward)
    if lines == "shared":
        assert {mask.dtype for mask in masks if mask.dim() == 4} == {torch.bool if attention == "sdpa" else dtype}


@has_lines
@pytest.mark.parametrize("lines", LINES)
@pytest.mark.parametrize("variant", ["tic_grpo", "dual", "no_is_frozen", "mirror"])
def test_variants_on_lines(policy_path, tmp_path, variant, lines):
    expected, _ = update(policy_path, tmp_path, variant=variant, **OFF)
    actual, lined = update(policy_path, tmp_path, variant=variant, **LINES[lines])
    assert isinstance(lined._forward, LineForward)
    assert (actual - expected).norm() <= 1e-5 * expected.norm()


@has_lines
def test_a_prompt_is_computed_once_for_its_completions(policy_path, tmp_path):
    """The rows of an optimizer step are put together by prompt, so that a micro-batch is one group."""
    settings = {"gradient_accumulation_steps": 6, "max_steps": 1, "reward_funcs": no_advantage_is_zero}
    _, trimmed = update(policy_path, tmp_path, **settings, **ON)
    _, shared = update(policy_path, tmp_path, **settings, **ON, share_prompt=True)
    prompts = torch.cat([batch["prompt_mask"] for batch in shared._buffered_inputs]).sum(dim=1)
    # Each of the six groups computes its prompt once, without the token that starts each completion, and no
    # completion's last token; and lines have no padding.
    completions = sum(int(batch["completion_mask"].sum()) for batch in shared._buffered_inputs)
    assert shared.counted.tokens == completions + (prompts.sum() / 4 - 6)
    assert shared.counted.tokens < trimmed.counted.tokens


def leaking(policy_path):
    """A model whose attention ignores what separates sequences."""
    model = AutoModelForCausalLM.from_pretrained(policy_path, dtype=torch.float32)
    forward = model.model.forward
    model.model.forward = lambda *args, **kwargs: forward(
        *args, **(kwargs | {"position_ids": None, "attention_mask": None})
    )
    return model


@has_lines
def test_packed_lines_give_way_to_trimmed_rows_where_the_attention_leaks(policy_path, tmp_path, caplog):
    trainer = make_trainer(policy_path, tmp_path, **RUN, pack_rollout=True, model=leaking(policy_path))
    assert type(trainer._forward) is TrimmedForward
    assert "`pack_rollout=True` gives log-probs that differ from those of unpacked rows by" in caplog.text


@has_lines
def test_a_shared_prompt_is_refused_where_the_attention_leaks(policy_path, tmp_path):
    with pytest.raises(RuntimeError, match="`share_prompt=True` gives log-probs that differ .* leave it off"):
        make_trainer(policy_path, tmp_path, **RUN, share_prompt=True, model=leaking(policy_path))


@has_lines
@pytest.mark.parametrize("lines", LINES)
def test_a_model_that_gives_no_numbers_is_not_trusted_with_lines(policy_path, tmp_path, lines, caplog):
    model = AutoModelForCausalLM.from_pretrained(policy_path, dtype=torch.float32)
    torch.nn.init.constant_(model.lm_head.weight, torch.nan)
    if lines == "packed":
        trainer = make_trainer(policy_path, tmp_path, model=model, **LINES[lines])
        assert type(trainer._forward) is TrimmedForward and "differ" in caplog.text
    else:
        with pytest.raises(RuntimeError, match="differ from those of unpacked rows by nan nats"):
            make_trainer(policy_path, tmp_path, model=model, **LINES[lines])


@has_lines
@pytest.mark.parametrize("lines", LINES)
def test_lines_are_tried_out_without_dropout_and_without_a_trace(policy_path, tmp_path, lines):
    def trainer(**settings):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_pretrained(policy_path, dtype=torch.float32, attention_dropout=0.5).train()
        adapter = LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.5, init_lora_weights=False)
        made = make_trainer(policy_path, tmp_path, model=model, peft_config=adapter, **settings)
        modes = {name: module.training for name, module in made.model.named_modules()}
        return made, modes, torch.random.get_rng_state()

    lined, modes, random_state = trainer(**LINES[lines], **ON)
    _, expected_modes, expected_state = trainer(**ON)
    assert isinstance(lined._forward, LineForward)
    assert any(modes.values()) and modes == expected_modes
    assert torch.equal(random_state, expected_state)


@has_lines
@pytest.mark.parametrize("lines", LINES)
def test_lines_are_tried_out_when_training_begins_where_parameters_are_sharded(
    policy_path, tmp_path, lines, monkeypatch
):
    monkeypatch.setattr("trl_grpo_variants.forward.lean.sharding_backend", lambda args: "FSDP")
    trainer = make_trainer(policy_path, tmp_path, **LINES[lines], max_steps=1)
    assert type(trainer._forward) is TrimmedForward
    trainer.train()
    assert isinstance(trainer._forward, LineForward)


@has_lines
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            "positions are not relative",
        ),
        ({"sliding_window": 8}, "its attention has a sliding window"),
        ({"output_router_logits": True}, "the auxiliary loss of its experts counts all tokens together"),
        ({"_attn_implementation": "flash_attention_2"}, "its attention implementation is 'flash_attention_2'"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_models_whose_prompt_cannot_be_shared_are_refused(policy_path, tmp_path, change, sentence):
    model = AutoModelForCausalLM.from_pretrained(policy_path, dtype=torch.float32)
    for name, value in change.items():
        setattr(model.config, name, value)
    with pytest.raises(NotImplementedError, match=f"`share_prompt=True` cannot be used with this model: .*{sentence}"):
        make_trainer(policy_path, tmp_path, model=model, share_prompt=True)


@has_lines
def test_a_window_that_no_layer_has_is_none(policy_path, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(policy_path, dtype=torch.float32)
    model.config.sliding_window, model.config.layer_types = 8, ["full_attention"] * model.config.num_hidden_layers
    assert isinstance(make_trainer(policy_path, tmp_path, model=model, share_prompt=True)._forward, LineForward)


def test_an_update_without_any_signal_changes_nothing_and_costs_next_to_nothing(policy_path, tmp_path):
    added, trainer = update(policy_path, tmp_path, reward_funcs=equal_rewards, **ON)
    assert (added == 0).all()
    assert trainer.counted.tokens == 2 * trainer.counted.passes
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [(entry["entropy"], entry["trajectory/ess"]) for entry in entries] == [(None, None)] * 2


def test_steps_without_any_signal_do_not_count_in_the_means_between_two_logs(policy_path, tmp_path):
    def first_call_only(completion_ids, **_):
        calls.append(None)
        return no_advantage_is_zero(completion_ids) if len(calls) == 1 else equal_rewards(completion_ids)

    entropies = []
    schedule = {"gradient_accumulation_steps": 6, "steps_per_generation": 6, "num_iterations": 1}
    for logging_steps in (1, 2):
        calls = []
        settings = schedule | {"logging_steps": logging_steps, "learning_rate": 0.0, "reward_funcs": first_call_only}
        _, trainer = update(policy_path, tmp_path, **settings, **ON)
        entropies.append([entry["entropy"] for entry in trainer.state.log_history if "loss" in entry])
    assert entropies[0][1] is None
    assert entropies[1] == pytest.approx(entropies[0][:1])


def test_metrics_are_those_of_the_padded_run(policy_path, tmp_path):
    schedule = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "steps_per_generation": 3}
    padded, trimmed = assert_same_update(policy_path, tmp_path, OFF, variant="dual", max_steps=3, **schedule)
    for theirs, ours in zip(padded.state.log_history[:3], trimmed.state.log_history[:3], strict=True):
        assert {"entropy", "kl", "mirror_kl", "clip_ratio/region_mean", "trajectory/ess"} <= theirs.keys()
        for name in (name for name in theirs if not name.endswith(TIMES)):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), name


def test_metrics_of_a_run_that_leaves_rows_out_are_those_of_the_others(policy_path, tmp_path):
    schedule = {"per_device_train_batch_size": 24, "gradient_accumulation_steps": 1, "steps_per_generation": 1}
    padded, trimmed = assert_same_update(policy_path, tmp_path, OFF, variant="mean_only", max_steps=1, **schedule)
    inputs = padded._buffered_inputs[0]
    live = inputs["advantages"] != 0
    assert 0 < live.sum() < 24
    alone = make_trainer(policy_path, tmp_path)
    alone.model.train()
    alone.current_gradient_accumulation_steps = 1
    alone.compute_loss(alone.model, {name: value[live] if value.dim() else value for name, value in inputs.items()})
    assert trimmed.state.log_history[0]["entropy"] == pytest.approx(alone._metrics["train"]["entropy"][-1], rel=1e-5)
    assert trimmed.state.log_history[0]["entropy"] != pytest.approx(padded.state.log_history[0]["entropy"], rel=1e-3)
