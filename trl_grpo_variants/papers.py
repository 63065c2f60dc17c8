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


ADVANTAGE_REWEIGHTING = Paper(
    "Do Not Let Low-Probability Tokens Over-Dominate in RL for LLMs",
    "2505.12929",
    "Zhihe Yang and others",
    "yang2025lowprobability",
)
ASPO = Paper(
    "ASPO: Asymmetric Importance Sampling Policy Optimization", "2510.06062", "Jiakang Wang and others", "wang2025aspo"
)
ASYM_RE = Paper(
    "Asymmetric REINFORCE for off-Policy Reinforcement Learning: Balancing positive and negative rewards",
    "2506.20520",
    "Charles Arnal and others",
    "arnal2025asymmetric",
)
BNPO = Paper(
    "BNPO: Beta Normalization Policy Optimization",
    "2506.02864",
    "Changyi Xiao and Mengdi Zhang and Yixin Cao",
    "xiao2025bnpo",
)
CE_GPPO = Paper(
    "CE-GPPO: Coordinating Entropy via Gradient-Preserving Clipping Policy Optimization in Reinforcement Learning",
    "2509.20712",
    "Zhenpeng Su and others",
    "su2025cegppo",
)
DCPO = Paper("DCPO: Dynamic Clipping Policy Optimization", "2509.02333", "Shihui Yang and others", "yang2025dcpo")
DEEPSEEKMATH = Paper(
    "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models",
    "2402.03300",
    "Zhihong Shao and others",
    "shao2024deepseekmath",
)
DELTA_L = Paper(
    "Delta L Normalization: Rethink Loss Aggregation in RLVR",
    "2509.07558",
    "Zhiyuan He and others",
    "he2025deltal",
)
DPPO = Paper(
    "Rethinking the Trust Region in LLM Reinforcement Learning", "2602.04879", "Penghui Qi and others", "qi2026dppo"
)
ENTROPY_MECHANISM = Paper(
    "The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models",
    "2505.22617",
    "Ganqu Cui and others",
    "cui2025entropy",
)
ENTROPY_SHAPED = Paper(
    "Reasoning with Exploration: An Entropy Perspective",
    "2506.14758",
    "Daixuan Cheng and others",
    "cheng2025reasoning",
)
GDPO = Paper(
    "GDPO: Group reward-Decoupled Normalization Policy Optimization for Multi-reward RL Optimization",
    "2601.05242",
    "Shih-Yang Liu and others",
    "liu2026gdpo",
)
GMPO = Paper("Geometric-Mean Policy Optimization", "2507.20673", "Yuzhong Zhao and others", "zhao2025gmpo")
GPG = Paper(
    "GPG: A Simple and Strong Reinforcement Learning Baseline for Model Reasoning",
    "2504.02546",
    "Xiangxiang Chu and others",
    "chu2025gpg",
)
GPPO = Paper(
    "Klear-Reasoner: Advancing Reasoning Capability via Gradient-Preserving Clipping Policy Optimization",
    "2508.07629",
    "Zhenpeng Su and others",
    "su2025klear",
)
GRPO_DYNAMICS = Paper(
    "Reinforcement Learning with Verifiable Rewards: GRPO's Effective Loss, Dynamics, and Success Amplification",
    "2503.06639",
    "Youssef Mroueh",
    "mroueh2025grpodynamics",
)
INFERENCE_TIME = Paper(
    "Optimizing Language Models for Inference Time Objectives using Reinforcement Learning",
    "2503.19595",
    "Yunhao Tang and others",
    "tang2025inference",
)
K2 = Paper(
    "Rethinking KL Regularization in RLHF: From Value Estimation to Gradient Optimization",
    "2510.01555",
    "Kezhao Liu and others",
    "liu2025rethinking",
)
KIMI = Paper("Kimi k1.5: Scaling Reinforcement Learning with LLMs", "2501.12599", "Kimi Team", "kimi2025k15")
LITE_PPO = Paper(
    "Tricks or Traps? A Deep Dive into RL for LLM Reasoning", "2508.08221", "Zihe Liu and others", "liu2025tricks"
)
MAXRL = Paper(
    "Maximum Likelihood Reinforcement Learning",
    "2602.02710",
    "Fahim Tajwar and others",
    "tajwar2026maxrl",
)
NSR = Paper(
    "The Surprising Effectiveness of Negative Reinforcement in LLM Reasoning",
    "2506.01347",
    "Xinyu Zhu and others",
    "zhu2025negative",
)
OPO = Paper(
    "On-Policy RL with Optimal Reward Baseline",
    "2505.23585",
    "Yaru Hao and others",
    "hao2025opo",
)
PASS_AT_K = Paper(
    "Pass@k Training for Adaptively Balancing Exploration and Exploitation of Large Reasoning Models",
    "2508.10751",
    "Zhipeng Chen and others",
    "chen2025passk",
)
PMD = Paper(
    "Approximation of Log-Partition Function in Policy Mirror Descent Induces Implicit Regularization for LLM Post-Training",
    "2602.05933",
    "Zhenghao Xu and Qin Lu and Changlong Yu and Tuo Zhao",
    "xu2026pmd",
)
QAE = Paper(
    "Quantile Advantage Estimation: Stabilizing RLVR for LLM Reasoning",
    "2509.22611",
    "Junkang Wu and others",
    "wu2025quantile",
)
REINFORCE_PLUS_PLUS = Paper(
    "REINFORCE++: Stabilizing Critic-Free Policy Optimization with Global Advantage Normalization",
    "2501.03262",
    "Jian Hu and others",
    "hu2025reinforce",
)
RLOO = Paper(
    "Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback in LLMs",
    "2402.14740",
    "Arash Ahmadian and others",
    "ahmadian2024rloo",
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
TOPR = Paper(
    "Tapered Off-Policy REINFORCE: Stable and efficient reinforcement learning for LLMs",
    "2503.14286",
    "Nicolas Le Roux and others",
    "leroux2025tapered",
)
