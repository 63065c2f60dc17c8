# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The KL terms of arXiv 2503.06639: to the reference, to the previous policy, or to both."""

from ..papers import DEEPSEEKMATH, GRPO_DYNAMICS, K2
from .shared import MEAN_ONLY, SMOOTHED, TOKEN
from .variant import Variant


# Mean + variance or mean-only advantages, pulled towards the reference, the previous policy, or both.
_REGULARIZED = {
    "mirror": ("the previous policy", {"beta": 0.0, "mirror_beta": 0.1, "num_iterations": 4}),
    "dual": (
        "both the fixed reference and the previous policy",
        {"beta": 0.05, "mirror_beta": 0.05, "num_iterations": 4},
    ),
    "reference": ("the fixed reference", {"beta": 0.1, "mirror_beta": 0.0}),
}

DYNAMICS = (
    Variant("grpo", "Stock TRL; the baseline of every comparison.", DEEPSEEKMATH),
    Variant(
        "mean_only",
        "Stock TRL with mean-only advantages.",
        GRPO_DYNAMICS,
        MEAN_ONLY | {"importance_sampling_level": "token"},
    ),
    *(
        Variant(
            f"{name}{suffix}",
            f"GRPO with {words} advantages, regularised towards {anchors}.",
            GRPO_DYNAMICS,
            advantage | TOKEN | settings | {"loss_type": "dr_grpo"},
        )
        for name, (anchors, settings) in _REGULARIZED.items()
        for suffix, words, advantage in (
            ("", "mean + variance", SMOOTHED),
            ("_mean_only", "mean-only", MEAN_ONLY),
        )
    ),
    Variant(
        "reference_k2",
        "GRPO with mean + variance advantages, regularised towards the fixed reference with the k2 estimator.",
        K2,
        SMOOTHED | TOKEN | _REGULARIZED["reference"][1] | {"loss_type": "dr_grpo", "kl_estimator": "k2"},
    ),
)
