# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

from types import SimpleNamespace

import pytest

from trl_grpo_variants.compat import check_backend

from .tiny import make_config


FROZEN = {"variant": "no_is_frozen"}
ANCHOR = {"variant": "mirror", "mirror_sync_steps": 8}
MOVING = {"variant": "reference", "sync_ref_model": True}


def check(tmp_path, settings, *, zero_stage=None, moves_adapter=False, **config):
    args = make_config(tmp_path, **settings, **config)
    if zero_stage is not None:
        args.deepspeed_plugin = SimpleNamespace(zero_stage=zero_stage)
    check_backend(args, moves_adapter)


@pytest.mark.parametrize("settings", [FROZEN, ANCHOR, MOVING])
def test_fsdp2_takes_snapshots_wherever_it_is_configured(tmp_path, monkeypatch, settings):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    check(tmp_path, settings, moves_adapter="sync_ref_model" in settings)
    # What the configuration says goes before the environment.
    monkeypatch.setenv("FSDP_VERSION", "1")
    check(tmp_path, settings, fsdp=True, fsdp_config={"version": 2})


@pytest.mark.parametrize("settings", [FROZEN, ANCHOR, MOVING])
def test_fsdp1_takes_none_wherever_it_is_configured(tmp_path, monkeypatch, settings):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(NotImplementedError, match="FSDP1.*use FSDP2"):
        check(tmp_path, settings)
    monkeypatch.setenv("FSDP_VERSION", "2")
    with pytest.raises(NotImplementedError, match="FSDP1.*use FSDP2"):
        check(tmp_path, settings, fsdp=True, fsdp_config={"version": 1})


def test_without_a_variant_the_reference_moves_as_in_trl(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    check(tmp_path, {"sync_ref_model": True, "beta": 0.1})


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_no_gradient_is_frozen_under_deepspeed(tmp_path, stage):
    with pytest.raises(NotImplementedError, match="`no_is_gradient='frozen'` takes the gradient .* DeepSpeed steps"):
        check(tmp_path, FROZEN, zero_stage=stage)


@pytest.mark.parametrize("settings", [ANCHOR, MOVING])
def test_deepspeed_takes_snapshots_of_whole_parameters(tmp_path, settings):
    moves_adapter = "sync_ref_model" in settings
    check(tmp_path, settings, zero_stage=2, moves_adapter=moves_adapter)
    with pytest.raises(NotImplementedError, match="which DeepSpeed ZeRO-3 shards; use ZeRO-2"):
        check(tmp_path, settings, zero_stage=3, moves_adapter=moves_adapter)


def test_what_needs_no_snapshot_is_not_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    check(tmp_path, {"variant": "tic_grpo"})
    check(tmp_path, {"variant": "dual"}, zero_stage=3)
