# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Frameworks that build their own configuration and trainer over TRL's."""

import math
import subprocess
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer
from trl import GRPOConfig, GRPOTrainer

from trl_grpo_variants import GRPOVariantConfig, GRPOVariantFields, GRPOVariantTrainer
from trl_grpo_variants.checks import UNSET

from .tiny import make_config, make_trainer


OFF_POLICY = {"steps_per_generation": 2, "num_generations": 4}


# ---- a made-up framework ---------------------------------------------------------------------------------------------


@dataclass
class Extras:
    """Options of the framework, which it mixes into the configuration of each of TRL's trainers."""

    schedule: str | None = None
    schedule_kwargs: dict[str, Any] | str | None = None


@dataclass
class FrameworkConfig(Extras, GRPOConfig):
    _VALID_DICT_FIELDS = GRPOConfig._VALID_DICT_FIELDS + ["schedule_kwargs"]

    beta: float = 0.04
    pieces: list[str] = field(default_factory=list)


@dataclass
class VariantConfig(GRPOVariantFields, FrameworkConfig):
    """The fields over the framework's configuration."""


class ExtrasAndVariants(Extras, GRPOVariantFields):
    """The fields among those that the framework mixes in, no dataclass by itself."""


@dataclass
class MixedConfig(ExtrasAndVariants, GRPOConfig):
    pass


class Scheduled(Trainer):
    """Counts what it is asked for, as a framework that brings its own optimizer and saves in its own way."""

    counts = 0

    def create_optimizer(self, *arguments):
        type(self).counts += 1
        return super().create_optimizer(*arguments)


class FrameworkTrainer(Scheduled, GRPOTrainer):
    _tag_names = ["framework"]


class VariantTrainer(GRPOVariantTrainer, FrameworkTrainer):
    pass


def weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


@pytest.mark.parametrize("config_class", [VariantConfig, MixedConfig])
@pytest.mark.parametrize("trainer_class", [GRPOVariantTrainer, VariantTrainer])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_composed_run_is_the_same_run(tmp_path, policy_path, config_class, trainer_class):
    settings = {"variant": "tic_grpo", "max_steps": 2}
    expected = make_trainer(policy_path, tmp_path / "expected", **settings)
    expected.train()
    Scheduled.counts = VariantTrainer.counts = 0
    args = make_config(tmp_path / "composed", config_class, schedule="own", **settings)
    composed = trainer_class(
        model=policy_path,
        reward_funcs=expected.reward_funcs,
        args=args,
        train_dataset=expected.train_dataset,
    )
    composed.train()
    assert torch.equal(weights(composed), weights(expected))
    assert composed.args.schedule == "own"
    assert VariantTrainer.counts == (trainer_class is VariantTrainer)
    times = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "step_time")
    for theirs, ours in zip(composed.state.log_history, expected.state.log_history, strict=True):
        assert {k: v for k, v in theirs.items() if not k.startswith(times)}.keys() <= ours.keys()
        assert theirs.get("loss") == ours.get("loss")
        assert theirs.get("grad_norm") == ours.get("grad_norm")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_fields_are_resolved_however_they_are_composed(tmp_path):
    for config_class in (VariantConfig, MixedConfig):
        args = make_config(tmp_path, config_class, variant="mirror", steps_per_generation=2)
        expected = make_config(tmp_path, variant="mirror", steps_per_generation=2)
        names = {f.name for f in fields(GRPOVariantConfig)} - {"beta"}
        assert {name: getattr(args, name) for name in names} == {name: getattr(expected, name) for name in names}
        assert not [f.name for f in fields(args) if getattr(args, f.name) is UNSET]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_nobody_sets_is_the_frameworks_default(tmp_path):
    assert make_config(tmp_path, VariantConfig).beta == 0.04
    assert make_config(tmp_path, MixedConfig).beta == GRPOConfig.__dataclass_fields__["beta"].default
    assert (
        make_config(tmp_path, VariantConfig, variant="dual", **OFF_POLICY).beta
        == make_config(tmp_path, variant="dual", **OFF_POLICY).beta
    )
    assert make_config(tmp_path, VariantConfig, variant="dual", beta=0.5, **OFF_POLICY).beta == 0.5


def test_dictionaries_of_both_are_read_as_json(tmp_path):
    args = make_config(tmp_path, VariantConfig, schedule_kwargs='{"a": 1}', advantage_kwargs="{}")
    assert args.schedule_kwargs == {"a": 1}
    assert args.advantage_kwargs == {}


def test_a_configuration_that_resolves_nothing_is_refused(tmp_path):
    @dataclass
    class Late(FrameworkConfig, GRPOVariantFields):
        pass

    class Silent(VariantConfig):
        def __post_init__(self):
            pass

    for config_class in (Late, Silent):
        args = make_config(tmp_path, config_class, variant="mirror")
        with pytest.raises(
            TypeError, match=f"`{config_class.__name__}` leaves the fields of GRPOVariantFields as they"
        ):
            GRPOVariantTrainer("no/such/model", args=args)


def test_another_configuration_is_refused(tmp_path):
    with pytest.raises(TypeError, match="got FrameworkConfig: .*needs GRPOVariantFields as a base"):
        GRPOVariantTrainer("no/such/model", args=make_config(tmp_path, FrameworkConfig))


class OwnLoss(GRPOTrainer):
    """A framework that computes the loss itself."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        logps, *_ = self._get_per_token_logps_and_entropies(
            model,
            torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            inputs["completion_ids"].size(1),
        )
        return -logps.mean()


class Replaced(GRPOVariantTrainer, OwnLoss):
    pass


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_loss_that_is_not_the_variants_ends_the_run(tmp_path, policy_path):
    stock = make_trainer(policy_path, tmp_path, Replaced, max_steps=1)
    stock.train()
    assert math.isfinite(stock.state.log_history[0]["loss"])
    with pytest.raises(RuntimeError, match="`OwnLoss.compute_loss` runs instead of the loss of the variant"):
        make_trainer(policy_path, tmp_path, Replaced, variant="mirror", max_steps=1).train()


# As unsloth does it when it is imported: a class that is not TRL's, with a loss of its own, under all of TRL's names.
REBINDING = """
import sys
import trl
from trl.trainer import grpo_config, grpo_trainer

if sys.argv[1] == "before":
    from trl_grpo_variants import GRPOVariantTrainer

class UnslothGRPOTrainer(trl.GRPOTrainer.__base__):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        raise NotImplementedError

class UnslothGRPOConfig(trl.GRPOConfig):
    def __init__(self, *, unsloth_num_chunks=-1, **options):
        super().__init__(**options)

for cls in (UnslothGRPOTrainer, UnslothGRPOConfig):
    cls.__module__ = "UnslothGRPOTrainer"
    for module in (trl, trl.trainer, grpo_trainer, grpo_config):
        setattr(module, cls.__name__.removeprefix("Unsloth"), cls)

from tests.tiny import make_trainer
make_trainer(sys.argv[2], sys.argv[3], variant="mirror", steps_per_generation=2, max_steps=1).train()
"""


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_package_that_replaces_trls_classes(tmp_path, policy_path, order):
    command = [sys.executable, "-W", "ignore", "-c", REBINDING, order, policy_path, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=250)
    if order == "before":
        assert done.returncode == 0, done.stderr[-3000:]
        assert "'mirror_kl'" in done.stdout or "'loss'" in done.stdout
    else:
        assert "RuntimeError: GRPOVariantTrainer builds on TRL's own GRPOTrainer, but" in done.stderr
        assert "is UnslothGRPOTrainer.UnslothGRPOTrainer, whose loss would run instead of the variant's" in done.stderr
