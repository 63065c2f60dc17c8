# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The card of a model: which facts the template is given."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id

from ..config import GRPOVariantConfig
from ..objective.formula import legend, objective_text
from ..papers import TIC_GRPO, Paper
from ..prompts.settings import CONDITIONS
from ..runs.effort import Price
from ..runs.success import Success
from ..variants import Variant, get_variant
from ..version import __version__
from ..vllm.eligibility import adapter_obstacle, engine_rank
from .coefficients import coefficients, number


TEMPLATE = Path(__file__).parents[1] / "templates" / "model_card.md"


@dataclass(frozen=True)
class Subject:
    """
    The model that a card is about.

    `base_model` is an id on the Hub, or the path that it was loaded from, and `model_id` the id of the repository.
    `peft_config` is `None` for a full model; `quantization` is that of the base during training.
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
    def max_lora_rank(self) -> int | None:
        """Rank that vLLM must make room for; `None` where the adapter is not one that it swaps in."""
        return None if adapter_obstacle(self.peft_config) else engine_rank(self.peft_config)


def model_card(
    args: GRPOVariantConfig,
    subject: Subject,
    *,
    datasets: str | Iterable[str] | None = None,
    tags: str | Iterable[str] | None = None,
    success: Iterable[Success] = (),
    price: Price | None = None,
    steps: int | None = None,
    figure: str | None = None,
    links: Iterable[tuple[str, str]] = (),
) -> ModelCard:
    """
    Render the card of a model, with its metadata, for a resolved configuration.

    Of the `datasets` only ids on the Hub are named, and the tag `license:NAME` is the licence. `steps` are optimizer
    steps that were taken, `price` is what they cost, `figure` lies beside the card, and `links` are names and addresses
    of dashboards.
    """
    variant = None if args.variant is None else get_variant(args.variant)
    names: dict[str, Any] = {name: _printable(getattr(subject, name)) for name in ("name", "base_model", "model_id")}
    subject = replace(subject, **names)
    datasets = [name for name in as_list(datasets) if _is_repo_id(name)]
    is_adapter = subject.peft_config is not None
    decisive, others = coefficients(args)
    settings = {} if variant is None else _settings(variant, args)
    conditions = [condition for condition in CONDITIONS if condition.acts(args)]
    papers = [*([variant.paper] if variant else []), *args.parts.papers(vars(args))]
    papers = list(dict.fromkeys(papers + [condition.paper for condition in conditions if condition.paper]))
    departures = [
        f"`{name}` is {decisive[name]}, not {value}"
        for name, value in settings.items()
        if decisive.get(name, value) not in (value, "not used")
    ]
    return ModelCard.from_template(
        _metadata(subject, variant, datasets, as_list(tags)),
        template_path=str(TEMPLATE),
        subject=subject,
        variant=variant,
        has_stock_objective=args.has_stock_objective,
        formula=objective_text(args.parts, vars(args)),
        legend=[*legend(args.parts, vars(args)), *(condition.meaning for condition in conditions)],
        decisive=decisive,
        variant_settings=settings,
        others=others,
        adapter={} if not is_adapter else _adapter_settings(subject.peft_config),
        success=list(success),
        price=price,
        steps=steps,
        figure=figure,
        datasets=datasets,
        links=list(links),
        limits=_limits(args, subject, departures, papers),
        papers=papers,
        sampling={"temperature": args.temperature, "top_k": args.top_k or 0},
        literal=lambda text: json.dumps(text, ensure_ascii=False),
        max_tokens=args.max_completion_length,
        versions={"trl_grpo_variants": __version__}
        | {name: version(name) for name in ("trl", "transformers", *(["peft"] if is_adapter else []), "torch")},
    )


def _metadata(subject: Subject, variant: Variant | None, datasets: list[str], tags: list[str]) -> ModelCardData:
    licenses = [tag.removeprefix("license:") for tag in tags if tag.startswith("license:")]
    is_adapter = subject.peft_config is not None
    return ModelCardData(
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


def _settings(variant: Variant, args: GRPOVariantConfig) -> dict[str, str]:
    settings = dict(variant.settings)
    inner_steps = settings.pop("inner_steps", None)
    if inner_steps is not None:
        settings["steps_per_generation"] = inner_steps * args.gradient_accumulation_steps
    return {name: number(value) for name, value in settings.items()}


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


def _limits(args: GRPOVariantConfig, subject: Subject, departures: list[str], papers: list[Paper]) -> list[str]:
    limits = [
        "One run with one seed: how another run, another task or another variant would have ended cannot be concluded "
        "from it.",
        "Success and rewards are those of the run's own reward functions. What these do not check was not trained, and "
        "a policy can learn to satisfy a check without what it stands for.",
        "Whatever the base model gets wrong outside the trained task, this one may get wrong as well.",
    ]
    if departures:
        limits.append(f"The run departs from the variant: {'; '.join(departures)}.")
    acts_later = args.mirror_beta != 0.0 and args.mirror_sync_steps is None
    if args.is_on_policy and (args.parts.policy.is_inert(vars(args)) or acts_later):
        limits.append(
            "Each rollout served one optimizer step, so every ratio was 1: importance weights, their clip and a KL to "
            "the policy that made the rollout had no effect on this run."
        )
    if TIC_GRPO in papers:
        limits.append(
            "The formula follows the paper's text. It does not state its clip range, learning rate or group size, so "
            "those of this run are not the paper's."
        )
    if args.importance_sampling_level == "none" and args.mirror_beta == 0.0:
        limits.append("Without importance sampling nothing bounds an update: small learning rates are part of it.")
    if subject.published_base is None:
        limits.append("The base model is a local one: these files are of use only to those who have it.")
    return limits


def _is_repo_id(name: str | None) -> bool:
    # A name without an owner is an id as well, and so is a relative path of two parts.
    if not name or os.path.exists(name):
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _printable(name: str | None) -> str | None:
    """A name on one line and in UTF-8, which a path need not be."""
    return name and " ".join(name.encode("utf-8", "replace").decode("utf-8").split())


def as_list(names: str | Iterable[str] | None) -> list[str]:
    return list(map(str, [names] if isinstance(names, str) or not isinstance(names, Iterable | None) else names or []))
