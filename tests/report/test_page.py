# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The page of runs in every state: it is one file, small, and holds what there is."""

import json
import math
import re

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from trl_grpo_variants.objective.policies import POLICY_TERMS
from trl_grpo_variants.report.page import render
from trl_grpo_variants.runs.folder import Run, TrainerState
from trl_grpo_variants.runs.visits import FILE_NAME, JOURNAL_NAME, NO_VISITS, Visits

from .made import SETTINGS, SIZE, SUCCESSES, Page, history, made, made_rows, report, visits_of, write_state


LIMIT = 300_000
MODULES = [
    *("success", "gap", "by-prediction", "map", "changes", "signal", "best-of", "kl", "mirror-kl", "ess", "clipped"),
    *("spread", "length", "cut-off", "success-tokens", "success-time", "time"),
]


def page_of(run):
    """The page of a run, which is below its limit and needs nothing else."""
    text, left = render(run)
    assert len(text.encode()) < LIMIT
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!#)|url\(|@import|https?:|<script|<img|nan|inf[^a-z]", text)
    page = Page(text)
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    links = {attributes["href"].removeprefix("#") for attributes in page.attributes("a")}
    assert links <= set(identifiers)
    return page, left


def run_of(rows=None, logs=(), **settings):
    return made(rows, logs, **settings).run


def modules(page):
    return [attributes["id"] for attributes in page.attributes("figure")]


def test_the_page_is_one_file_with_all_modules_in_their_order(tmp_path, capsys):
    folder = tmp_path / "visit=1" / "run <1>"
    Visits(folder, SETTINGS).start(pd.DataFrame(made_rows()))
    write_state(folder / "checkpoint-16", history())
    page = report(folder)
    assert modules(page) == MODULES
    assert [path.name for path in (folder / "report").iterdir()] == ["index.html"]
    text = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert str(tmp_path) not in text and text.startswith("<!DOCTYPE html>")
    assert page.texts.count("run <1>") == 1
    size = round(len(text.encode()) / 1000)
    assert f"Wrote {folder / 'report' / 'index.html'}: {size} kB.\n" in capsys.readouterr().out
    page_of(run_of(made_rows(), history(), **SETTINGS))


def test_headings_and_drawings_are_told_to_those_who_cannot_see_them():
    page, _ = page_of(run_of(made_rows(), history(), **SETTINGS))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and set(levels) == {1, 2, 3}
    drawings = [attributes for attributes in page.attributes("svg") if attributes["class"] == "chart"]
    assert len(drawings) == len(MODULES) + 3
    assert drawings and all(drawing["role"] == "img" and drawing["aria-label"] for drawing in drawings)
    others = [attributes for attributes in page.attributes("svg") if attributes["class"] != "chart"]
    assert others and all(attributes["aria-hidden"] == "true" for attributes in others)
    label = drawings[0]["aria-label"]
    assert label == "Success over the run: 0.40 at first, 0.58 at last. Predicted: 0.60 at last."
    for drawing in drawings:
        assert drawing["viewbox"] == f"0 0 {drawing['width']} {drawing['height']}"
    assert "visit 2: +0.133 [−0.151, +0.418]; visit 3:" in " ".join(page.texts)
    assert page.attributes("nav") == [{"class": "key-figures", "aria-label": "Key figures"}]


def test_no_mark_has_a_colour_of_its_own():
    text, _ = render(run_of(made_rows(), history(), **SETTINGS))
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert not re.search(r"#[0-9a-f]{3,6}\b|style=|fill=|stroke=", drawings)
    classes = set(re.findall(r'class="([^"]+)"', drawings))
    styled = text[: text.index("</style>")]
    assert all(f".{name}" in styled for kinds in classes for name in kinds.split())


def test_the_details_hold_prompts_settings_and_everything_that_was_logged():
    settings = SETTINGS | {
        "objective": "mean_i [-rho A]",
        "legend": ["`rho`: a ratio"],
        "subject": {"model": "tiny", "seed": "7"},
        "all": {"beta": "0.25", "seed": "7", "weight_decay": "0.5"},
    }
    page, _ = page_of(run_of(made_rows(), history(), **settings))
    texts = page.texts
    assert texts[texts.index("weight_decay") + 1] == "0.5"
    for told in ("mean_i [-rho A]", "tiny", "All 6 prompts", "completions/mean_length"):
        assert told in texts
    row = texts.index("completions/mean_length")
    assert texts[row + 1 : row + 5] == ["11.0", "26.0", "11.0", "26.0"]
    row = max(i for i, text in enumerate(texts) if text == "<script>worsened</script>")
    assert texts[row + 1 : row + 5] == ["0.68", "0.23", "4", "worse"]


# ---- states --------------------------------------------------------------------------------------------------------


def test_a_run_cut_off_before_its_first_checkpoint(tmp_path, capsys):
    """Nothing but the journal behind an empty file."""
    store = Visits(tmp_path, SETTINGS | {"max_steps": 100})
    store.start(NO_VISITS)
    for n in range(4):
        store.append(pd.DataFrame([row for row in made_rows() if row["rollout"] == n]))
    with open(tmp_path / JOURNAL_NAME, "a") as journal:
        journal.write('{"rollout": 4, "st')
    page = report(tmp_path)
    assert any(" by step 12 of 100" in text for text in page.texts)
    assert modules(page) == ["success", "gap", "by-prediction", "map", "changes", "signal"]
    told = "Gradient norm, What success cost, because there are no logs; a run writes them with its checkpoints.\n"
    assert told in capsys.readouterr().out
    # Reading it changes nothing.
    assert (tmp_path / JOURNAL_NAME).exists() and pq.read_table(tmp_path / FILE_NAME).num_rows == 0


def test_a_checkpoint_that_cannot_be_read_is_told_beside_an_older_one(tmp_path, capsys):
    Visits(tmp_path, SETTINGS).start(pd.DataFrame(made_rows()))
    write_state(tmp_path / "checkpoint-8", history()[:8], step=8)
    (tmp_path / "checkpoint-16").mkdir()
    (tmp_path / "checkpoint-16" / "trainer_state.json").write_text('{"global_step": 16, "log_hist')
    page = report(tmp_path)
    assert "kl" in modules(page)
    assert "Left out: Newer logs, because checkpoint-16/trainer_state.json is truncated.\n" in capsys.readouterr().out


def test_a_run_that_has_just_begun(tmp_path):
    Visits(tmp_path, SETTINGS).start(NO_VISITS)
    page = report(tmp_path)
    assert "No rollout was recorded." in page.texts and modules(page) == []


def test_without_a_monitor_there_is_nothing_of_the_prompts(tmp_path):
    write_state(tmp_path, history())
    page = report(tmp_path)
    expected = [name for name in MODULES if name not in ("gap", "by-prediction", "map", "changes", "signal")]
    assert modules(page) == expected
    assert not {"Against the theory", "Prompt by prompt"} & set(page.texts)
    # An axis from 0 to 1, whatever the success was.
    text = (tmp_path / "report" / "index.html").read_text()
    assert re.search(
        r'aria-label="Success over the run: 0.50 at first, 0.50 at last.".*?>0.25</text>.*?>1</text>', text
    )


def test_held_out_success_is_drawn_also_without_a_monitor():
    evaluations = [
        {"step": step, "eval_success": share, "eval_success_prompts": 400} for step, share in ((4, 0.3), (12, 0.6))
    ]
    text, _ = render(run_of(None, history() + evaluations))
    assert "Held-out success rose from 0.30 to 0.60" in text
    # Of each of three drawings, and of the key.
    assert text.count('class="diamond"') == 3 * 2 + 1


def test_logs_of_stock_trl_alone(tmp_path):
    write_state(tmp_path, [{"step": 1, "reward": 0.5, "completions/mean_length": 3.0}], step=1)
    page = report(tmp_path)
    assert modules(page) == ["success", "length"] and "Reward over the run" in page.texts


def test_a_run_without_predictions_says_why():
    settings = SETTINGS | {"not_predicted_because": "there is no KL term (`beta` is 0)"}
    page, left = page_of(run_of(made_rows(has_predictions=False), history(), **settings))
    assert left["there is no KL term (`beta` is 0)"] == ["Prediction and gap"]
    assert "Against the theory" not in page.texts and "beta" in page.texts


def test_a_coefficient_of_0_is_why_there_is_no_kl():
    _, left = page_of(run_of(None, [{"step": 1, "loss": 0.1, "reward": 0.5}], beta=0.0, mirror_beta=0.0))
    assert left["`beta` is 0"] == ["KL to the reference"]
    assert left["`mirror_beta` is 0"] == ["KL to the previous policy"]


def test_one_visit_per_prompt():
    counts = {prompt: [successes[0]] for prompt, successes in SUCCESSES.items()}
    page, left = page_of(run_of(visits_of(counts), history()))
    assert "each visited once." in " ".join(page.texts) and "map" not in modules(page)
    assert page.texts[page.texts.index("mean of the only visits") - 2 :][:2] == ["Success", "0.40"]
    assert left["no prompt was visited twice"] == ["Each prompt over the run"]


def test_one_rollout():
    page, _ = page_of(run_of(visits_of({"a": [10]}), history()[:1]))
    assert modules(page)[0] == "success"


def test_rewards_that_are_not_binary():
    """Groups of equal rewards may be neither all right nor all wrong."""
    rows = [row | {"groups_without_signal": 1} for row in visits_of({str(n): [10, 12] for n in range(4)})]
    page, _ = page_of(run_of(rows, history()))
    assert "equal otherwise" in page.texts and "all succeed" not in page.texts


def test_all_prompts_stuck_at_0():
    page, _ = page_of(run_of(visits_of({str(n): [0, 0, 0] for n in range(6)}), history()[:1]))
    assert "6 of 6 prompts never succeeded." in " ".join(page.texts).replace("\xa0", " ")


def test_five_prompts():
    page, _ = page_of(run_of(visits_of({str(n): [5, 9, 14] for n in range(5)}), history()))
    assert "All 5 prompts" in page.texts


def test_ten_thousand_prompts_are_sixty_rows_and_two_hundred_lines():
    generator = np.random.default_rng(0)
    drawn = generator.binomial(SIZE, 0.5, size=(10_000, 2))
    page, _ = page_of(run_of(visits_of({str(n): list(map(int, counts)) for n, counts in enumerate(drawn)}), history()))
    assert page.texts.count("All 10,000 prompts") == 1
    assert "And 9,800 more, in the run's file of visits." in page.texts
    assert any(re.search(r"\. \d+ of 10,000 prompts are shown\.", text) for text in page.texts)


def test_the_largest_page_is_small():
    """As many rows, columns, lines, dots and metrics as a page holds, and prompts of which each letter is escaped."""
    generator = np.random.default_rng(0)
    drawn = generator.binomial(SIZE, 0.5, size=(500, 16))
    predicted = generator.uniform(0.3, 0.7, size=(500, 16))
    counts, names = [list(map(int, row)) for row in drawn], [f"{n:05} " + "&" * 150 for n in range(500)]
    predictions = dict(zip(names, predicted.tolist(), strict=True))
    rows = visits_of(dict(zip(names, counts, strict=True)), predictions)
    # Of 400 rollouts.
    rows = [row | {"rollout": n // 20, "step": 2 * (n // 20)} for n, row in enumerate(rows)]
    logs = [entry | {f"user/{n}": float(generator.normal()) for n in range(80)} for entry in history() * 60]
    logs = [entry | {"step": step, "grad_norm": 1.0, "entropy": 0.5} for step, entry in enumerate(logs[:800], 1)]
    page_of(run_of(rows, logs, **SETTINGS))


def test_logs_that_stand_for_several_steps_are_means():
    every_fourth = [entry | {"step": 4 * entry["step"]} for entry in history()]
    page, _ = page_of(run_of(made_rows(), every_fourth))
    texts = " ".join(page.texts)
    assert "Nats per token, means between two logs." in texts and "end of each rollout" not in texts


def test_values_that_are_not_finite():
    logs = history()
    logs[3] |= {"kl": math.inf, "grad_norm": math.nan}
    page, _ = page_of(run_of(made_rows(), logs))
    texts = page.texts
    at = next(i for i, text in enumerate(texts) if text.endswith("At step 4"))
    assert texts[at + 1 : at + 3] == ["kl", "was not finite."]


@pytest.mark.parametrize("name", ["<b>&amp;\"'</b>", "</style><script>alert(1)</script>", "שלום `code`", "x" * 5000])
def test_texts_of_a_run_are_no_markup(name):
    rows = [row | {"prompt": f"{name} {row['prompt']}" if row["prompt"] else None} for row in made_rows()]
    settings = SETTINGS | {
        "variant": name,
        "not_predicted_because": name,
        "all": {name: name},
        "subject": {name: name},
    }
    page, _ = page_of(Run(name, pd.DataFrame(rows), settings, TrainerState([{name: 1.0} | history()[0]], 1)))
    assert {tag for tag, _ in page.elements} & {"b", "script"} <= {"b"}
    assert name in page.texts


def test_settings_that_were_edited_are_not_taken_for_others():
    odd = {"all": [1], "subject": "x", "legend": 3, "max_steps": "many", "beta": "0", "metrics": ["no", "mapping"]}
    page_of(run_of(made_rows(), history(), **odd))


# ---- the policy term -----------------------------------------------------------------------------------------------


def terms(logged, **settings):
    """Titles and subtitles of the modules of the policy term."""
    entries = [
        {"step": 1, "loss": 0.1, "reward": 0.5, "completions/mean_length": 3.0, "rewards/mine/mean": 1.0} | logged
    ]
    page, _ = page_of(run_of(None, entries, **settings))
    texts = page.texts
    return {text: texts[i + 1] for i, text in enumerate(texts) if "/" in text and texts[i + 1].startswith("Mean of")}


OWN_METRICS = [
    pytest.param(part, id=part.name) for part in POLICY_TERMS.values() if part.metrics and part.name != "trajectory"
]


@pytest.mark.parametrize("part", OWN_METRICS)
def test_the_metrics_of_a_term_are_those_of_its_description(part):
    found = terms(dict.fromkeys(part.metrics, 0.5) | {"trajectory/ess": 1.0})
    assert found == {name: f"Mean of a rollout of {meaning}. Last 0.50." for name, meaning in part.metrics.items()}


def test_a_users_term_is_shown_with_what_it_declares_and_else_by_name():
    logged = {"mine/ratio": 0.5, "mine/rows": 0.1, "eval_mine/ratio": 0.2}
    assert terms(logged, metrics={"mine/ratio": "ratios"}) == {
        "mine/ratio": "Mean of a rollout of ratios. Last 0.50.",
        "mine/rows": "Mean of a rollout. Last 0.10.",
    }
    assert terms({}, metrics=["no", "mapping"]) == {}


def test_of_many_metrics_of_a_term_the_first_are_drawn():
    found = {f"mine/{n}": 0.5 for n in range(20)}
    assert list(terms(found)) == [f"mine/{n}" for n in range(8)]
    _, left = render(run_of(None, [{"step": 1, "loss": 0.1, "reward": 0.5} | found]))
    assert left["there are too many of its kind; it is among all that was logged"] == [
        f"mine/{n}" for n in range(8, 20)
    ]


def subtitles(logs):
    page, _ = page_of(run_of(None, [{"step": 1, "loss": 0.1, "reward": 0.5} | logs]))
    return " ".join(page.texts)


def test_clipped_trajectories_are_shares_of_all_and_of_those_of_their_sign():
    logged = {"trajectory/clipped_positive": 0.02, "trajectory/clipped_negative": 0.03}
    told = "Share of trajectories, mean of a rollout. Whole run: 2.0 % with A > 0, 3.0 % with A < 0."
    assert told in subtitles(logged) and "of that sign" not in subtitles(logged)
    both = subtitles(logged | {"trajectory/positive": 0.1, "trajectory/negative": 0.2})
    assert f"{told} Of those of that sign 20 % and 15 %." in both and "trajectory/positive Mean" not in both
    one_sided = subtitles(logged | {"trajectory/positive": 0.1, "trajectory/negative": 0.0})
    assert told in one_sided and "of that sign" not in one_sided
    steps = [{"step": 1, "trajectory/positive": 0.2, "trajectory/negative": 0.0} | logged]
    steps.append({"step": 2, "trajectory/positive": 0.0, "trajectory/negative": 0.4} | logged)
    mixed, _ = page_of(run_of(None, [{"loss": 0.1, "reward": 0.5} | step for step in steps]))
    assert f"{told} Of those of that sign 20 % and 15 %." in " ".join(mixed.texts)
    tokens = subtitles({"clip_ratio/high_mean": 0.02, "clip_ratio/low_mean": 0.03})
    assert "Share of tokens, mean of a rollout. Whole run: 2.0 % with A > 0, 3.0 % with A < 0." in tokens


def test_of_a_rollout_its_mean_entropy_and_its_lowest_effective_size_are_shown():
    logs = [
        {"step": n + 1, "loss": 0.1, "reward": 0.5, "entropy": n / 8, "trajectory/ess": 1 - n / 8} for n in range(4)
    ]
    for log in logs[::2]:
        log["completions/mean_length"] = 3.0
    page, _ = page_of(run_of(None, logs))
    told = " ".join(page.texts)
    assert "Nats per token. 0.062 → 0.31." in told
    assert "Lowest 0.62 at step 4." in told


def test_each_line_of_success_is_in_the_key():
    page, _ = page_of(run_of(made_rows(), history(), **SETTINGS))
    assert "predicted for the same visits, 95 % interval" in page.texts
    page, _ = page_of(run_of(made_rows(has_predictions=False), history(), **SETTINGS))
    assert not any("predicted for the same visits" in text for text in page.texts)


def test_an_outlier_does_not_press_the_other_gradients_to_the_ground():
    logs = [{"step": step, "loss": 0.1, "reward": 0.5, "grad_norm": 1.0} for step in range(1, 301)]
    logs[7]["grad_norm"] = 1000.0
    text, _ = render(run_of(None, logs))
    (drawing,) = re.findall(r'id="gradient".*?</figure>', text, re.DOTALL)
    assert "Median 1.00, largest 1,000." in drawing and ">0.75<" in drawing


def test_chosen_prompts_are_told_beside_what_was_believed_of_them():
    found = subtitles({"prompts/with_signal": 0.75, "prompts/expected_signal": 0.5, "prompts/generations": 2.0})
    assert "Share of generated groups with signal: measured 75 % at the end; believed 50 % at the end." in found
    assert "prompts/generations Mean" not in found


def test_the_state_of_a_trainer_says_where_training_ends(tmp_path):
    state = {"global_step": 16, "max_steps": 16, "log_history": history()}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    assert any("16 optimizer steps, finished" in text for text in report(tmp_path).texts)
