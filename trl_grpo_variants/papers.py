# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Publications that methods come from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """
    Publication that a method comes from.

    Parameters:
        title (`str`):
            Title.
        id (`str`):
            arXiv id.
        author (`str`):
            Authors, as BibTeX has them.
        key (`str`):
            BibTeX key.
    """

    title: str
    id: str
    author: str
    key: str

    @property
    def citation(self) -> str:
        """BibTeX entry."""
        return (
            f"@article{{{self.key},\n"
            f"    title        = {{{{{self.title}}}}},\n"
            f"    author       = {{{self.author}}},\n"
            f"    year         = 20{self.id[:2]},\n"
            f"    eprint       = {{arXiv:{self.id}}},\n"
            "}"
        )


DAPO = Paper(
    "DAPO: An Open-Source LLM Reinforcement Learning System at Scale",
    "2503.14476",
    "Qiying Yu and others",
    "yu2025dapo",
)
DEEPSEEKMATH = Paper(
    "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models",
    "2402.03300",
    "Zhihong Shao and others",
    "shao2024deepseekmath",
)
GDPO = Paper(
    "GDPO: Group reward-Decoupled Normalization Policy Optimization for Multi-reward RL Optimization",
    "2601.05242",
    "Shih-Yang Liu and others",
    "liu2026gdpo",
)
GMPO = Paper("Geometric-Mean Policy Optimization", "2507.20673", "Yuzhong Zhao and others", "zhao2025gmpo")
GRPO_DYNAMICS = Paper(
    "Reinforcement Learning with Verifiable Rewards: GRPO's Effective Loss, Dynamics, and Success Amplification",
    "2503.06639",
    "Youssef Mroueh",
    "mroueh2025grpodynamics",
)
K2 = Paper(
    "Rethinking KL Regularization in RLHF: From Value Estimation to Gradient Optimization",
    "2510.01555",
    "Kezhao Liu and others",
    "liu2025rethinking",
)
LITE_PPO = Paper(
    "Tricks or Traps? A Deep Dive into RL for LLM Reasoning", "2508.08221", "Zihe Liu and others", "liu2025tricks"
)
RS_GRPO = Paper(
    "Risk-Sensitive RL for Alleviating Exploration Dilemmas in Large Language Models",
    "2509.24261",
    "Yuhua Jiang and others",
    "jiang2025risk",
)
TIC_GRPO = Paper(
    "TIC-GRPO: Provable and Efficient Optimization for Reinforcement Learning from Human Feedback",
    "2508.02833",
    "Lei Pang and Jun Luo and Ruinan Jin",
    "pang2025ticgrpo",
)
