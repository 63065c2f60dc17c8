# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
What TRL computes by itself, with the values of the papers.

The size of a group, lengths and learning rates are a run's own and left open, but where they are the method.
"""

from .. import papers
from .shared import MEAN_ONLY, NO_KL, TOKEN, TRL_STD
from .variant import Variant


_BATCH_STD = {"scale_rewards": "batch"}
_SEQUENCE = {"importance_sampling_level": "sequence", "inner_steps": 4}
_R1_KL = {"beta": 1e-3}
_DAPO = (
    TRL_STD
    | NO_KL
    | TOKEN
    | {"epsilon_high": 0.28, "loss_type": "dapo", "mask_truncated_completions": True, "inner_steps": 16}
)
_CISPO = NO_KL | {"importance_sampling_level": "token", "loss_type": "cispo", "epsilon_high": 5.0, "inner_steps": 4}

STOCK = (
    Variant(
        "r1",
        "DeepSeek-R1's GRPO: a small KL to the reference, a clip that only cuts very large ratios.",
        papers.DEEPSEEK_R1,
        # The paper's range is 10 on both sides; no ratio lies below 0.
        TRL_STD | TOKEN | _R1_KL | {"epsilon": 1.0, "epsilon_high": 10.0, "loss_type": "grpo", "inner_steps": 16},
    ),
    Variant(
        "dr_grpo",
        "Dr. GRPO: neither a standard deviation nor a completion's own length divides.",
        papers.DR_GRPO,
        MEAN_ONLY | NO_KL | TOKEN | {"loss_type": "dr_grpo"},
    ),
    Variant(
        "dapo",
        "DAPO without its dynamic sampling: a higher upper clip, token mean, cut-off completions masked.",
        papers.DAPO,
        _DAPO,
    ),
    Variant(
        "high_entropy_tokens",
        "The 80/20 rule: DAPO on the fifth of the tokens with the highest entropy.",
        papers.HIGH_ENTROPY,
        _DAPO | {"top_entropy_quantile": 0.2},
    ),
    Variant(
        "lite_ppo",
        "Lite PPO: the standard deviation of the batch, and a mean over all tokens.",
        papers.LITE_PPO,
        _BATCH_STD | NO_KL | TOKEN | {"loss_type": "dapo"},
    ),
    Variant(
        "gdpo",
        "GDPO: each reward function is normalised by itself before they are added.",
        papers.GDPO,
        {"multi_objective_aggregation": "normalize_then_sum"},
    ),
    Variant(
        "two_grpo",
        "2-GRPO: two completions per prompt, so that a group is a pair.",
        papers.TWO_GRPO,
        TRL_STD | {"num_generations": 2, "loss_type": "grpo"},
    ),
    Variant(
        "two_sided",
        "INTELLECT-2: ratios are capped where the advantage is negative too.",
        papers.INTELLECT_2,
        TRL_STD | TOKEN | _R1_KL | {"delta": 4.0, "loss_type": "dapo", "inner_steps": 4},
    ),
    Variant(
        "dual_clip",
        "Dual-clip PPO: a bound of 3 on the ratio where the advantage is negative.",
        papers.DUAL_CLIP,
        # TRL's bound of the other side is this one where it lies above the clip.
        TRL_STD | NO_KL | TOKEN | {"delta": 3.0, "loss_type": "grpo", "inner_steps": 4},
    ),
    Variant(
        "gspo",
        "GSPO: one ratio per completion, the geometric mean over its tokens, with a narrow clip.",
        papers.GSPO,
        TRL_STD | NO_KL | _SEQUENCE | {"epsilon": 3e-4, "epsilon_high": 4e-4, "loss_type": "grpo"},
    ),
    Variant(
        "luspo",
        "LUSPO: GSPO with each completion weighted by its length.",
        papers.LUSPO,
        TRL_STD | NO_KL | _SEQUENCE | {"epsilon": 2e-3, "epsilon_high": 2.5e-3, "loss_type": "luspo"},
    ),
    Variant(
        "cispo",
        "CISPO of MiniMax-M1: a capped ratio as a weight, so that every token keeps a gradient.",
        papers.MINIMAX_M1,
        TRL_STD | _CISPO,
    ),
    Variant(
        "scale_rl",
        "ScaleRL's loss: CISPO, the standard deviation of the batch, a language model head in float32.",
        papers.SCALE_RL,
        _BATCH_STD | _CISPO | {"cast_lm_head_to_fp32": True},
    ),
    Variant(
        "sapo",
        "SAPO: a smooth gate on the ratio in place of the clip, steeper for negative advantages.",
        papers.SAPO,
        TRL_STD
        | NO_KL
        | {"importance_sampling_level": "token", "loss_type": "sapo", "inner_steps": 4}
        | {"sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.05},
    ),
    Variant(
        "vespo",
        "VESPO: a smooth weight of the completion's whole ratio in place of the clip.",
        papers.VESPO,
        TRL_STD
        | NO_KL
        | {"importance_sampling_level": "token", "loss_type": "vespo", "inner_steps": 4}
        | {"vespo_k_pos": 2.0, "vespo_lambda_pos": 3.0, "vespo_k_neg": 3.0, "vespo_lambda_neg": 2.0}
        # With vLLM, TRL takes no other correction than one of tokens into that weight.
        | {"vllm_importance_sampling_mode": "token_truncate"},
    ),
    Variant(
        "off_policy_mask",
        "DeepSeek-V3.2: failed completions that the policy has left behind are masked; unbiased KL.",
        papers.DEEPSEEK_V32,
        TRL_STD | TOKEN | _R1_KL | {"off_policy_mask_threshold": 0.5, "loss_type": "grpo", "inner_steps": 4},
    ),
    Variant(
        "adaptive_entropy",
        "Skywork-OR1: an entropy bonus that grows while the entropy is below a target.",
        papers.SKYWORK_OR1,
        TRL_STD
        | NO_KL
        | TOKEN
        | {"loss_type": "dapo", "use_adaptive_entropy": True, "entropy_target": 0.2, "entropy_coef_delta": 0.005},
    ),
    Variant(
        "reference_reset",
        "A reference that becomes the policy every 512 optimizer steps, TR-DPO's hard update.",
        papers.TR_DPO,
        {"beta": 0.1, "sync_ref_model": True, "ref_model_mixup_alpha": 1.0, "ref_model_sync_steps": 512},
    ),
    Variant(
        "tis",
        "Truncated importance sampling against the mismatch to vLLM, token by token; needs `use_vllm`.",
        papers.RETRACE,
        {"vllm_importance_sampling_mode": "token_truncate"},
    ),
    Variant(
        "mis",
        "Masked importance sampling against the mismatch to vLLM, TRL's default; needs `use_vllm`.",
        papers.RING_1T,
        {"vllm_importance_sampling_mode": "sequence_mask"},
    ),
    Variant(
        "icepop",
        "IcePop: tokens on which vLLM and the trainer disagree are masked; needs `use_vllm`.",
        papers.RING_1T,
        {"vllm_importance_sampling_mode": "token_mask"}
        | {"vllm_importance_sampling_clip_min": 0.5, "vllm_importance_sampling_clip_max": 5.0},
    ),
)
