# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Which settings of the choice of prompts mean something together, and what they make of the objective."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..checks import check_whole_number, shown
from ..papers import DAPO, Paper


if TYPE_CHECKING:
    from ..fields import VariantFields


@dataclass(frozen=True)
class Condition:
    """
    Something that the choice of prompts makes of the objective.

    Parameters:
        acts (`Callable`):
            Whether it does with a configuration.
        meaning (`str`):
            What it makes of the objective, in a sentence.
        paper ([`~papers.Paper`], *optional*):
            Where it is from.
    """

    acts: Callable[["VariantFields"], bool]
    meaning: str
    paper: Paper | None = None


CONDITIONS = (
    Condition(
        acts=lambda args: args.refill_groups is not None,
        meaning="Groups without signal were replaced by others: the objective is conditional on signal, as DAPO's is, and "
        "not GRPO's mean over all prompts.",
        paper=DAPO,
    ),
    Condition(
        acts=lambda args: args.prompt_sampling == "signal" and args.prompt_weights == "equal",
        meaning="Prompts were drawn by the signal that was expected of them and count as often as they were drawn: the "
        "objective weights prompts of middling success up.",
    ),
    Condition(
        acts=lambda args: args.prompt_weights == "unbiased",
        meaning="Prompts were drawn by the signal that was expected of them, with weights that make the expected gradient "
        "that of uniform draws.",
    ),
    Condition(
        acts=lambda args: args.prefetch_rollout,
        meaning="Each rollout was made while the one before was trained, so that the policy that made it is one rollout older "
        "than the one that its training began with.",
    ),
)


def check_prompt_settings(args: "VariantFields") -> None:
    """Refuse, with a `ValueError`, settings of the choice of prompts that are wrong or contradict others."""
    check_whole_number("refill_groups", args.refill_groups, optional=True)
    path = args.prompt_success_rates
    if path is not None and not (isinstance(path, str | os.PathLike) and str(path)):
        raise ValueError(f"`prompt_success_rates` must be the path of a file; got {shown(path)}.")
    if args.prompt_sampling != "signal":
        for name, default in (("prompt_weights", "equal"), ("prompt_success_rates", None)):
            if getattr(args, name) != default:
                raise ValueError(
                    f"`{name}={getattr(args, name)!r}` is about prompts that are drawn by their signal; it needs "
                    "`prompt_sampling='signal'`."
                )
    elif not args.shuffle_dataset:
        raise ValueError(
            "`prompt_sampling='signal'` draws prompts at random, but `shuffle_dataset=False` asks for the order of the "
            "data; leave one of them unset."
        )
    if args.refill_groups is None and args.surplus_groups != "drop":
        raise ValueError(
            f"`surplus_groups={args.surplus_groups!r}` is about groups that a refilled rollout has no room for; it needs "
            "`refill_groups`."
        )
    _check_weights(args)
    _check_refill(args)


def _check_weights(args: "VariantFields") -> None:
    if args.prompt_weights != "unbiased":
        return
    if args.refill_groups is not None:
        raise ValueError(
            f"`refill_groups={args.refill_groups}` makes the objective conditional on signal, which "
            "`prompt_weights='unbiased'` cannot undo; leave one of them unset."
        )
    if args.relates_rows:
        raise ValueError(
            "`prompt_weights='unbiased'` weights each prompt, but a term of the loss (`entropy_coef`, `use_adaptive_entropy`, "
            "`top_entropy_quantile`, or that of `policy_loss`) looks at all rows of a micro-batch together; leave it off."
        )


def _check_refill(args: "VariantFields") -> None:
    if args.refill_groups is None:
        return
    for statistics in _of_rollout(args):
        raise ValueError(
            f"{statistics} over a whole rollout, but `refill_groups` makes one of several generations; choose an advantage "
            "that looks at each group alone."
        )
    if args.surplus_groups == "keep":
        stale = {
            "mirror_sync_steps": args.mirror_sync_steps is not None,
            "sync_ref_model": args.sync_ref_model,
            "no_is_gradient": args.no_is_gradient == "frozen",
        }
        for field in (name for name, is_stale in stale.items() if is_stale):
            raise ValueError(
                f"`surplus_groups='keep'` trains groups one rollout later, when the earlier policy of "
                f"`{field}={getattr(args, field)!r}` may have moved; use `surplus_groups='drop'`."
            )


def _of_rollout(args: "VariantFields") -> Iterator[str]:
    """What each setting does that looks at all groups of a rollout together."""
    part = args.parts.advantage
    if part is not None and part.is_of_rollout:
        field = "advantage" if args.advantage is not None else list(part.fields or {})[-1]
        yield f"`{field}={getattr(args, field)!r}` takes statistics"
    if args.length_weight_power != 0.0:
        yield f"`length_weight_power={args.length_weight_power!r}` weights completions by a mean"


def idle_prompt_settings(args: "VariantFields") -> Iterator[str]:
    """A sentence on each setting of the choice of prompts that will not act, or not as its name says."""
    part = args.parts.advantage
    if args.chooses_prompts and part is not None and not part.is_zero_without_variance:
        if args.refill_groups is not None:
            yield (
                f"`refill_groups={args.refill_groups}` does nothing: with the advantage {part.name!r} groups of equal "
                "rewards have a signal too."
            )
        if args.prompt_sampling == "signal":
            yield (
                f"`prompt_sampling='signal'` prefers prompts whose rewards will differ, but with the advantage "
                f"{part.name!r} groups of equal rewards have a signal too."
            )
    if args.prompt_weights != "unbiased":
        return
    if args.loss_type not in ("grpo", "dr_grpo"):
        yield (
            f"`prompt_weights='unbiased'` is unbiased but for the number of tokens by which `loss_type={args.loss_type!r}` "
            "divides, which depends on the prompts that are drawn; 'grpo' and 'dr_grpo' divide by no such number."
        )
    for statistics in _of_rollout(args):
        yield (
            f"`prompt_weights='unbiased'` is not quite unbiased: {statistics} over a whole rollout, which depends on the "
            "prompts that are drawn."
        )
