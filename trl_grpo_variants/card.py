# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The model card: what was trained, with which coefficients, how well, and how to load it."""

import math
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

from accelerate.utils import is_peft_model
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id
from transformers import PreTrainedTokenizerBase, TrainingArguments

from .config import GRPOVariantConfig
from .variants import GRPO_DYNAMICS, TIC_GRPO, Paper, Variant, get_variant


TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"
# Drawn by whoever has something to draw; in the output folder, it is shown on the card and uploaded.
FIGURE_NAME = "success.png"

_CONFIDENCE = 1.96  # standard deviations that hold 95 % of a normal distribution

# Settings that decide what is minimised, in the order of the card; the others of `GRPOConfig` follow by themselves.
_OBJECTIVE = (
    "importance_sampling_level",
    "trajectory_clip",
    "no_is_gradient",
    "epsilon",
    "epsilon_high",
    "delta",
    "loss_type",
    "scale_rewards",
    "reward_variance_epsilon",
    "mask_zero_variance_groups",
    "beta",
    "mirror_beta",
    "mirror_sync_steps",
    "num_iterations",
    "steps_per_generation",
    "group_preserving_split",
    "num_generations",
    "max_completion_length",
    "temperature",
)
_OPTIMISATION = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "optim",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_steps",
    "num_train_epochs",
    "bf16",
    "fp16",
    "seed",
)
_CHOICES = ("multi_objective_aggregation", "vllm_importance_sampling_mode")
# Where and how a run was hosted and logged is no coefficient of it, and may name a machine.
_HOSTING = (
    "vllm_server_",
    "vllm_group_",
    "vllm_gpu_",
    "vllm_tensor_",
    "vllm_enable_",
    "log_",
    "ds3_",
    "num_completions",
)


# ---- what is minimised ---------------------------------------------------------------------------------------------


def objective(args: GRPOVariantConfig) -> str:
    """
    Write what a run minimises, with the coefficients that it has.

    Args:
        args ([`GRPOVariantConfig`]):
            Resolved configuration.

    Returns:
        `str`:
            Formula in plain text.
    """
    whole_trajectory = args.importance_sampling_level == "trajectory"
    policy, kl = _policy_term(args), _divergences(args)
    bounds = {
        "grpo": "mean_i (1/|o_i|) sum_t",
        "sapo": "mean_i (1/|o_i|) sum_t",
        "bnpo": "(1/N) sum_i sum_t",
        "dr_grpo": "(1/T) mean_i sum_t",
        "luspo": "mean_i sum_t",
    }.get(args.loss_type, "(1/N) sum_i sum_t")
    if whole_trajectory:
        bounds = bounds.removesuffix(" sum_t")
        kl = [f"sum_t {term}" for term in kl]
    terms = " + ".join([policy, *kl])
    formula = f"{bounds} [{terms}]"
    if args.entropy_coef != 0.0 or args.use_adaptive_entropy:
        formula += f" - {_number(args.entropy_coef)} mean_t H(pi)"
    if args.no_is_gradient == "frozen":
        formula = f"gradient at pi = pi_old of {formula}"
    return f"{formula},  {_advantage(args)}"


def _policy_term(args: GRPOVariantConfig) -> str:
    ratio = {"token": "rho", "sequence": "s"}.get(args.importance_sampling_level, "w")
    low = 1 - args.epsilon
    # As in TRL, whose upper range is the lower one unless it is given.
    epsilon_high = args.epsilon if args.epsilon_high is None else args.epsilon_high
    high = 1 + epsilon_high
    if args.importance_sampling_level == "none":
        return "-A log pi"
    if args.importance_sampling_level == "trajectory" and args.trajectory_clip != "two_sided":
        return "-w A" if args.trajectory_clip == "none" else f"-min(w, {high:g}) A"
    if args.loss_type == "cispo":
        return f"-sg(min({ratio}, {epsilon_high:g})) A log pi"
    if args.loss_type == "sapo":
        temperatures = f"{args.sapo_temperature_pos:g} if A > 0 else {args.sapo_temperature_neg:g}"
        return f"-(4/tau) sigmoid(tau ({ratio} - 1)) A (tau = {temperatures})"
    if args.loss_type == "vespo":
        k, lambda_ = (
            f"{positive:g} if A >= 0 else {negative:g}"
            for positive, negative in (
                (args.vespo_k_pos, args.vespo_k_neg),
                (args.vespo_lambda_pos, args.vespo_lambda_neg),
            )
        )
        return f"-sg(exp(lambda + k log w - lambda w)) A log pi (k = {k}, lambda = {lambda_})"
    if args.delta is None:
        return f"-min({ratio} A, clip({ratio}, {low:g}, {high:g}) A)"
    if math.isclose(args.delta, high) and low <= 0:
        return f"-min({ratio}, {high:g}) A"
    return f"-min(min({ratio}, {args.delta:g}) A, clip({ratio}, {low:g}, {high:g}) A)"


def _divergences(args: GRPOVariantConfig) -> list[str]:
    anchors = {"pi_ref": args.beta, "pi_prev": args.mirror_beta}
    return [f"{_number(beta)} KL(pi || {anchor})" for anchor, beta in anchors.items() if beta != 0.0]


def _advantage(args: GRPOVariantConfig) -> str:
    if args.multi_objective_aggregation == "normalize_then_sum":
        return "A = batch-normalised sum_f weight_f (r_f - mean_f) / (std_f + 1e-4)"
    if args.reward_variance_epsilon is not None:
        return f"A = (r - mean) / sqrt(var + {_number(args.reward_variance_epsilon)})"
    return {
        "none": "A = r - mean",
        "batch": "A = (r - mean) / (std of the batch + 1e-4)",
    }.get(args.scale_rewards, "A = (r - mean) / (std + 1e-4)")


def _legend(formula: str, is_kl_corrected: bool) -> list[str]:
    """What the symbols of a formula stand for, those that it has."""
    kl = (
        "estimated per token as `ratio (exp(d) - d - 1)`, with `d` the log-ratio of the anchor to `pi` and `ratio` "
        "that of `pi` to the policy that made the rollout"
        if is_kl_corrected
        else "estimated per token as `exp(d) - d - 1`, with `d` the log-ratio of the anchor to `pi`"
    )
    meanings = {
        r"\bpi\b": "`pi`: the policy; `o_i`: completion `i` of the batch, with the tokens `t`",
        r"\bpi_old\b": "`pi_old`: the policy that made the rollout",
        r"\brho\b": "`rho`: ratio of a token's probability under `pi` to that under the policy that made the rollout",
        r"\bs\b": "`s`: geometric mean of the token ratios of a completion to the policy that made the rollout",
        r"\bw\b": "`w`: product of the token ratios of a completion to the policy that made the rollout",
        r"\bsg\b": "`sg`: no gradient is taken of it",
        r"\bpi_ref\b": "`pi_ref`: the reference policy",
        r"\bpi_prev\b": "`pi_prev`: the previous policy",
        r"\bKL\b": f"`KL`: {kl}",
        r"\bH\b": "`H`: entropy of the next token",
        r"\bT\b": "`T`: `max_completion_length`",
        r"\bN\b": "`N`: number of tokens in the batch",
        r"\bA\b": "`A`: advantage; `r` a completion's reward, `mean`, `std` and `var` those of its group",
    }
    return [meaning for symbol, meaning in meanings.items() if symbol == r"\bpi\b" or re.search(symbol, formula)]


def papers(args: GRPOVariantConfig) -> list[Paper]:
    """
    Publications of what a run uses.

    Args:
        args ([`GRPOVariantConfig`]):
            Resolved configuration.

    Returns:
        `list[Paper]`:
            That of the variant first, then those of parts that come from elsewhere.
    """
    used = [] if args.variant is None else [get_variant(args.variant).paper]
    if args.mirror_beta != 0.0 or args.reward_variance_epsilon is not None:
        used.append(GRPO_DYNAMICS)
    if args.owns_policy_term:
        used.append(TIC_GRPO)
    return list(dict.fromkeys(used))


# ---- coefficients --------------------------------------------------------------------------------------------------


def coefficients(args: GRPOVariantConfig) -> tuple[dict[str, str], dict[str, str]]:
    """
    Resolved settings of a run. Neither a token nor a path is among them.

    Args:
        args ([`GRPOVariantConfig`]):
            Resolved configuration.

    Returns:
        `tuple[dict[str, str], dict[str, str]]`:
            Those that decide what is minimised, and all others.
    """
    inert = set()
    if args.importance_sampling_level != "trajectory":
        inert.add("trajectory_clip")
    if args.importance_sampling_level != "none":
        inert.add("no_is_gradient")
    decisive = {name: _number(getattr(args, name)) for name in _OBJECTIVE if name not in inert}
    if args.epsilon_high is None:
        decisive["epsilon_high"] = decisive["epsilon"]  # as TRL resolves it
    for name in _unused_bounds(args):
        decisive[name] = "not used"

    parts = {
        "vllm_": args.use_vllm,
        "sapo_": args.loss_type == "sapo",
        "vespo_": args.loss_type == "vespo",
        "ref_model_": args.sync_ref_model,
        "entropy_coef_": args.use_adaptive_entropy,
        "entropy_target": args.use_adaptive_entropy,
        "max_steps": args.max_steps > 0,
        "num_train_epochs": args.max_steps <= 0,
    }
    left_out = (*_HOSTING, *(prefix for prefix, is_used in parts.items() if not is_used))
    inherited = {field.name for field in fields(TrainingArguments)}
    names = [field.name for field in fields(args) if field.name not in inherited and field.init]
    others = {
        name: _number(getattr(args, name))
        for name in (*_OPTIMISATION, *names)
        if name not in (*_OBJECTIVE, "variant") and not name.startswith(left_out) and _is_public(args, name)
    }
    return decisive, others | {"processes": str(args.world_size)}


def _unused_bounds(args: GRPOVariantConfig) -> set[str]:
    if args.importance_sampling_level == "none":
        return {"epsilon", "epsilon_high", "delta"}
    if args.importance_sampling_level == "trajectory":
        unused = {"upper": {"epsilon"}, "none": {"epsilon", "epsilon_high"}}
        return {"delta"} | unused.get(args.trajectory_clip, set())
    return {"cispo": {"epsilon", "delta"}, "sapo": {"epsilon", "epsilon_high", "delta"}}.get(args.loss_type, set())


def _is_public(args: GRPOVariantConfig, name: str) -> bool:
    """Whether a setting cannot hold text of the user's: a number, a switch, numbers, or a name out of a fixed set."""
    value = getattr(args, name, None)
    if isinstance(value, str):
        return name in (*_OPTIMISATION, *_CHOICES)
    return isinstance(value, bool | int | float) or (
        isinstance(value, list) and all(isinstance(item, int | float) for item in value)
    )


def _number(value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    return "not set" if value is None else re.sub(r"e-0(\d)$", r"e-\1", str(value))


# ---- success -------------------------------------------------------------------------------------------------------


# When, the share, and the ends of an interval that was logged with it.
_Measured = tuple[str, float, float | None, float | None]


def wilson_interval(share: float, observations: int) -> tuple[float, float]:
    """
    Binomial 95 % interval of a share.

    Args:
        share (`float`):
            Observed share, in [0, 1].
        observations (`int`):
            Number of independent observations.

    Returns:
        `tuple[float, float]`:
            Lower and upper end.
    """
    z2 = _CONFIDENCE**2 / observations
    centre = share + z2 / 2
    half_width = math.sqrt(z2 * (share * (1 - share) + z2 / 4))
    return max(0.0, (centre - half_width) / (1 + z2)), min(1.0, (centre + half_width) / (1 + z2))


@dataclass(frozen=True)
class Success:
    """
    Success as a run has logged it.

    Parameters:
        source (`str`):
            What it was measured on.
        first (`str`):
            First measurement, with its interval and its step.
        last (`str`, *optional*):
            Last measurement, or `None` where there is only one.
        prompts (`int`, *optional*):
            Prompts that the intervals count, `None` where these were logged or there are none.
        is_training (`bool`, *optional*, defaults to `False`):
            Whether it was measured on what the policy is trained with.
    """

    source: str
    first: str
    last: str | None
    prompts: int | None = None
    is_training: bool = False


def success_rows(
    history: list[dict[str, Any]], prompts_per_rollout: int, evaluation_prompts: dict[str, int | None] | None = None
) -> list[Success]:
    """
    First and last success in the logs of a run.

    A prompt counts as one observation however many completions it has: completions of one prompt are not independent,
    and the variance of a prompt's mean is at most that of a single completion. The intervals are thus rather too wide
    than too narrow. An evaluation that logs an interval of its own beside `eval_success`, as `eval_success_low` and
    `eval_success_high`, keeps it.

    Args:
        history (`list[dict[str, Any]]`):
            `log_history` of the trainer's state.
        prompts_per_rollout (`int`):
            Prompts of one rollout. Logs average over at least one.
        evaluation_prompts (`dict[str, int | None]`, *optional*):
            Prompts of an evaluation by its prefix (`"eval"`, or `"eval_NAME"` for one of several), `None` where it is
            not known.

    Returns:
        `list[Success]`:
            One row per source that was logged.
    """
    rows = []
    for prefix, prompts in {"eval": None, **(evaluation_prompts or {})}.items():
        key = f"{prefix}_success"
        seen = [
            (f"step {entry['step']}", entry[key], entry.get(f"{key}_low"), entry.get(f"{key}_high"))
            for entry in history
            if _is_share(entry.get(key))
        ]
        name = prefix.removeprefix("eval").removeprefix("_")
        source = " ".join(["evaluation", f"`{name}`" if name else ""]).strip()
        rows += _row(source, prompts, seen)

    rollouts: list[_Measured] = []
    previous_step = 0
    for entry in history:
        # What ends a run sums it up, so it is neither its beginning nor its end.
        if _is_share(entry.get("success")) and "loss" in entry:
            start = previous_step + 1
            steps = f"step {entry['step']}" if start >= entry["step"] else f"steps {start} to {entry['step']}"
            rollouts.append((steps, entry["success"], None, None))
        if "loss" in entry:
            previous_step = entry["step"]
    return rows + _row("training rollouts", prompts_per_rollout, rollouts, is_training=True)


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and 0.0 <= value <= 1.0


def _row(source: str, prompts: int | None, seen: list[_Measured], is_training: bool = False) -> list[Success]:
    if not seen:
        return []
    cells = []
    counted = None
    for when, share, low, high in (seen[0], seen[-1]):
        if (low is None or high is None) and prompts:
            low, high = wilson_interval(share, prompts)
            counted = prompts
        interval = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
        cells.append(f"{share:.2f}{interval} ({when})")
    if counted:
        source += f", {counted} prompts{' each' if is_training else ''}"
    return [Success(source, cells[0], cells[1] if len(seen) > 1 else None, counted, is_training)]


# ---- the card ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """
    What a card is about.

    Parameters:
        name (`str`):
            Name of the model.
        base_model (`str`, *optional*):
            Id of the base model on the Hub, or the path it was loaded from.
        model_id (`str`, *optional*):
            Id of the repository on the Hub.
        model_class (`str`, *optional*, defaults to `"AutoModelForCausalLM"`):
            Class of `transformers` that loads it.
        has_chat_template (`bool`, *optional*, defaults to `False`):
            Whether prompts are conversations.
        peft_config ([`~peft.PeftConfig`], *optional*):
            Configuration of the adapter, `None` for a full model.
        quantization (`str`, *optional*):
            Quantisation of the base during training.
    """

    name: str
    base_model: str | None = None
    model_id: str | None = None
    model_class: str = "AutoModelForCausalLM"
    has_chat_template: bool = False
    peft_config: Any = None
    quantization: str | None = None

    @property
    def published_base(self) -> str | None:
        """The base model as metadata can name it: a path is none of the Hub's business."""
        return self.base_model if _is_repo_id(self.base_model) else None

    @property
    def local_base(self) -> str | None:
        """Name of a base model that is a folder, without the folders that it is in."""
        return Path(self.base_model).name if self.base_model and not self.published_base else None

    @property
    def lora_rank(self) -> int | None:
        """Rank that an engine must make room for; `None` where the adapter is not one that vLLM swaps in."""
        config = self.peft_config
        if getattr(config, "r", None) is None or getattr(config, "use_dora", False) or config.modules_to_save:
            return None
        if getattr(config, "bias", "none") != "none" or getattr(config, "target_parameters", None):
            return None
        return max([config.r, *(getattr(config, "rank_pattern", None) or {}).values()])


def model_card(
    args: GRPOVariantConfig,
    subject: Subject,
    *,
    datasets: str | Iterable[str] | None = None,
    tags: str | Iterable[str] | None = None,
    success: Iterable[Success] = (),
    steps: int | None = None,
    figure: str | None = None,
    links: Iterable[tuple[str, str]] = (),
) -> ModelCard:
    """
    Render a model card.

    Args:
        args ([`GRPOVariantConfig`]):
            Resolved configuration of the run.
        subject ([`Subject`]):
            Model that the card is about.
        datasets (`str` or `Iterable[str]`, *optional*):
            Training data. What is no id on the Hub is left out.
        tags (`str` or `Iterable[str]`, *optional*):
            Further tags. As among the Hub's own tags, `license:NAME` is the licence.
        success (`Iterable[Success]`, *optional*):
            Rows of the table of success, which is left out without any.
        steps (`int`, *optional*):
            Optimizer steps taken.
        figure (`str`, *optional*):
            Name of a figure beside the card.
        links (`Iterable[tuple[str, str]]`, *optional*):
            Names and addresses of dashboards of the run.

    Returns:
        [`~huggingface_hub.ModelCard`]:
            Card with its metadata.
    """
    variant = None if args.variant is None else get_variant(args.variant)
    datasets = [name for name in _as_list(datasets) if _is_repo_id(name)]
    tags = _as_list(tags)
    licenses = [tag.removeprefix("license:") for tag in tags if tag.startswith("license:")]
    is_adapter = subject.peft_config is not None
    card_data = ModelCardData(
        base_model=subject.published_base,
        datasets=datasets or None,
        library_name="peft" if is_adapter else "transformers",
        license=licenses[0] if licenses else None,
        model_name=subject.name,
        pipeline_tag="text-generation" if subject.model_class == "AutoModelForCausalLM" else None,
        tags=[
            "generated_from_trainer",
            "trl",
            "grpo",
            "trl-grpo-variants",
            *([variant.name] if variant else []),
            *(["peft"] if is_adapter else []),
            *(["lora"] if getattr(subject.peft_config, "r", None) else []),
            *sorted(tag for tag in tags if not tag.startswith("license:")),
        ],
    )
    decisive, others = coefficients(args)
    settings = {} if variant is None else _settings(variant, args)
    departures = [
        f"`{name}` is {decisive[name]}, not {value}"
        for name, value in settings.items()
        if decisive.get(name, value) not in (value, "not used")
    ]
    formula = objective(args)
    return ModelCard.from_template(
        card_data,
        template_path=str(TEMPLATE),
        subject=subject,
        variant=variant,
        formula=formula,
        legend=_legend(formula, args.use_bias_correction_kl),
        decisive=decisive,
        variant_settings=settings,
        others=others,
        adapter={} if not is_adapter else _adapter_settings(subject.peft_config),
        max_lora_rank=_engine_rank(subject.lora_rank),
        success=list(success),
        steps=steps,
        figure=figure,
        datasets=datasets,
        links=list(links),
        limits=_limits(args, subject, departures),
        papers=papers(args),
        sampling={"temperature": args.temperature, "top_k": args.top_k or 0},
        max_tokens=args.max_completion_length,
        versions={
            name: version(name)
            for name in ("trl_grpo_variants", "trl", "transformers", *(["peft"] if is_adapter else []), "torch")
        },
    )


def _settings(variant: Variant, args: GRPOVariantConfig) -> dict[str, str]:
    settings = variant.settings
    inner_steps = settings.pop("inner_steps", None)
    if inner_steps is not None:
        settings["steps_per_generation"] = inner_steps * args.gradient_accumulation_steps
    return {name: _number(value) for name, value in settings.items()}


def _adapter_settings(config: Any) -> dict[str, str]:
    targets = config.target_modules
    settings = {
        "type": getattr(config.peft_type, "value", config.peft_type),
        **{name: getattr(config, name, None) for name in ("r", "lora_alpha", "lora_dropout")},
        **{name: getattr(config, name, None) or None for name in ("use_rslora", "use_dora")},
        "target_modules": (
            ", ".join(sorted({target.rpartition(".")[2] for target in targets}))
            if isinstance(targets, set | list)
            else targets
        ),
        "modules_to_save": ", ".join(config.modules_to_save or []) or None,
    }
    return {name: str(value) for name, value in settings.items() if value is not None}


def _engine_rank(rank: int | None) -> int | None:
    # vLLM takes these values and no others.
    return None if rank is None else next((size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= rank), None)


def _limits(args: GRPOVariantConfig, subject: Subject, departures: list[str]) -> list[str]:
    limits = [
        "One run with one seed: how another run, another task or another variant would have ended cannot be concluded "
        "from it.",
        "Success and rewards are those of the run's own reward functions. What these do not check was not trained, and "
        "a policy can learn to satisfy a check without what it stands for.",
        "Whatever the base model gets wrong outside the trained task, this one may get wrong as well.",
    ]
    if departures:
        limits.append(f"The run departs from the variant: {'; '.join(departures)}.")
    if args.is_on_policy and (args.owns_policy_term or (args.mirror_beta != 0.0 and args.mirror_sync_steps is None)):
        limits.append(
            "Each rollout served one optimizer step, so every ratio was 1: importance weights, their clip and a KL to "
            "the policy that made the rollout had no effect on this run."
        )
    if TIC_GRPO in papers(args):
        limits.append(
            "The formula follows the paper's text. It does not state its clip range, learning rate or group size, so "
            "those of this run are not the paper's."
        )
    if args.importance_sampling_level == "none":
        limits.append("Without importance sampling nothing bounds an update: small learning rates are part of it.")
    if subject.published_base is None:
        limits.append("The base model is a local one: these files are of use only to those who have it.")
    return limits


def trainer_card(
    trainer: Any,
    model_name: str | None = None,
    dataset_name: str | None = None,
    tags: str | Iterable[str] | None = None,
) -> ModelCard:
    """
    Render the card of what a trainer has trained.

    Args:
        trainer ([`GRPOVariantTrainer`]):
            Trainer, before, during or after training.
        model_name (`str`, *optional*):
            Name of the model, by default that of the output folder.
        dataset_name (`str`, *optional*):
            Training data.
        tags (`str` or `Iterable[str]`, *optional*):
            Further tags.

    Returns:
        [`~huggingface_hub.ModelCard`]:
            Card with its metadata.
    """
    from trl.trainer.utils import get_comet_experiment_url, get_config_model_id, get_trackio_space_url

    args, state = trainer.args, trainer.state
    model = trainer.accelerator.unwrap_model(trainer.model)
    processing_class = trainer.processing_class
    is_text = isinstance(processing_class, PreTrainedTokenizerBase)
    quantization = getattr(model.config, "quantization_config", None)
    subject = Subject(
        name=model_name or Path(args.output_dir).absolute().name,
        base_model=get_config_model_id(model.config) or None,
        model_id=trainer.hub_model_id or args.hub_model_id,
        model_class="AutoModelForCausalLM" if is_text else "AutoModelForImageTextToText",
        has_chat_template=getattr(processing_class, "chat_template", None) is not None,
        peft_config=model.peft_config[model.active_adapter] if is_peft_model(model) else None,
        quantization=None if quantization is None else _quantization(quantization),
    )

    # The tags that TRL adds as well.
    further = [*_as_list(tags), *trainer._tag_names]
    if hasattr(model.config, "unsloth_version"):
        further.append("unsloth")
    if "JOB_ID" in os.environ:
        further.append("hf_jobs")
    links = {"Trackio": get_trackio_space_url(), "Comet": get_comet_experiment_url(), "Weights & Biases": _wandb_url()}
    if links["Trackio"] is not None:
        further = [tag for tag in further if not tag.startswith("trackio:")] + [f"trackio:{links['Trackio']}"]

    evaluated = trainer.eval_dataset
    sizes = {f"eval_{name}": part for name, part in evaluated.items()} if isinstance(evaluated, dict) else {}
    sizes = sizes or {"eval": evaluated}
    rows = success_rows(
        state.log_history,
        prompts_per_rollout=args.generation_batch_size // args.num_generations,
        evaluation_prompts={prefix: len(part) if hasattr(part, "__len__") else None for prefix, part in sizes.items()},
    )
    return model_card(
        args,
        subject,
        datasets=dataset_name,
        tags=further,
        success=rows,
        steps=state.global_step,
        figure=FIGURE_NAME if (Path(args.output_dir) / FIGURE_NAME).is_file() else None,
        links=[(name, address) for name, address in links.items() if address is not None],
    )


def _quantization(config: Any) -> str:
    settings = config if isinstance(config, dict) else config.to_dict()
    if settings.get("load_in_4bit"):
        double = ", doubly quantised" if settings.get("bnb_4bit_use_double_quant") else ""
        return f"4 bits ({settings.get('bnb_4bit_quant_type')}{double})"
    if settings.get("load_in_8bit"):
        return "8 bits"
    return str(getattr(settings.get("quant_method"), "value", settings.get("quant_method")))


def _wandb_url() -> str | None:
    # A run is open only if the module has been imported.
    run = getattr(sys.modules.get("wandb"), "run", None)
    return None if run is None else run.url


def _is_repo_id(name: str | None) -> bool:
    # A name without an owner is an id as well, and so is a relative path of two parts.
    if not name or os.path.exists(name):
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _as_list(names: str | Iterable[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or [])
