# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The KL terms of arXiv 2503.06639: to the reference, to the previous policy, or to both."""

from ..papers import DEEPSEEKMATH, GRPO_DYNAMICS, K2
from .shared import MEAN_ONLY, SMOOTHED, TOKEN
from .variant import Variant


# Mean + variance or mean-only advantages, pulled towards the reference, the previous policy, or both.
_REGULARIZED = {
    "mirror": ("A KL to the previous policy", {"beta": 0.0, "mirror_beta": 0.1, "num_iterations": 4}),
    "dual": (
        "KLs to the fixed reference and to the previous policy",
        {"beta": 0.05, "mirror_beta": 0.05, "num_iterations": 4},
    ),
    "reference": ("A KL to the fixed reference", {"beta": 0.1, "mirror_beta": 0.0}),
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
            f"{terms}, with {words} advantages.",
            GRPO_DYNAMICS,
            advantage | TOKEN | settings | {"loss_type": "dr_grpo"},
        )
        for name, (terms, settings) in _REGULARIZED.items()
        for suffix, words, advantage in (
            ("", "mean + variance", SMOOTHED),
            ("_mean_only", "mean-only", MEAN_ONLY),
        )
    ),
    Variant(
        "reference_k2",
        "A KL to the fixed reference by the k2 estimator, with mean + variance advantages.",
        K2,
        SMOOTHED | TOKEN | _REGULARIZED["reference"][1] | {"loss_type": "dr_grpo", "kl_estimator": "k2"},
    ),
)
