# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""`trl-variants plan`: coefficients for a target success, and what to expect of them."""

import json
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from .. import theory
from ..checks import MAX_COEFFICIENT
from ..combinations import check_relations
from ..parser import Parser
from .data import read_success_rates
from .method import Method
from .prediction import HISTOGRAM_EDGES, PAPER_RUN, Prediction, paper_prediction


_LONGEST_TABLE = 12
# What is computed within seconds.
_LARGEST_GROUP, _MOST_STEPS = 10_000, 500
_FIGURE_FORMATS = (".png", ".svg", ".pdf")
# Where the mean jumps over the target, it is not met more closely than this.
_MISSED_BY = 0.005


def main(argv: list[str]) -> int:
    """Run the command with these arguments: 0, or a `ValueError` of one sentence if they are wrong."""
    arguments = _parser().parse_args(argv)
    _check_limit("--group-size", arguments.group_size, _LARGEST_GROUP)
    _check_limit("--mirror-steps", arguments.mirror_steps, _MOST_STEPS)
    if arguments.figure is not None:
        _check_figure(arguments.figure)
    prediction = Prediction(
        rates=_rates(arguments.p_ref, arguments.column),
        target=arguments.target,
        method=_method(arguments),
        group_size=arguments.group_size,
        mirror_steps=arguments.mirror_steps,
    )
    _check_reached(prediction)
    notes = _notes(prediction)
    if arguments.figure is not None:
        _save_figure(prediction, Path(arguments.figure))
    if arguments.json:
        print(json.dumps(_as_dict(prediction, notes), indent=2))  # noqa: T201
    else:
        _show(prediction, notes)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="trl-variants plan",
        description="Choose KL coefficients for a target success, from the dynamics of arXiv 2503.06639.",
    )
    parser.add_argument(
        "--p-ref",
        required=True,
        metavar="P|FILE",
        help="Success of the reference model: a number, or per prompt in a file (Parquet, JSON lines, or the "
        "completions or output folder of a run with log_completions).",
    )
    parser.add_argument("--target", type=float, required=True, help="Success to reach; for a file, the mean.")
    parser.add_argument("--variant", help="Preset to train with, whose advantage and settings are taken.")
    parser.add_argument(
        "--advantage",
        help="Advantage, by its name in a configuration (default: that of the preset, else smoothed_std).",
    )
    parser.add_argument(
        "--setting",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="Setting of the advantage, such as reward_variance_epsilon=1e-4 (again for each further setting).",
    )
    parser.add_argument(
        "--mirror-steps",
        type=int,
        help="Plan a KL to the previous policy that is at the target after this many iterations. If not given, a KL "
        "to the reference that ends there.",
    )
    parser.add_argument("--group-size", type=int, default=8, help="Completions per prompt (default: 8).")
    parser.add_argument(
        "--column",
        action="append",
        help="Column of the file: success rates, or a reward that counts as success (again for each further reward).",
    )
    parser.add_argument("--figure", help="Draw the map and the path to this file (.png, .svg, .pdf).")
    parser.add_argument("--json", action="store_true", help="Print JSON instead of tables.")
    return parser


def _method(arguments: Namespace) -> Method:
    settings: dict[str, Any] = {}
    for given in arguments.setting:
        name, _, value = given.partition("=")
        try:
            settings[name] = int(value) if value.lstrip("+-").isdecimal() else float(value)
        except ValueError:
            raise ValueError(f"`--setting` must be a name and a number as NAME=NUMBER; got {given!r}.") from None
    method = Method.named(arguments.variant, arguments.advantage, settings)
    part, fields = method.advantage, {"num_generations": arguments.group_size}
    check_relations(part, part.values_of({"advantage_kwargs": method.settings}), fields, f"`advantage={part.name!r}`")
    if method.variant is None:
        return method
    # A preset that is about one anchor is not turned into one that is about the other.
    beta, mirror_beta = (method.variant.settings.get(name) for name in ("beta", "mirror_beta"))
    if mirror_beta and not beta and arguments.mirror_steps is None:
        raise ValueError(
            f"`--variant {method.variant.name}` has a KL to the previous policy alone; give --mirror-steps."
        )
    if beta and not mirror_beta and arguments.mirror_steps is not None:
        raise ValueError(
            f"`--variant {method.variant.name}` has a KL to the reference alone, and --mirror-steps plans one to the "
            "previous policy; leave one of them out."
        )
    return method


def _check_limit(name: str, value: int | None, limit: int) -> None:
    if value is not None and value > limit:
        raise ValueError(f"`{name}` must be at most {limit}; got {value}.")


def _check_figure(path: str) -> None:
    if Path(path).suffix not in _FIGURE_FORMATS:
        raise ValueError(f"`--figure` must be a file that ends in {', '.join(_FIGURE_FORMATS)}; got {path!r}.")
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"`--figure` must be a file, but {path} is something else.")


def _rates(given: str, column: list[str] | None) -> np.ndarray:
    try:
        number = float(given)
    except ValueError:
        return np.array(read_success_rates(given, *(column or ())))
    if column is not None:
        raise ValueError(f"`--column {column[0]}` names a column of a file, but --p-ref is the number {given}.")
    return np.array(number)


def _check_reached(prediction: Prediction) -> None:
    """Refuse a target that no coefficient holds: one that is printed would be pasted."""
    plan, end = prediction.plan, float(prediction.plan.end.mean())
    for name, value in {"beta": plan.beta, "mirror_beta": plan.mirror_beta}.items():
        if value > MAX_COEFFICIENT:
            raise ValueError(
                f"The target {prediction.target} is so near that {name} would be {value:.4g}, and a configuration "
                f"takes at most {MAX_COEFFICIENT:g}; take a target further from the start."
            )
    if prediction.mirror_steps is not None:
        return
    if not prediction.is_single:
        if abs(end - prediction.target) > _MISSED_BY:
            raise ValueError(
                f"No coefficient holds the mean success at {prediction.target}: prompts jump to success ~1 one after "
                f"another as beta falls, and the nearest that it can be held at is {end:.4f}; take that, or "
                "--mirror-steps."
            )
    elif not plan.reached:
        highest = theory.highest_target(float(prediction.rates), **prediction.advantages)
        state = "out of reach from here" if plan.stable else "unstable"
        raise ValueError(
            f"No coefficient holds success at {prediction.target}: that fixed point is {state}, and with the beta "
            f"that makes it one exact iteration {_where(prediction.limit)}. From {float(prediction.rates):g} the "
            f"highest that a KL to the reference can hold is {highest:.3f}; take a lower target, --advantage mean_only, "
            "or --mirror-steps."
        )


def _notes(prediction: Prediction) -> list[str]:
    plan, notes = prediction.plan, []
    if prediction.mirror_steps is not None:
        notes.append(
            f"The KL to the previous policy has no fixed point below 1: success is at the target after "
            f"{prediction.mirror_steps} iterations and keeps rising, so stop there."
        )
    elif not prediction.is_single and not plan.reached:
        notes.append("It is not certain that every prompt ends at its fixed point: some may oscillate or overshoot.")
    elif not prediction.is_single and plan.mirror_beta > 0.0:
        notes.append("With beta alone some prompts would oscillate or overshoot; mirror_beta damps them.")
    elif plan.mirror_beta > 0.0:
        notes.append(
            f"With beta alone exact iteration {_where(prediction.limit_without_mirror)}; mirror_beta damps it and "
            "leaves the fixed point where it is."
        )
    notes += _notes_on_advantage(prediction.method)
    if plan.beta > 0.0 and prediction.method.advantage.is_zero_without_variance:
        notes.append(
            "Groups without signal still feel the KL to the reference, which pulls them back to it"
            f"{' (the column for groups counts that in)' if prediction.grouped is not None else ''}; "
            "`mask_zero_variance_groups: true` leaves them out of it."
        )
    if "per_device_train_batch_size" in prediction.config:
        notes.append(
            f"A rollout must hold whole groups, and 8 rows, the default, are none of {prediction.group_size}: the "
            "recipe has one group per device; any other whole number of them will do."
        )
    predicted, after = paper_prediction()
    notes.append(
        "Practice is far from exact iteration, which maximises over all policies in every iteration, without "
        f"sampling. For the run of arXiv 2503.06639 (beta {PAPER_RUN['beta']:g}, from {PAPER_RUN['before']:.0%}) it "
        f"predicts {predicted:.1%} after {after} iteration{'s' if after > 1 else ''}; the run itself, clipped and with ten "
        f"gradient steps a rollout, ended at {PAPER_RUN['after']:.1%}. Read the plan as where the objective points."
    )
    return notes


def _notes_on_advantage(method: Method) -> list[str]:
    name, notes = method.advantage.name, []
    if method.signal.is_constant and name != "mean_only":
        notes.append(
            f"The signal of {name} is the same at every success, so that exact iteration is that of mean-only advantages: "
            "its baseline cancels."
        )
    if method.signal.why_not_groups is not None:
        notes.append(f"There are no columns for groups and the clip of {name}: {method.signal.why_not_groups}.")
    elif method.clip is None and method.variant is not None:
        notes.append(
            f"The theory's clip is PPO's, which {method.variant.name} does not have, so there is no column for it."
        )
    return notes


def _where(limit: theory.Limit) -> str:
    if limit.kind == "cycle":
        return f"runs in a cycle of {limit.period}, between {min(limit.points):.4g} and {max(limit.points):.4g}"
    if limit.kind == "aperiodic":
        return f"never settles, between {min(limit.points):.4g} and {max(limit.points):.4g}"
    return f"ends at {limit.points[0]:.4g}"


def _ends(prediction: Prediction) -> dict[str, int]:
    return {
        "never_solved": int((prediction.rates == 0.0).sum()),
        "always_solved": int((prediction.rates == 1.0).sum()),
    }


def _as_dict(prediction: Prediction, notes: list[str]) -> dict[str, Any]:
    plan = prediction.plan
    before, after = prediction.no_signal
    described: dict[str, Any] = {
        "p_ref": {"prompts": prediction.rates.size, "mean": float(prediction.rates.mean()), **_ends(prediction)},
        "target": prediction.target,
        "variant": None if prediction.method.variant is None else prediction.method.variant.name,
        "advantage": prediction.method.advantage.name,
        "advantage_kwargs": dict(prediction.method.settings),
        "group_size": prediction.group_size,
        "beta": plan.beta,
        "mirror_beta": plan.mirror_beta,
        "stable": plan.stable,
        "reached": plan.reached,
        "end": float(plan.end.mean()),
        "path": {name: path.tolist() for name, path in prediction.paths.items()},
        "without_signal": {"start": before, "end": after},
        "config": prediction.config,
        "notes": notes,
    }
    if prediction.is_single:
        described["fixed_points"] = [
            {"p": point.p, "multiplier": _finite(point.multiplier), "stable": point.stable}
            for point in plan.fixed_points
        ]
        limit = prediction.limit
        described["limit"] = {"kind": limit.kind, "period": limit.period, "points": list(limit.points)}
    else:
        solved = zip(("before", "after"), prediction.histogram, strict=True)
        counts = {name: values.astype(int).tolist() for name, values in solved}
        described["histogram"] = {"edges": HISTOGRAM_EDGES.tolist(), **counts}
    return described


def _finite(number: float) -> float | None:
    # JSON has no infinity.
    return number if np.isfinite(number) else None


def _show(prediction: Prediction, notes: list[str]) -> None:
    console = Console(highlight=False)
    plan = prediction.plan
    summary = Table(title=f"Plan for {prediction.title.partition(':')[0]}", show_header=False)
    summary.add_column(style="bold", no_wrap=True)
    summary.add_column()
    if not prediction.is_single:
        ends = _ends(prediction)
        summary.add_row("mean success", f"{prediction.rates.mean():.4f} of {prediction.rates.size} prompts")
        summary.add_row("stuck", f"{ends['never_solved']} never solved, {ends['always_solved']} always solved")
    advantage, settings = prediction.method.advantage, prediction.method.settings
    summary.add_row("advantage", f"{advantage.name}: {advantage.text({**(advantage.fields or {}), **settings})}")
    summary.add_row("beta", f"{plan.beta:.6g}")
    summary.add_row("mirror_beta", f"{plan.mirror_beta:.6g}")
    summary.add_row("end", f"{plan.end.mean():.4f} ({_verdict(prediction)})")
    before, after = prediction.no_signal
    kind = "without signal" if advantage.is_zero_without_variance else "of equal rewards"
    summary.add_row(f"groups of {prediction.group_size} {kind}", f"{before:.1%} at the start, {after:.1%} at the end")
    console.print(summary)
    console.print(_fixed_point_table(plan.fixed_points) if prediction.is_single else _histogram_table(prediction))
    console.print(_path_table(prediction))
    for note in notes:
        console.print(note, markup=False)
    console.print("\nTo paste into a recipe:\n", markup=False)
    console.print(prediction.yaml, markup=False, soft_wrap=True)


def _verdict(prediction: Prediction) -> str:
    if prediction.mirror_steps is not None:
        return f"after {prediction.mirror_steps} iterations; not a fixed point"
    if not prediction.is_single:
        return "every prompt at a stable fixed point" if prediction.plan.stable else "some fixed points are unstable"
    return "stable fixed point"


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _fixed_point_table(points: list[theory.FixedPoint]) -> Table:
    table = _table("Fixed points", "success", "multiplier", "stability")
    for point in points:
        table.add_row(f"{point.p:.6g}", f"{round(point.multiplier, 6):.4g}", "stable" if point.stable else "unstable")
    return table


def _path_table(prediction: Prediction) -> Table:
    columns = {
        "exact": "exact",
        "clipped": f"clip {prediction.clip_text}",
        "groups": f"groups of {prediction.group_size}",
    }
    headings = ("iteration", *(columns[name] for name in prediction.paths))
    table = _table("Predicted success" if prediction.is_single else "Predicted mean success", *headings)
    points = np.transpose(list(prediction.paths.values()))
    rows = [(str(iteration), *(f"{p:.4f}" for p in point)) for iteration, point in enumerate(points)]
    if len(rows) > _LONGEST_TABLE + 1:
        rows[_LONGEST_TABLE - 2 : -2] = [("...",) * len(headings)]
    for row in rows:
        table.add_row(*row)
    return table


def _histogram_table(prediction: Prediction) -> Table:
    table = Table(title="Prompts by success, before and after")
    before, after = prediction.histogram
    largest = max(before.max(), after.max())
    for heading in ("success", "before", "", "after", ""):
        table.add_column(heading, justify="right" if heading in ("before", "after") else "left", no_wrap=True)
    for low, high, *counts in zip(HISTOGRAM_EDGES, HISTOGRAM_EDGES[1:], before, after, strict=False):
        bars = ["#" * int(np.ceil(16 * count / largest)) for count in counts]
        table.add_row(f"{low:.1f} - {high:.1f}", f"{counts[0]:.0f}", bars[0], f"{counts[1]:.0f}", bars[1])
    return table


def _save_figure(prediction: Prediction, path: Path) -> None:
    from ..runs.style import DPI
    from .figure import draw

    figure = draw(prediction)
    try:
        figure.savefig(path, dpi=DPI)
    except (OSError, ValueError) as error:
        raise ValueError(f"The figure cannot be written to {path}: {str(error).splitlines()[0]}.") from error
