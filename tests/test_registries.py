# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The parts of methods describe themselves: what every entry of a registry has, and a user's own parts beside them."""

import inspect
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from trl_grpo_variants import GRPOVariantConfig, get_variant, list_variants
from trl_grpo_variants.combinations import check_setting
from trl_grpo_variants.objective.advantages import ADVANTAGES
from trl_grpo_variants.objective.choice import chosen_parts
from trl_grpo_variants.objective.divergences import DIVERGENCES
from trl_grpo_variants.objective.formula import legend, objective_text
from trl_grpo_variants.objective.loss import Objective
from trl_grpo_variants.objective.policies import POLICY_TERMS
from trl_grpo_variants.objective.terms import Advantage, PolicyTerm, Setting, TermInputs, TermOutput, registry
from trl_grpo_variants.objective.token_advantages import TOKEN_ADVANTAGES

from . import reference


BASE = {"output_dir": "out", "use_cpu": True, "bf16": False, "report_to": "none", "steps_per_generation": 2}
AXES = {"ADVANTAGES": ADVANTAGES, "POLICY_TERMS": POLICY_TERMS, "DIVERGENCES": DIVERGENCES}
AXES |= {"TOKEN_ADVANTAGES": TOKEN_ADVANTAGES}
ENTRIES = [pytest.param(axis, part, id=part.name) for axis, parts in AXES.items() for part in parts.values()]


def config(**settings):
    return GRPOVariantConfig(**(BASE | settings))


@pytest.mark.parametrize(("axis", "part"), ENTRIES)
def test_every_part_has_formula_paper_and_an_independent_reference(axis, part):
    assert re.fullmatch(r"\d{4}\.\d{5}", part.paper.id) and part.paper.title in part.paper.citation
    assert part.text({}) and part.text({"epsilon": 0.2})
    assert part.name in getattr(reference, axis)


@pytest.mark.parametrize(("axis", "part"), ENTRIES)
def test_every_setting_is_a_field_or_a_keyword_of_the_function(axis, part):
    fields = GRPOVariantConfig.__dataclass_fields__
    keywords = part.keywords()
    for setting in part.settings:
        assert setting.name in fields or setting.name in keywords
        if setting.choices and not part.is_own(setting):
            assert all(f"'{choice}'" in fields[setting.name].metadata["help"] for choice in setting.choices)
    assert set(keywords) <= {setting.name for setting in part.settings}
    if part.function is not None:
        assert part.function.__doc__


NUMBERS = [
    pytest.param(setting, id=f"{part.name}-{setting.name}")
    for parts in AXES.values()
    for part in parts.values()
    for setting in part.settings
    if not setting.choices
]


@pytest.mark.parametrize("setting", NUMBERS)
def test_a_number_has_two_ends_beyond_which_it_is_refused(setting):
    lowest = setting.at_least if setting.greater_than is None else setting.greater_than
    assert lowest is not None and (setting.at_most is not None or setting.below or setting.within)
    beyond = [lowest - 1.0] if setting.greater_than is None else [lowest]
    beyond += [] if setting.at_most is None else [2.0 * setting.at_most]
    for value in beyond:
        with pytest.raises(ValueError, match=rf"^`{setting.name}` must be a "):
            check_setting(setting, setting.name, int(value) if setting.is_whole else value)
    for value in (setting.at_least, setting.at_most):
        if value is not None:
            check_setting(setting, setting.name, value)


@pytest.mark.parametrize(("axis", "part"), [entry for entry in ENTRIES if entry.values[0] != "DIVERGENCES"])
def test_a_part_is_chosen_by_its_name_and_by_its_fields(axis, part):
    field = {"ADVANTAGES": "advantage", "POLICY_TERMS": "policy_loss", "TOKEN_ADVANTAGES": "token_advantage"}[axis]
    loss_type = {"loss_type": "dr_grpo"}
    chosen = getattr(config(**{field: part.name}, **loss_type).parts, field.removesuffix("_loss"))
    assert chosen is part
    if part.fields:
        assert getattr(config(**part.fields, **loss_type).parts, field.removesuffix("_loss")) is part


OWN_ADVANTAGES = [part for part in ADVANTAGES.values() if part.function is not None]


@pytest.mark.parametrize("part", OWN_ADVANTAGES, ids=lambda part: part.name)
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_an_advantage_is_its_reference_also_without_a_reward_or_a_difference(part, scale):
    """Groups in which rewards differ, are equal, are missing; and other settings than the defaults."""
    nan = float("nan")
    rewards = [1.0, 0.0, 0.0, 2.5, nan, 1.0, 0.25, nan, nan, nan, nan, nan, 0.5, 0.5, 0.5, 0.5]
    lengths = [6, 3, 2, 5, 4, 6, 1, 3, 2, 2, 6, 5, 1, 1, 2, 3]
    # One alone has no other to be compared with.
    rewards, lengths = [*rewards, nan, 2.0, nan, nan], [*lengths, 1, 7, 2, 2]
    fields = {"reward_variance_epsilon": 1e-2}
    defaults = {name: fields.get(name, default) for name, default in part.keywords().items()}
    settings = {name: value * scale if isinstance(value, float) else value for name, value in defaults.items()}
    extra = {"lengths": torch.tensor(lengths)} if part.takes("lengths") else {}
    rewards = reference.in_domain(rewards, part.domain.given(settings))
    advantages = part.function(torch.tensor(rewards, dtype=torch.float64), 4, **settings, **extra)
    expected = reference.ADVANTAGES[part.name](rewards, 4, lengths=lengths, **settings)
    scored = ~torch.tensor(rewards).isnan()
    torch.testing.assert_close(advantages[scored], torch.tensor(expected, dtype=torch.float64)[scored])
    assert (advantages[12:16].abs().max() < 1e-6) == part.is_zero_without_variance
    assert (advantages[8:12] == 0).all() and advantages.dtype == torch.float64


@pytest.mark.parametrize("part", [part for part in POLICY_TERMS.values() if part.function], ids=lambda part: part.name)
def test_metrics_of_a_policy_term_are_described(part):
    bounds = {"epsilon": 0.2, "epsilon_high": 0.2, "trajectory_clip": "upper"}
    output = part.function(inputs(torch.full((2, 3), -1.5)), **{k: v for k, v in bounds.items() if part.takes(k)})
    assert output.metrics.keys() == part.metrics.keys()
    assert all(meaning and not meaning.endswith(".") for meaning in part.metrics.values())


def test_names_are_unique_and_descriptions_complete():
    entry = next(iter(ADVANTAGES.values()))
    with pytest.raises(ValueError, match=f"Two parts are named '{entry.name}'"):
        registry(entry, entry)
    for missing in ({"formula": ""}, {"paper": None}):
        with pytest.raises(ValueError, match="needs a formula and the paper"):
            registry(replace(entry, **missing))


@pytest.mark.parametrize("name", list_variants())
def test_a_preset_is_plain_data_from_which_its_formula_is_written(name):
    variant = get_variant(name)
    with pytest.raises(TypeError):
        variant.settings["beta"] = 1.0
    assert variant.formula == objective_text(chosen_parts(variant.settings), variant.settings)


# ---- a user's own ---------------------------------------------------------------------------------------------------

MODULE = """
import torch
from trl_grpo_variants import Advantage, PolicyTerm, TermOutput
from trl_grpo_variants.papers import TIC_GRPO

def squared(rewards, num_generations, *, power=2.0):
    grouped = rewards.view(-1, num_generations)
    return (grouped - grouped.nanmean(1, keepdim=True)).abs().pow(power).view(-1)

def by_length(rewards, num_generations, lengths, *, unit):
    return rewards * lengths / unit

def plain(inputs, *, scale=1.0):
    return -scale * inputs.logps * inputs.token_advantages

def weighted(inputs):
    return inputs.token_advantages * inputs.logps.exp()

def with_metrics(inputs):
    ratio = (inputs.logps - inputs.old_logps).exp()
    return TermOutput(-ratio * inputs.token_advantages, {"mine/ratio": ratio, "mine/rows": ratio.mean(1)})

def without_arguments():
    pass

described = Advantage("mine", squared, "|r - mean|^power", TIC_GRPO)
number = 3
class Holder:
    inner = staticmethod(squared)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    name = f"own_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return name


def test_a_users_advantage_has_its_settings(module):
    args = config(advantage=f"{module}:squared", advantage_kwargs='{"power": 3}')
    rewards = torch.tensor([0.0, 1.0, 0.0, 3.0])
    expected = (rewards - 1).abs() ** 3
    torch.testing.assert_close(args.objective.advantage(rewards, 4), expected)
    assert not args.has_stock_objective and not args.objective.is_zero_without_variance
    assert GRPOVariantConfig(**args.to_dict()).to_dict() == args.to_dict()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"advantage": "nothing:here"}, "`advantage='nothing:here'` cannot be imported .ModuleNotFoundError"),
        ({"advantage": "MODULE:absent"}, "cannot be imported .AttributeError"),
        ({"advantage": "MODULE:number"}, "must be a function or Advantage of yours; it is 3"),
        ({"policy_loss": "MODULE:described"}, "must be a function or PolicyTerm of yours"),
        ({"advantage": "MODULE:without_arguments"}, r"must be callable as `function\(rewards, num_generations\)`"),
        ({"policy_loss": "MODULE:without_arguments"}, r"must be callable as `function\(inputs\)`"),
        (
            {"advantage": "MODULE:squared", "advantage_kwargs": {"powr": 2}},
            "`advantage_kwargs` sets `powr`, but .* takes `power`; did you mean `power`",
        ),
        ({"advantage": "MODULE:by_length"}, "needs `unit`; give it in `advantage_kwargs`"),
        ({"advantage": "mean_onli"}, "must be one of 'per_reward', .*; did you mean 'mean_only'"),
        (
            {"advantage": "MODULE:squared", "scale_rewards": "none"},
            "`advantage='.*:squared'` and `scale_rewards='none'` choose two different parts",
        ),
        (
            {"policy_loss": "MODULE:plain", "importance_sampling_level": "trajectory", "loss_type": "dapo"},
            "`policy_loss='.*:plain'` and `importance_sampling_level='trajectory'` choose two",
        ),
        ({"policy_loss": "MODULE:plain", "loss_type": "cispo"}, "`loss_type='cispo'` is a way to weight tokens"),
        ({"policy_loss": "MODULE:plain", "delta": 2.0}, "`delta=2.0` is not used by `policy_loss='.*:plain'`"),
        (
            {"advantage_kwargs": {"power": 2}},
            "`advantage_kwargs` sets `power`, but `scale_rewards='group'` takes none",
        ),
        (
            {"advantage": "MODULE:squared", "multi_objective_aggregation": "normalize_then_sum"},
            "choose two different parts|works on the summed reward",
        ),
        ({"advantage": lambda rewards, size: rewards}, "must be a function at the top level of a module"),
        ({"kl_estimator": "k3", "advantage": "group_std", "reward_variance_epsilon": 0.1}, "choose two different"),
    ],
)
def test_a_users_mistake_is_one_sentence(module, settings, sentence):
    settings = {
        name: value.replace("MODULE", module) if isinstance(value, str) else value for name, value in settings.items()
    }
    with pytest.raises(ValueError, match=sentence) as error:
        config(**settings)
    assert "\n" not in str(error.value)


def test_a_function_may_be_given_itself_and_is_named():
    args = config(advantage=halved)
    assert args.advantage == f"{__name__}:halved"
    assert args.objective.advantage(torch.ones(4), 4).tolist() == [0.5] * 4


def test_rows_stay_together_for_a_users_advantages_of_tokens(module):
    """Which may be of the whole micro-batch: nothing tells."""
    settings = {"loss_type": "dr_grpo", "mirror_beta": 0.1}
    assert config(**settings).skip_inert_rows
    args = config(token_advantage=f"{module}:weighted", **settings)
    assert args.relates_rows and not args.skip_inert_rows


# `epsilon` of the geometric mean is a logarithm, that of the binary KL a KL.
CLIPS = {name for name, part in POLICY_TERMS.items() if "epsilon" in {setting.name for setting in part.settings}}


@pytest.mark.parametrize("name", sorted(CLIPS - {"geometric", "binary_kl"}))
def test_every_clip_refuses_a_lower_range_that_no_ratio_can_reach(name):
    fields = POLICY_TERMS[name].fields or {}
    fields = {"trajectory_clip": "two_sided"} | fields if name == "trajectory" else {"policy_loss": name}
    loss_type = POLICY_TERMS[name].loss_type or "dr_grpo"
    config(**{"loss_type": loss_type} | fields, epsilon=1.0)
    with pytest.raises(ValueError, match="`epsilon` must be a number of at most 1; got 1.5"):
        config(**{"loss_type": loss_type} | fields, epsilon=1.5)


def halved(rewards, num_generations):
    return rewards / 2


def test_the_card_names_a_users_function_and_prints_the_formula_of_a_description(module):
    args = config(advantage=f"{module}:squared", policy_loss=f"{module}:plain")
    text = objective_text(args.parts, vars(args))
    assert "[plain(pi, A)]" in text and "A = squared(r)" in text
    meanings = " ".join(legend(args.parts, vars(args)))
    assert f"`{module}:squared`, a function of the user's, whose formula is not known here" in meanings
    described = config(advantage=f"{module}:described")
    assert "A = |r - mean|^power" in objective_text(described.parts, vars(described))
    assert [paper.id for paper in described.parts.papers(vars(described))] == ["2508.02833"]
    assert args.parts.papers(vars(args)) == []


def inputs(logps, **settings):
    old, ones = torch.full_like(logps, -1.0).detach(), torch.ones_like(logps)
    advantages = torch.tensor([1.0, -2.0], dtype=logps.dtype)
    return replace(TermInputs(logps, old, advantages, ones, ones), **settings)


@pytest.mark.parametrize("name", [name for name, part in POLICY_TERMS.items() if part.function is not None])
def test_a_term_declares_what_it_logs(name):
    args = config(policy_loss=name, loss_type="dr_grpo")
    assert args.objective.policy(inputs(torch.full((2, 3), -1.5))).metrics.keys() == POLICY_TERMS[name].metrics.keys()


def test_a_users_term_may_give_a_tensor_or_losses_and_metrics(module):
    logps = torch.full((2, 3), -1.5, requires_grad=True)
    arguments = {"factor": torch.ones(2, 1), "weight": torch.tensor(0.5), "kept": torch.ones(2, 3).bool()}
    for name, scale in (("plain", 2.0), ("with_metrics", None)):
        kwargs = {} if scale is None else {"policy_loss_kwargs": {"scale": scale}}
        args = config(policy_loss=f"{module}:{name}", loss_type="dr_grpo", **kwargs)
        total, metrics = args.objective.added_loss(inputs(logps), **arguments, on_policy=True)
        ratio = 1.0 if name == "plain" else float(torch.tensor(-0.5).exp())
        expected = -0.5 * 3 * (-1.5 * scale if scale else ratio) * (1.0 - 2.0)
        assert total.item() == pytest.approx(expected)
        assert set(metrics) == (set() if name == "plain" else {"mine/ratio", "mine/rows"})


@pytest.mark.parametrize(
    ("losses", "weight", "sentence"),
    [
        (torch.zeros(3), torch.tensor(1.0), r"shape \(2, 3\), or per trajectory, shape \(2,\); got \(3,\)"),
        (None, torch.tensor(1.0), "got NoneType"),
        (torch.zeros(2), torch.ones(2, 1), "one loss per trajectory needs a loss type that weights all tokens alike"),
    ],
)
def test_what_is_no_loss_of_a_term_is_one_sentence(losses, weight, sentence):
    values = vars(config()) | {"policy_loss": None}
    method = replace(Objective.from_values(values), policy=lambda _: losses)
    with pytest.raises(ValueError, match=sentence):
        method.added_loss(
            inputs(torch.zeros(2, 3)), factor=torch.ones(2, 1), weight=weight, kept=torch.ones(2, 3).bool()
        )


def test_settings_of_a_part_reach_its_function_with_its_defaults_and_ranges():
    part = PolicyTerm(
        "mine", lambda inputs, *, power=2.0: TermOutput(inputs.logps**power), "pi^power", None,
        settings=(Setting("power", at_least=1.0),),
    )  # fmt: skip
    assert part.keywords() == {"power": 2.0} and part.reads({}) == {"power"}
    assert list(inspect.signature(part.function).parameters) == ["inputs", "power"]
    assert Advantage("mine", halved, "r / 2", None).keywords() == {}
    assert SimpleNamespace(**{"mine": part}).mine.takes("power")
