# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Runs made by hand, and a reader of their pages."""

import json
from html.parser import HTMLParser

import pandas as pd

from trl_grpo_variants.cli import main
from trl_grpo_variants.report.summary import Summary
from trl_grpo_variants.runs.folder import Run, TrainerState
from trl_grpo_variants.runs.visits import SCHEMA


SIZE = 20
SUCCESSES = {
    "amplified": [2, 6, 12, 18],
    "stuck at 0": [0, 0, 0, 0],
    "oscillating": [2, 16, 3, 17],
    "saturated": [20, 20, 20, 20],
    "worsened": [15, 12, 5, 4],
    "unchanged": [9, 10, 12, 10],
}
SETTINGS = {
    "variant": "dual",
    "beta": 0.25,
    "mirror_beta": 0.75,
    "num_generations": SIZE,
    "not_predicted_because": None,
}


def visit(rollout, prompt_id, prompt, number, successes, predicted=None, size=SIZE):
    share = successes / size
    row = dict.fromkeys(SCHEMA.names) | {
        "rollout": rollout,
        "step": 4 * rollout,
        "prompt_id": prompt_id,
        "prompt": prompt,
        "visit": number,
        "successes": successes,
        "completions": size,
        "groups": 1,
        "groups_without_signal": int(successes in (0, size)),
        "silent_all_succeed": int(successes == size),
        "silent_none_succeeds": int(successes == 0),
        "success": share,
        "low": max(0.0, share - 0.2),
        "high": min(1.0, share + 0.2),
    }
    if predicted is not None:
        row |= {"predicted": predicted, "predicted_low": predicted - 0.05, "predicted_high": predicted + 0.05}
        row |= {"gap": share - predicted, "reference": 0.5, "previous": 0.5}
    return row


def made_rows(has_predictions=True):
    """Every prompt at each of four rollouts, predicted to succeed in 0.1 n + 0.3."""
    return [
        visit(n, kind, f"<script>{kind}</script>" if n == 0 else None, n + 1, counts[n], predicted)
        for n in range(4)
        for predicted in [0.1 * n + 0.3 if n and has_predictions else None]
        for kind, counts in SUCCESSES.items()
    ]


def history():
    entries = [
        {
            "step": step,
            "loss": 0.1,
            "reward": 0.5,
            "kl": 0.01 * step,
            "mirror_kl": 0.002 * step,
            "trajectory/ess": 1.0 - 0.01 * step,
            "trajectory/clipped_positive": 0.02 * step,
            "trajectory/clipped_negative": 0.01 * step,
            "trajectory/log_weight_std": 0.1 * step,
            "trajectory/log_weight_std_per_sqrt_token": 0.03 * step,
            "completions/mean_length": 10.0 + step,
            "completions/min_length": 1.0 + step,
            "completions/max_length": 20.0 + step,
            "completions/lower_quartile_length": 5.0 + step,
            "completions/upper_quartile_length": 15.0 + step,
            "completions/mean_successful_length": 8.0 + step,
            "completions/mean_failed_length": 12.0 + step,
            "completions/clipped_ratio": 0.05 * step,
            "theory/groups_without_signal": 0.3,
            "success": 0.5,
            "success@2": 0.75,
            "generated_tokens": 100.0 * step,
            "generation_time": 3.0,
            "rewards_time": 1.0,
            "update_time": 4.0,
        }
        for step in range(1, 17)
    ]
    entries[3]["kl"] = None
    for entry in entries[7::4]:
        entry["rollout_end/kl_standard_error"] = 0.001 * entry["step"]
    return entries


def write_state(folder, entries, step=16):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": entries}))


class Page(HTMLParser):
    """Elements and text of a page; fails where elements are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self._open = [], [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self._open[-1] != "style":
            self.texts.append(" ".join(data.split()))

    def attributes(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def report(folder, *arguments):
    assert main(["report", str(folder), *map(str, arguments)]) == 0
    return Page((folder / "report" / "index.html").read_text(encoding="utf-8"))


def made(rows=None, history=(), step=None, max_steps=None, **settings):
    """A run of these visits and logs, as its page sees it."""
    visits = None if rows is None else pd.DataFrame(rows, columns=SCHEMA.names)
    return Summary(Run("run", visits, settings, TrainerState(list(history), step, max_steps)))


def visits_of(counts, predicted=None, size=SIZE):
    """Every prompt at each rollout of 4 steps: successes by prompt, a list of one per visit; predictions likewise."""
    return [
        visit(n, prompt, f"text of {prompt}" if n == 0 else None, n + 1, successes[n], predictions[n], size)
        for n in range(max(map(len, counts.values())))
        for prompt, successes in counts.items()
        if n < len(successes)
        for predictions in [(predicted or {}).get(prompt, [None] * len(successes))]
    ]
