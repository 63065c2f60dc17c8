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
DAPO = Paper(
    "DAPO: An Open-Source LLM Reinforcement Learning System at Scale",
    "2503.14476",
    "Qiying Yu and others",
    "yu2025dapo",
)
DCPO = Paper("DCPO: Dynamic Clipping Policy Optimization", "2509.02333", "Shihui Yang and others", "yang2025dcpo")
DEEPSEEKMATH = Paper(
    "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models",
    "2402.03300",
    "Zhihong Shao and others",
    "shao2024deepseekmath",
)
DEEPSEEK_R1 = Paper(
    "DeepSeek-R1: Incentivizing Reasoning Capability in LLMs via Reinforcement Learning",
    "2501.12948",
    "DeepSeek-AI and others",
    "deepseekai2025r1",
)
DEEPSEEK_V32 = Paper(
    "DeepSeek-V3.2: Pushing the Frontier of Open Large Language Models",
    "2512.02556",
    "DeepSeek-AI and others",
    "deepseekai2025v32",
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
DR_GRPO = Paper(
    "Understanding R1-Zero-Like Training: A Critical Perspective",
    "2503.20783",
    "Zichen Liu and others",
    "liu2025understanding",
)
DUAL_CLIP = Paper(
    "Mastering Complex Control in MOBA Games with Deep Reinforcement Learning",
    "1912.09729",
    "Deheng Ye and others",
    "ye2019mastering",
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
GSPO = Paper("Group Sequence Policy Optimization", "2507.18071", "Chujie Zheng and others", "zheng2025gspo")
HIGH_ENTROPY = Paper(
    "Beyond the 80/20 Rule: High-Entropy Minority Tokens Drive Effective Reinforcement Learning for LLM Reasoning",
    "2506.01939",
    "Shenzhi Wang and others",
    "wang2025beyond",
)
INFERENCE_TIME = Paper(
    "Optimizing Language Models for Inference Time Objectives using Reinforcement Learning",
    "2503.19595",
    "Yunhao Tang and others",
    "tang2025inference",
)
INTELLECT_2 = Paper(
    "INTELLECT-2: A Reasoning Model Trained Through Globally Decentralized Reinforcement Learning",
    "2505.07291",
    "Prime Intellect Team and others",
    "primeintellect2025intellect2",
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
LUSPO = Paper(
    "Length-Unbiased Sequence Policy Optimization: Revealing and Controlling Response Length Variation in RLVR",
    "2602.05261",
    "Fanfan Liu and others",
    "liu2026luspo",
)
MAXRL = Paper(
    "Maximum Likelihood Reinforcement Learning",
    "2602.02710",
    "Fahim Tajwar and others",
    "tajwar2026maxrl",
)
MINIMAX_M1 = Paper(
    "MiniMax-M1: Scaling Test-Time Compute Efficiently with Lightning Attention",
    "2506.13585",
    "MiniMax and others",
    "minimax2025m1",
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
RETRACE = Paper(
    "Safe and Efficient Off-Policy Reinforcement Learning", "1606.02647", "Rémi Munos and others", "munos2016safe"
)
RING_1T = Paper(
    "Every Step Evolves: Scaling Reinforcement Learning for Trillion-Scale Thinking Model",
    "2510.18855",
    "Ling Team and others",
    "lingteam2025everystep",
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
SAPO = Paper("Soft Adaptive Policy Optimization", "2511.20347", "Chang Gao and others", "gao2025sapo")
SCALE_RL = Paper(
    "The Art of Scaling Reinforcement Learning Compute for LLMs",
    "2510.13786",
    "Devvrit Khatri and others",
    "khatri2025art",
)
SKYWORK_OR1 = Paper("Skywork Open Reasoner 1 Technical Report", "2505.22312", "Jujie He and others", "he2025skywork")
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
TR_DPO = Paper(
    "Learn Your Reference Model for Real Good Alignment",
    "2404.09656",
    "Alexey Gorbatovski and others",
    "gorbatovski2024learn",
)
TWO_GRPO = Paper("It Takes Two: Your GRPO Is Secretly DPO", "2510.00977", "Yihong Wu and others", "wu2025takes")
VESPO = Paper(
    "VESPO: Variational Sequence-Level Soft Policy Optimization for Stable Off-Policy LLM Training",
    "2602.10693",
    "Guobin Shen and others",
    "shen2026vespo",
)
