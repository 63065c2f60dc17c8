# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What TRL's trainer supports besides text: with a variant it works, and without one it is TRL's, bit for bit."""

import math

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from PIL import Image
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForSequenceClassification,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from trl import GRPOConfig, GRPOTrainer

from trl_grpo_variants import GRPOVariantConfig, GRPOVariantTrainer

from .. import reference
from ..tiny import WORDS, dataset, make_config, reward
from ..tiny_modalities import (
    IMAGE_WORDS,
    NOT_TO_WRITE,
    call,
    image_processor,
    make_image_policy,
    make_tool_policy,
    tool_tokenizer,
    tool_words,
)


TIMES = ("time", "runtime", "per_second")
OFF_POLICY = {"steps_per_generation": 2, "num_iterations": 2, "learning_rate": 5e-2}


class Recorder(GRPOVariantTrainer):
    """Keeps every rollout, its rewards, and every micro-batch that reaches the loss."""

    def __init__(self, *args, **kwargs):
        self.rollouts, self.rewards, self.micro_batches = [], [], []
        super().__init__(*args, **kwargs)

    def _generate_and_score_completions(self, inputs):
        self.rollouts.append(super()._generate_and_score_completions(inputs))
        return self.rollouts[-1]

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        self.rewards.append(super()._calculate_rewards(inputs, prompts, completions, completion_ids_list))
        return self.rewards[-1]

    def _compute_loss(self, model, inputs):
        self.micro_batches.append(inputs)
        return super()._compute_loss(model, inputs)


def trained(output_dir, arguments, trainer_class=Recorder, **settings):
    """Trainer after a short run."""
    config_class = GRPOVariantConfig if issubclass(trainer_class, GRPOVariantTrainer) else GRPOConfig
    trainer = trainer_class(args=make_config(output_dir, config_class, **settings), **arguments)
    trainer.train()
    return trainer


def parameters(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def history(trainer):
    """What was logged, without times."""
    return [
        {name: value for name, value in entry.items() if not name.endswith(TIMES)}
        for entry in trainer.state.log_history
    ]


def steps(trainer):
    return [entry for entry in history(trainer) if "loss" in entry]


def assert_equal(left, right):
    for name in right:
        assert torch.equal(left[name], right[name]), name


def differ(left, right):
    return any(not torch.allclose(left[name], right[name], rtol=1e-3, atol=1e-5) for name in right)


def assert_parity(output_dir, make_arguments, **settings):
    """A run without a variant is the run of TRL's trainer."""
    stock = trained(output_dir, make_arguments(), GRPOTrainer, **settings)
    ours = trained(output_dir, make_arguments(), GRPOVariantTrainer, **settings)
    assert any(entry["grad_norm"] > 0 for entry in steps(stock))
    assert history(ours) == history(stock)
    assert_equal(parameters(ours), parameters(stock))


def assert_trains(trainer):
    logged = steps(trainer)
    assert len(logged) == trainer.args.max_steps
    assert all(math.isfinite(entry["loss"]) and math.isfinite(entry["grad_norm"]) for entry in logged)
    assert any(entry["grad_norm"] > 0 for entry in logged)
    assert all(p.isfinite().all() for p in trainer.model.parameters())


def lora():
    return LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")


def conversations(size=8):
    return [[{"role": "user", "content": WORDS[2 + i % 8]}] for i in range(size)]


# ---- tools ---------------------------------------------------------------------------------------------------------


CALLS = [call("lookup", key="a"), call("lookup", key="b"), call("missing", key="a")]
TOOL_WORDS = tool_words(CALLS)
TOOL_RUN = {"max_completion_length": 16, "max_tool_calling_iterations": 2}


@pytest.fixture(scope="module")
def tool_policy_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tool_policy")
    make_tool_policy(path, CALLS)
    return path


def tool_arguments(policy_path, **arguments):
    defaults = {
        "model": AutoModelForCausalLM.from_pretrained(policy_path),
        "processing_class": tool_tokenizer(CALLS),
        "train_dataset": Dataset.from_dict({"prompt": conversations()}),
        "reward_funcs": reward,
    }
    return defaults | arguments


def make_lookup(calls):
    def lookup(key: str) -> str:
        """
        Look up what belongs to a letter.

        Args:
            key: The letter.
        """
        calls.append(key)
        return {"a": "fg", "b": "hgf"}[key]

    return lookup


def make_async_lookup(calls):
    lookup = make_lookup(calls)

    async def asynchronous(key: str) -> str:
        return lookup(key)

    asynchronous.__name__, asynchronous.__doc__ = "lookup", lookup.__doc__
    return asynchronous


@pytest.mark.parametrize("make_tool", [make_lookup, make_async_lookup], ids=["sync", "async"])
def test_stock_parity_with_tools(tool_policy_path, tmp_path, make_tool):
    calls = []
    assert_parity(
        tmp_path,
        lambda: tool_arguments(tool_policy_path, tools=[make_tool(calls)]),
        beta=0.1,
        max_steps=4,
        **TOOL_RUN,
        **OFF_POLICY,
    )
    assert set(calls) == {"a", "b"}


@pytest.mark.parametrize("variant", ["tic_grpo", "dual", "no_is_frozen"])
def test_variants_train_with_tools(tool_policy_path, tmp_path, variant):
    calls = []
    trainer = trained(
        tmp_path,
        tool_arguments(tool_policy_path, tools=[make_lookup(calls)]),
        variant=variant,
        num_iterations=2,
        **TOOL_RUN,
    )
    assert_trains(trainer)
    assert set(calls) == {"a", "b"}
    called = [entry for entry in steps(trainer) if "tools/call_frequency" in entry]
    assert any(entry["tools/call_frequency"] > 0 for entry in called)
    assert any(0 < entry["tools/failure_frequency"] < 1 for entry in called)
    rollout = trainer.rollouts[0]
    own, answers = rollout["tool_mask"] == 1, rollout["tool_mask"] == 0
    assert (answers & (rollout["completion_ids"] == TOOL_WORDS.index("<tool>"))).any()
    assert (own[:, 1:] & answers[:, :-1] & rollout["completion_mask"][:, 1:].bool()).any()


@pytest.mark.parametrize("surplus", ["drop", "keep"])
def test_groups_without_signal_are_replaced_whatever_their_tools(tool_policy_path, tmp_path, surplus):
    """Rows of several generations, of which each has its own calls and widths, keep what is theirs."""

    def half_of_some(prompts, **_):
        return [float(prompt[0]["content"] in "abc" or row % 4 < 2) for row, prompt in enumerate(prompts)]

    class Scored(Recorder):
        def __init__(self, *args, **kwargs):
            self.differences = []
            super().__init__(*args, **kwargs)

        def _generate_and_score_completions(self, inputs):
            rollout = super()._generate_and_score_completions(inputs)
            off = self._score(rollout, self.model, "train") - rollout["old_per_token_logps"]
            counts = rollout["completion_mask"] * rollout["tool_mask"]
            self.differences.append((off.abs() * counts).max().item())
            return rollout

    trainer = trained(
        tmp_path,
        tool_arguments(tool_policy_path, tools=[make_lookup([])], reward_funcs=half_of_some),
        Scored,
        variant="tic_grpo",
        refill_groups=6,
        surplus_groups=surplus,
        steps_per_generation=2,
        max_steps=8,
        **TOOL_RUN,
    )
    assert_trains(trainer)
    assert sum(entry.get("prompts/generations", 0) for entry in steps(trainer)) > len(trainer.rollouts)
    answer = TOOL_WORDS.index("<tool>")
    called = 0
    for rollout in trainer.rollouts:
        assert all(value.size(0) == 16 for value in rollout.values() if value.dim())
        assert (rollout["advantages"] != 0).all()
        counts = rollout["completion_mask"] * rollout["tool_mask"]
        assert rollout["num_items_in_batch"] == counts.sum()
        answers = (rollout["completion_ids"] == answer) & (rollout["tool_mask"] == 0)
        called += int((answers & rollout["completion_mask"].bool()).any(dim=1).sum())
    assert called > 2
    # Of a group that was kept they are those of an earlier policy.
    assert max(trainer.differences) < 1e-5 or surplus == "keep"


@pytest.mark.parametrize(
    "settings",
    [
        {"variant": "tic_grpo"},
        {"variant": "tic_grpo", "loss_type": "dapo"},
        {"variant": "tic_grpo", "loss_type": "bnpo"},
        {"variant": "no_is"},
        {"variant": "grpo", "loss_type": "luspo"},
    ],
    ids=lambda settings: "-".join(settings.values()),
)
def test_tokens_of_a_tool_are_as_if_they_were_not_there(tool_policy_path, tmp_path, monkeypatch, settings):
    """Nor do their log-probs count, current or old, in the trajectory weight, the mirror KL or a normaliser."""
    trainer = trained(
        tmp_path,
        tool_arguments(tool_policy_path, tools=[make_lookup([])]),
        beta=0.1,
        mirror_beta=0.1,
        mirror_sync_steps=9,
        num_iterations=2,
        learning_rate=3e-2,
        # The forward pass that stands in does not look at what it is given.
        trim_padding=False,
        skip_inert_rows=False,
        **(TOOL_RUN | settings),
    )
    inputs = next(m for m in reversed(trainer.micro_batches) if (m["tool_mask"] == 0).any())
    tool = inputs["completion_mask"].bool() & (inputs["tool_mask"] == 0)
    own = inputs["completion_mask"].bool() & (inputs["tool_mask"] == 1)
    assert tool.any(dim=1).sum() > 1
    anchors = ["old_per_token_logps", "mirror_per_token_logps", "ref_per_token_logps"]
    # Near the anchors, where no clip is active and every term has a gradient.
    near = inputs["old_per_token_logps"] + 0.01 * torch.randn(tool.shape, generator=torch.Generator().manual_seed(0))

    def gradient(batch, logps=near):
        leaf = logps.clone().requires_grad_()
        outputs = leaf, torch.zeros_like(leaf), None
        monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", lambda *args, **kwargs: outputs)
        trainer.current_gradient_accumulation_steps = 1
        loss = trainer.compute_loss(trainer.model, batch)
        return loss.detach(), *torch.autograd.grad(loss, leaf)

    def same(left, right):
        return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))

    expected = gradient(inputs)
    assert (expected[1][tool] == 0).all()
    assert (expected[1][own] != 0).all()
    absent = {name: value for name, value in inputs.items() if name != "tool_mask"}
    assert same(gradient(absent | {"completion_mask": inputs["completion_mask"] * inputs["tool_mask"]}), expected)
    assert not same(gradient(absent), expected)

    assert same(gradient(inputs, near + tool), expected)
    assert not same(gradient(inputs, near + 0.1 * own), expected)
    for name in anchors:
        assert same(gradient(inputs | {name: inputs[name] + tool}), expected), name
        assert not same(gradient(inputs | {name: inputs[name] + 0.1 * own}), expected), name


# ---- environments --------------------------------------------------------------------------------------------------


class Vault:
    """Rewards a rollout for what its own calls have found, and tells its secret in the prompt."""

    def reset(self, **_):
        self.found = []
        return "gh"

    def lookup(self, key: str) -> str:
        """
        Look up what belongs to a letter.

        Args:
            key: The letter.
        """
        self.found.append(key)
        return "fg"

    def get_reward(self) -> float:
        return float(len(self.found) > 0)


def environment_arguments(policy_path, reward_funcs=None):
    return tool_arguments(policy_path, environment_factory=Vault, reward_funcs=reward_funcs)


def test_stock_parity_with_an_environment(tool_policy_path, tmp_path):
    assert_parity(tmp_path, lambda: environment_arguments(tool_policy_path), beta=0.1, **TOOL_RUN, **OFF_POLICY)


def length(completion_ids, **_):
    return [0.25 * (len(ids) % 3) for ids in completion_ids]


@pytest.mark.parametrize("reward_funcs", [None, [length]], ids=["alone", "with a function"])
def test_an_environment_owns_its_reward(tool_policy_path, tmp_path, reward_funcs):
    trainer = trained(
        tmp_path,
        environment_arguments(tool_policy_path, reward_funcs),
        variant="reference",
        mask_zero_variance_groups=True,
        reward_weights=None if reward_funcs is None else [0.5],
        max_completion_length=16,
    )
    assert_trains(trainer)
    weights = torch.tensor([1.0] if reward_funcs is None else [0.5, 1.0])
    answered = torch.tensor([TOOL_WORDS.index(text) for text in CALLS[:2]])
    spread = []
    for rollout, rewards, entry in zip(trainer.rollouts, trainer.rewards, steps(trainer), strict=True):
        assert torch.equal(rewards[:, -1], torch.isin(rollout["completion_ids"], answered).any(1).float())
        totals = (rewards * weights).sum(1)
        expected = torch.tensor(reference.smoothed_std(totals.tolist(), 4))
        torch.testing.assert_close(rollout["advantages"], expected, rtol=1e-4, atol=1e-5)
        groups = totals.view(-1, 4)
        varied = (groups.amax(1) != groups.amin(1)).repeat_interleave(4)
        assert torch.equal(rollout["has_variance"], varied)
        spread += varied.tolist()
        assert entry["rewards/Vault/mean"] == pytest.approx(rewards[:, -1].mean().item())
    assert any(spread)


# ---- images --------------------------------------------------------------------------------------------------------


IMAGE_RUN = {
    "per_device_train_batch_size": 8,
    "steps_per_generation": 4,
    "generation_kwargs": NOT_TO_WRITE,
}


@pytest.fixture(scope="module")
def image_policy_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("image_policy")
    make_image_policy(path)
    return path


def pictures(index):
    """Of a prompt: one or two of a size and a colour that no other prompt has."""
    colours = [(30 * index, 255 - 30 * index, 15 * index), (255 - 20 * index, 10 * index, 0)]
    return [Image.new("RGB", (8 * (1 + index % 3), 8), colour) for colour in colours[: 1 + index % 2]]


def image_arguments(policy_path, **arguments):
    defaults = {
        "model": Qwen2_5_VLForConditionalGeneration.from_pretrained(policy_path),
        "processing_class": image_processor(),
        "train_dataset": Dataset.from_dict({"prompt": conversations(), "images": [pictures(i) for i in range(8)]}),
        "reward_funcs": reward,
    }
    return defaults | arguments


def image_lora():
    return LoraConfig(r=4, target_modules=r".*(language_model|visual)\..*(q_proj|v_proj|qkv|down_proj)")


IMAGE_KEYS = ("pixel_values", "image_grid_thw", "mm_token_type_ids")


def score(trainer, inputs, **replaced):
    """Log-probs of the completions of a batch under the live policy, from one forward pass of the model itself."""
    inputs = inputs | replaced
    completions = inputs["completion_ids"]
    with torch.no_grad():
        logits = trainer.model(
            input_ids=torch.cat([inputs["prompt_ids"], completions], 1),
            attention_mask=torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1),
            **{name: inputs[name] for name in IMAGE_KEYS},
        ).logits[:, -completions.size(1) - 1 : -1]
    return logits.log_softmax(-1).gather(2, completions.unsqueeze(2)).squeeze(2)


def test_stock_parity_with_images(image_policy_path, tmp_path):
    assert_parity(tmp_path, lambda: image_arguments(image_policy_path), beta=0.1, num_iterations=2, **IMAGE_RUN)


@pytest.mark.parametrize(
    "settings",
    [{"variant": "tic_grpo"}, {"variant": "dual", "mirror_sync_steps": 9}, {"variant": "no_is_frozen"}],
    ids=lambda settings: settings["variant"],
)
@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_images_follow_their_prompts(image_policy_path, tmp_path, settings, adapter):
    arguments = image_arguments(image_policy_path, peft_config=image_lora() if adapter else None)
    before = {name: p.clone() for name, p in arguments["model"].named_parameters()}
    trainer = trained(
        tmp_path, arguments, group_preserving_split=True, num_iterations=2, max_steps=8, **(IMAGE_RUN | settings)
    )
    assert_trains(trainer)
    if not adapter:
        after = parameters(trainer)
        assert any(not torch.equal(after[name], before[name]) for name in before if "visual" in name)

    (rollout,) = trainer.rollouts
    assert len(trainer.micro_batches) == 8
    for micro_batch in trainer.micro_batches:
        letters = [
            next(t for t in row.tolist() if WORDS[2] <= IMAGE_WORDS[t] <= WORDS[9])
            for row in micro_batch["prompt_ids"]
        ]
        assert len(set(letters)) == 2
        expected = [picture for letter in letters for picture in pictures(letter - 2)]
        expected = trainer.processing_class.image_processor(expected, return_tensors="pt")
        assert torch.equal(micro_batch["pixel_values"], expected["pixel_values"])
        assert torch.equal(micro_batch["image_grid_thw"], expected["image_grid_thw"])
        assert micro_batch["num_images"] == [len(pictures(letter - 2)) for letter in letters]
        placeholders = (micro_batch["prompt_ids"] == IMAGE_WORDS.index("<|image_pad|>")).sum()
        assert 4 * placeholders == len(expected["pixel_values"])
    assert sum(len(m["pixel_values"]) for m in trainer.micro_batches[:4]) == len(rollout["pixel_values"])


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_an_older_anchor_sees_the_images(image_policy_path, tmp_path, adapter):
    """Rollouts at steps 0, 4 and 8, all scored under the policy of step 0: the live one at first, then an older one."""
    arguments = image_arguments(image_policy_path, peft_config=image_lora() if adapter else None)
    trainer = trained(
        tmp_path,
        arguments,
        variant="dual",
        mirror_sync_steps=9,
        num_iterations=1,
        max_steps=12,
        learning_rate=3e-2,
        **IMAGE_RUN,
    )
    assert len(trainer.rollouts) == 3
    first, *later = trainer.rollouts
    mask = first["completion_mask"].bool()
    assert torch.equal(first["mirror_per_token_logps"][mask], first["old_per_token_logps"][mask])
    if adapter:
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                parameter.data.zero_()
    else:
        start = Qwen2_5_VLForConditionalGeneration.from_pretrained(image_policy_path)
        trainer.model.load_state_dict(start.state_dict())
    for rollout in trainer.rollouts:
        mask = rollout["completion_mask"].bool()
        anchor = rollout["mirror_per_token_logps"]
        torch.testing.assert_close(score(trainer, rollout)[mask], anchor[mask], rtol=1e-4, atol=1e-4)
        blank = score(trainer, rollout, pixel_values=torch.zeros_like(rollout["pixel_values"]))
        assert (blank - anchor)[mask].abs().max() > 0.1
    for rollout in later:
        mask = rollout["completion_mask"].bool()
        assert not torch.allclose(
            rollout["old_per_token_logps"][mask], rollout["mirror_per_token_logps"][mask], atol=1e-2
        )


# Two rollouts of four steps. A single step per rollout is on policy, where the current gradient is the right one.
FROZEN_RUN = {"variant": "no_is_frozen", "optim": "sgd", "max_grad_norm": 0.0, "steps_per_generation": 4}
FOUR_STEPS = {"learning_rate": 0.1, "max_steps": 8}
ONE_STEP = {"learning_rate": 0.4, "max_steps": 2, "gradient_accumulation_steps": 4, "no_is_gradient": "current"}


def assert_frozen_steps_are_one_large_step(output_dir, make_arguments, **settings):
    def weights_after(**schedule):
        return parameters(trained(output_dir, make_arguments(), **(FROZEN_RUN | settings | schedule)))

    four, one = weights_after(**FOUR_STEPS), weights_after(**ONE_STEP)
    for name in one:
        torch.testing.assert_close(four[name], one[name], rtol=1e-4, atol=1e-5)
    assert differ(weights_after(**FOUR_STEPS, no_is_gradient="current"), one)


def test_frozen_inner_steps_on_images_are_one_large_step(image_policy_path, tmp_path):
    assert_frozen_steps_are_one_large_step(tmp_path, lambda: image_arguments(image_policy_path), **IMAGE_RUN)


# ---- streams -------------------------------------------------------------------------------------------------------


def text_arguments(policy_path, **arguments):
    defaults = {
        "model": AutoModelForCausalLM.from_pretrained(policy_path, dtype=torch.float32),
        "train_dataset": dataset(),
        "reward_funcs": reward,
    }
    return defaults | arguments


def stream_arguments(policy_path):
    return text_arguments(
        policy_path, train_dataset=dataset().to_iterable_dataset(), eval_dataset=dataset(4).to_iterable_dataset()
    )


EVALUATION = {"eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 4}


def test_stock_parity_with_a_stream(policy_path, tmp_path):
    assert_parity(tmp_path, lambda: stream_arguments(policy_path), beta=0.1, **EVALUATION, **OFF_POLICY)


@pytest.mark.parametrize("variant", ["tic_grpo", "dual", "no_is_frozen"])
def test_a_stream_is_the_data_set_that_it_streams(policy_path, tmp_path, variant):
    settings = {"variant": variant, "shuffle_dataset": False, "max_steps": 8, "learning_rate": 3e-2}
    streamed = trained(tmp_path, stream_arguments(policy_path), **settings, **EVALUATION)
    stored = trained(tmp_path, text_arguments(policy_path), **settings)
    assert_trains(streamed)
    evaluated = [entry for entry in streamed.state.log_history if "eval_loss" in entry]
    assert len(evaluated) == 4
    assert all(0 <= entry["eval_success"] <= 1 for entry in evaluated)
    assert torch.equal(streamed.rollouts[0]["prompt_ids"], stored.rollouts[0]["prompt_ids"])
    unevaluated = trained(tmp_path, stream_arguments(policy_path), **settings)
    assert_equal(parameters(unevaluated), parameters(stored))


# ---- reward models and asynchronous rewards ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reward_model_path(policy_path, tmp_path_factory):
    path = tmp_path_factory.mktemp("reward_model")
    torch.manual_seed(1)
    config = LlamaConfig.from_pretrained(policy_path, num_labels=1)
    LlamaForSequenceClassification(config).save_pretrained(path)
    AutoTokenizer.from_pretrained(policy_path).save_pretrained(path)
    return str(path)


def judged_arguments(policy_path, reward_model_path):
    judge = LlamaForSequenceClassification.from_pretrained(reward_model_path)
    return text_arguments(policy_path, reward_funcs=[judge, reward])


JUDGED_RUN = {"reward_weights": [0.5, 1.0]}


def test_stock_parity_with_a_reward_model(policy_path, reward_model_path, tmp_path):
    assert_parity(tmp_path, lambda: judged_arguments(policy_path, reward_model_path), **JUDGED_RUN, **OFF_POLICY)


@pytest.mark.parametrize(("variant", "normalization"), [("reference", "smoothed_std"), ("tic_grpo", "mean_only")])
def test_a_reward_model_makes_the_advantages(policy_path, reward_model_path, tmp_path, variant, normalization):
    trainer = trained(
        tmp_path,
        judged_arguments(policy_path, reward_model_path),
        variant=variant,
        mirror_beta=0.1,
        num_iterations=2,
        **JUDGED_RUN,
    )
    assert_trains(trainer)
    judge = LlamaForSequenceClassification.from_pretrained(reward_model_path)
    for rollout, rewards in zip(trainer.rollouts, trainer.rewards, strict=True):
        decode = trainer.processing_class.batch_decode
        # A prompt is read as it was written, a completion as it is decoded: with spaces between its letters.
        prompts = [text.replace(" ", "") for text in decode(rollout["prompt_ids"], skip_special_tokens=True)]
        completions = decode(rollout["completion_ids"], skip_special_tokens=True)
        inputs = [
            trainer.processing_class(prompt + completion, return_tensors="pt").input_ids
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        with torch.no_grad():
            judged = torch.cat([judge(row).logits[:, 0] for row in inputs])
        torch.testing.assert_close(rewards[:, 0], judged, rtol=1e-4, atol=1e-4)
        totals = 0.5 * rewards[:, 0] + rewards[:, 1]
        expected = torch.tensor(reference.ADVANTAGES[normalization](totals.tolist(), 4))
        torch.testing.assert_close(rollout["advantages"], expected, rtol=1e-4, atol=1e-5)


async def async_reward(**kwargs):
    return reward(**kwargs)


def test_stock_parity_with_an_asynchronous_reward(policy_path, tmp_path):
    assert_parity(tmp_path, lambda: text_arguments(policy_path, reward_funcs=[async_reward, length]), **OFF_POLICY)


@pytest.mark.parametrize("variant", ["reference", "tic_grpo", "no_is_frozen"])
def test_an_asynchronous_reward_is_a_reward(policy_path, tmp_path, variant):
    settings = {"variant": variant, "num_iterations": 2}
    waited = trained(tmp_path, text_arguments(policy_path, reward_funcs=[length, async_reward]), **settings)
    called = trained(tmp_path, text_arguments(policy_path, reward_funcs=[length, reward]), **settings)
    assert_trains(waited)
    assert_equal(parameters(waited), parameters(called))


# ---- continuous batching -------------------------------------------------------------------------------------------


CONTINUOUS_RUN = {
    "use_transformers_continuous_batching": True,
    "transformers_continuous_batching_config": {
        "num_blocks": 16,
        "max_batch_tokens": 64,
        "max_memory_percent": 0.001,
        "seed": 0,
    },
}


def test_stock_parity_with_continuous_batching(policy_path, tmp_path):
    assert_parity(
        tmp_path, lambda: text_arguments(policy_path), num_iterations=2, beta=0.1, learning_rate=5e-2, **CONTINUOUS_RUN
    )


@pytest.mark.parametrize("variant", ["tic_grpo", "dual", "no_is_frozen"])
def test_variants_train_with_continuous_batching(policy_path, tmp_path, variant):
    settings = {"variant": variant, "steps_per_generation": 2, "num_iterations": 2, "max_steps": 8}
    trainer = trained(tmp_path, text_arguments(policy_path), learning_rate=3e-2, **settings, **CONTINUOUS_RUN)
    assert_trains(trainer)
    assert len(trainer.rollouts) == 2
    for rollout in trainer.rollouts:
        assert len(set(map(tuple, rollout["completion_ids"].tolist()))) > 8


@pytest.mark.parametrize(
    "settings",
    [
        {"variant": "no_is_frozen"},
        {"variant": "no_is_frozen", "peft_config": lora()},
        {"variant": "mirror", "mirror_sync_steps": 9},
        {"variant": "reference", "sync_ref_model": True, "ref_model_sync_steps": 1, "peft_config": lora()},
    ],
    ids=["frozen", "frozen lora", "older anchor", "moving reference"],
)
def test_snapshots_follow_a_policy_that_is_cast_to_bf16(policy_path, tmp_path, settings):
    arguments = text_arguments(policy_path, peft_config=settings.get("peft_config"))
    settings = {name: value for name, value in settings.items() if name != "peft_config"}
    settings = settings | {"bf16": True, "steps_per_generation": 2, "num_iterations": 1}
    trainer = trained(tmp_path, arguments, **settings, **CONTINUOUS_RUN)
    assert_trains(trainer)
    assert {p.dtype for p in trainer.model.parameters()} == {torch.bfloat16}
    first = trainer.rollouts[0]
    if "mirror_per_token_logps" in first:
        mask = first["completion_mask"].bool()
        assert torch.equal(first["mirror_per_token_logps"][mask], first["old_per_token_logps"][mask])


# ---- memory and precision ------------------------------------------------------------------------------------------


SNAPSHOTS = [
    {"variant": "tic_grpo", "mirror_beta": 0.1, "mirror_sync_steps": 9},
    {"variant": "dual", "mirror_sync_steps": 9},
    {"variant": "no_is_frozen", "mirror_beta": 0.1, "mirror_sync_steps": 9},
]


def by_variant(settings):
    return settings["variant"] if isinstance(settings, dict) else None


@pytest.mark.parametrize("reentrant", [False, True], ids=["", "reentrant"])
def test_stock_parity_with_gradient_checkpointing(policy_path, tmp_path, reentrant):
    assert_parity(
        tmp_path,
        lambda: text_arguments(policy_path),
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": reentrant},
        beta=0.1,
        **OFF_POLICY,
    )


@pytest.mark.parametrize("reentrant", [False, True], ids=["", "reentrant"])
@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("settings", SNAPSHOTS, ids=by_variant)
def test_checkpointed_gradients_are_the_gradients(policy_path, tmp_path, settings, adapter, reentrant):
    """What a backward pass computes again is computed under the policy of the forward pass, swapped in or live."""
    settings = settings | {
        "steps_per_generation": 2,
        "num_iterations": 2,
        "max_steps": 8,
        "optim": "sgd",
        "learning_rate": 0.3,
    }
    runs, passes = {}, {}
    for checkpointing in (False, True):
        arguments = text_arguments(policy_path, peft_config=lora() if adapter else None)
        passes[checkpointing] = []
        arguments["model"].model.layers[0].mlp.register_forward_pre_hook(
            lambda *_, key=checkpointing: passes[key].append(torch.is_grad_enabled())
        )
        runs[checkpointing] = trained(
            tmp_path,
            arguments,
            gradient_checkpointing=checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": reentrant} if checkpointing else None,
            **settings,
        )
    assert len(passes[True]) == len(passes[False]) + 8
    plain, again = parameters(runs[False]), parameters(runs[True])
    for name in plain:
        torch.testing.assert_close(again[name], plain[name], rtol=1e-4, atol=1e-6)
    assert_trains(runs[True])


def test_stock_parity_in_bf16(policy_path, tmp_path):
    assert_parity(tmp_path, lambda: text_arguments(policy_path), bf16=True, beta=0.1, **OFF_POLICY)


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("settings", SNAPSHOTS, ids=by_variant)
def test_snapshots_in_bf16(policy_path, tmp_path, settings, adapter):
    """Autocast keeps its casts of the weights, which must not outlive an exchange of the weights."""
    trainer = trained(
        tmp_path,
        text_arguments(policy_path, peft_config=lora() if adapter else None),
        bf16=True,
        steps_per_generation=2,
        max_steps=8,
        **(settings | {"num_iterations": 1, "learning_rate": 3e-2}),
    )
    assert_trains(trainer)
    first, *_, last = trainer.rollouts
    mask = first["completion_mask"].bool()
    assert torch.equal(first["mirror_per_token_logps"][mask], first["old_per_token_logps"][mask])
    mask = last["completion_mask"].bool()
    assert not torch.allclose(last["mirror_per_token_logps"][mask], last["old_per_token_logps"][mask], atol=0.05)

    def score(policy):
        ids = torch.cat([last["prompt_ids"], last["completion_ids"]], 1)
        attention = torch.cat([last["prompt_mask"], last["completion_mask"]], 1)
        logps, *_ = trainer._get_per_token_logps_and_entropies(policy, ids, attention, mask.size(1), batch_size=8)
        return logps.detach()[mask]

    live, anchor = score(trainer.model), last["mirror_per_token_logps"][mask]
    with trainer.accelerator.autocast():
        assert torch.equal(score(trainer.model), live)
        torch.testing.assert_close(score(trainer._anchors.mirror), anchor, rtol=0.02, atol=0.02)
        assert torch.equal(score(trainer.model), live)


def test_frozen_inner_steps_in_bf16_are_one_large_step(policy_path, tmp_path):
    # In bfloat16 the shape of a batch is seen in its log-probs.
    assert_frozen_steps_are_one_large_step(
        tmp_path, lambda: text_arguments(policy_path), bf16=True, trim_padding=False, skip_inert_rows=False
    )


# ---- mixtures of experts -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expert_policy_path(policy_path, tmp_path_factory):
    path = tmp_path_factory.mktemp("expert_policy")
    config = Qwen3MoeConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        tie_word_embeddings=False,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    Qwen3MoeForCausalLM(config).save_pretrained(path)
    AutoTokenizer.from_pretrained(policy_path).save_pretrained(path)
    return str(path)


def test_stock_parity_with_experts(expert_policy_path, tmp_path):
    assert_parity(
        tmp_path, lambda: text_arguments(expert_policy_path), router_aux_loss_coef=0.5, beta=0.1, **OFF_POLICY
    )


def test_the_auxiliary_loss_of_experts_is_added_to_a_variant(expert_policy_path, tmp_path):
    def run(coefficient):
        return trained(
            tmp_path,
            text_arguments(expert_policy_path),
            variant="tic_grpo",
            mirror_beta=0.1,
            mirror_sync_steps=9,
            learning_rate=3e-2,
            max_steps=8,
            router_aux_loss_coef=coefficient,
        )

    trainer, without = run(0.5), run(0.0)
    assert_trains(trainer)
    assert all(entry["aux_loss"] > 0 for entry in steps(trainer))
    assert not any("aux_loss" in entry for entry in steps(without))
    assert differ(parameters(trainer), parameters(without))
    first = trainer.rollouts[0]
    mask = first["completion_mask"].bool()
    assert torch.equal(first["mirror_per_token_logps"][mask], first["old_per_token_logps"][mask])

    inputs = trainer.micro_batches[-1]
    trainer.current_gradient_accumulation_steps = 1

    def gradient(loss):
        trainer.model.zero_grad()
        loss.backward()
        return {
            name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
            for name, p in trainer.model.named_parameters()
        }

    whole = gradient(trainer.compute_loss(trainer.model, inputs))
    trainer.aux_loss_enabled = False
    policy = gradient(trainer.compute_loss(trainer.model, inputs))
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    auxiliary = gradient(trainer.model(input_ids=ids, attention_mask=mask, output_router_logits=True).aux_loss)
    assert max(g.abs().max() for g in auxiliary.values()) > 1e-3
    for name, total in whole.items():
        torch.testing.assert_close(total - policy[name], 0.5 * auxiliary[name], rtol=1e-4, atol=1e-5)


# ---- what an update costs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["tic_grpo", "dual"])
@pytest.mark.parametrize("modality", ["images", "tools", "experts"])
def test_leaving_out_padding_and_inert_rows_changes_no_update(
    image_policy_path, tool_policy_path, expert_policy_path, tmp_path, modality, variant
):
    arguments, settings = {
        "images": (lambda: image_arguments(image_policy_path), IMAGE_RUN),
        "tools": (lambda: tool_arguments(tool_policy_path, tools=[make_lookup([])]), TOOL_RUN),
        "experts": (lambda: text_arguments(expert_policy_path), {"router_aux_loss_coef": 0.5}),
    }[modality]

    def weights(**savings):
        run = {"variant": variant, "optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0.0, "num_iterations": 2}
        # The steps on one rollout, whose samples no rounding can have changed.
        run |= {"per_device_train_batch_size": 8, "steps_per_generation": 2, "max_steps": 4}
        trainer = trained(tmp_path, arguments(), **(settings | run | savings))
        assert (trainer._forward.trim, trainer.args.trims_forward) == (("none", False) if savings else ("both", True))
        return parameters(trainer)

    whole, trimmed, start = (
        weights(trim_padding=False, skip_inert_rows=False),
        weights(),
        {name: p.detach() for name, p in arguments()["model"].named_parameters()},
    )
    moved = torch.cat([(whole[name] - start[name]).flatten() for name in whole])
    error = torch.cat([(trimmed[name] - whole[name]).flatten() for name in whole])
    assert moved.norm() > 1e-2
    assert error.norm() <= 2e-5 * moved.norm()
