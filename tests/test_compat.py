# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from trl import GRPOTrainer

import trl_grpo_variants
from trl_grpo_variants import GRPOVariantTrainer, compat, requirements
from trl_grpo_variants.compat import check_backend, check_parent, check_trl, sharding_backend

from .tiny import make_config, reward


ROOT = Path(__file__).parents[1]

FROZEN = {"variant": "no_is_frozen"}
ANCHOR = {"variant": "mirror", "mirror_sync_steps": 8}
MOVING = {"variant": "reference", "sync_ref_model": True}
AHEAD = {"prefetch_rollout": True, "use_vllm": True, "vllm_mode": "server"}


def refusal(check):
    """What a check says, or `None` where it lets pass."""
    try:
        check()
    except (ImportError, NotImplementedError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("found", ["0.29.1", "1.8.2", "2.0.0", "2.0.0.dev0"])
def test_an_unsupported_trl_is_refused_in_one_sentence(found):
    with pytest.raises(ImportError, match=rf"supports trl[^ ]*>=1\.9[^ ]*, but TRL {re.escape(found)} is installed: "):
        check_trl(found)


@pytest.mark.parametrize("found", ["1.9.0", "1.16.0", "1.99.0.dev0"])
def test_a_supported_trl_is_not_refused(found):
    assert refusal(lambda: check_trl(found)) is None


def test_the_trainer_is_not_imported_over_an_unsupported_trl(monkeypatch):
    installed = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.8.2" if name == "trl" else installed(name))
    for module in ("compat", "trainer"):
        monkeypatch.delitem(sys.modules, f"trl_grpo_variants.{module}", raising=False)
    with pytest.raises(ImportError, match="TRL 1.8.2 is installed"):
        _ = trl_grpo_variants.GRPOVariantTrainer


def test_the_range_of_an_installed_package_is_that_of_its_metadata(tmp_path, monkeypatch):
    monkeypatch.setattr(requirements, "__file__", str(tmp_path / "trl_grpo_variants" / "requirements.py"))
    monkeypatch.setattr(requirements, "requires", {"trl_grpo_variants": ["numpy", "trl<1.11,>=1.10"]}.get)
    assert refusal(lambda: check_trl("1.10.5")) is None
    assert "supports trl<1.11,>=1.10, but TRL 1.11 is installed" in refusal(lambda: check_trl("1.11"))


@pytest.fixture
def source_tree(tmp_path, monkeypatch):
    """The package beside its `pyproject.toml`, as another process sees it that has not installed it."""
    shutil.copytree(ROOT / "trl_grpo_variants", tmp_path / "trl_grpo_variants")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    forget = """
        import importlib.metadata as metadata
        found = metadata.Distribution.from_name.__func__
        @classmethod
        def from_name(cls, name):
            if "variants" in name:
                raise metadata.PackageNotFoundError(name)
            return found(cls, name)
        metadata.Distribution.from_name = from_name
    """

    def run(statement):
        command = [sys.executable, "-c", f"{textwrap.dedent(forget)}\n{statement}"]
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return tmp_path, run


def test_a_source_tree_that_is_not_installed_can_be_used(source_tree):
    folder, run = source_tree
    done = run("import trl_grpo_variants as t; t.GRPOVariantTrainer; t.GRPOVariantConfig; print(t.__file__)")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == str(folder / "trl_grpo_variants" / "__init__.py")


def test_the_range_of_a_source_tree_is_its_own(source_tree):
    folder, run = source_tree
    declaration = (folder / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(re.sub(r'"trl>=[^"]*"', '"trl>=1.10,<1.11"', declaration))
    done = run("import trl_grpo_variants.compat")
    assert "ImportError: trl_grpo_variants builds on parts of TRL that differ" in done.stderr
    (folder / "pyproject.toml").unlink()
    # What the check asks first, without what else it imports.
    done = run("from trl_grpo_variants.requirements import requirements; requirements()")
    assert "ImportError: trl_grpo_variants cannot tell which TRL it supports" in done.stderr
    # As of another project, whose declaration it is not.
    (folder / "pyproject.toml").write_text('[project]\nname = "other"\ndependencies = ["trl<1"]\n')
    done = run("from trl_grpo_variants.requirements import requirements; requirements()")
    assert "cannot tell which TRL it supports" in done.stderr


def test_the_declared_bounds_are_the_measured_ones():
    """A set of versions is in the bounds if, and only if, its tests have passed, and the lower bounds were tried."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    bounds = {requirement.name: requirement.specifier for requirement in map(Requirement, declared)}
    rows = re.findall(
        r"^\| (\d.*) \|$", (ROOT / "docs" / "limits.md").read_text().split("<!-- compatibility: ")[1], re.M
    )
    packages = ("trl", "transformers", "peft", "accelerate", "datasets")
    tried = []
    for *versions, result in (row.split(" | ") for row in rows):
        found = dict(zip(packages, map(Version, versions), strict=True))
        passed = re.match(r"\d+ passed\b", result) is not None
        assert all(found[name] in bounds[name] for name in packages) == passed, found
        tried += [found] if passed else []
    for name in packages:
        lowest = next(Version(part.version) for part in bounds[name] if part.operator == ">=")
        assert min(found[name] for found in tried) == lowest


def check(tmp_path, settings, *, zero_stage=None, moves_adapter=False, **config):
    args = make_config(tmp_path, **settings, **config)
    if zero_stage is not None:
        args.deepspeed_plugin = SimpleNamespace(zero_stage=zero_stage)
    check_backend(args, moves_adapter)
    # The check has seen the backend that it lets pass.
    return sharding_backend(args)


@pytest.mark.parametrize("settings", [FROZEN, ANCHOR, MOVING, AHEAD])
def test_fsdp2_takes_snapshots_wherever_it_is_configured(tmp_path, monkeypatch, settings):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    assert check(tmp_path, settings, moves_adapter="sync_ref_model" in settings) == "FSDP"
    # What the configuration says goes before the environment.
    monkeypatch.setenv("FSDP_VERSION", "1")
    assert check(tmp_path, settings, fsdp=True, fsdp_config={"version": 2}) == "FSDP"


@pytest.mark.parametrize("settings", [FROZEN, ANCHOR, MOVING, AHEAD])
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
    assert check(tmp_path, {"sync_ref_model": True, "beta": 0.1}) == "FSDP"
    # As soon as it is not TRL that moves it, it is refused.
    with pytest.raises(NotImplementedError, match="`sync_ref_model=True` moves the reference"):
        check(tmp_path, {"sync_ref_model": True, "beta": 0.1, "variant": "grpo"})


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_no_gradient_is_frozen_under_deepspeed(tmp_path, stage):
    with pytest.raises(NotImplementedError, match="`no_is_gradient='frozen'` takes the gradient .* DeepSpeed steps"):
        check(tmp_path, FROZEN, zero_stage=stage)


@pytest.mark.parametrize("settings", [ANCHOR, MOVING, AHEAD])
def test_deepspeed_takes_snapshots_of_whole_parameters(tmp_path, settings):
    moves_adapter = "sync_ref_model" in settings
    assert check(tmp_path, settings, zero_stage=2, moves_adapter=moves_adapter) == "DeepSpeed"
    with pytest.raises(NotImplementedError, match="which DeepSpeed ZeRO-3 shards; use ZeRO-2"):
        check(tmp_path, settings, zero_stage=3, moves_adapter=moves_adapter)


def test_what_needs_no_snapshot_is_not_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert check(tmp_path, {"variant": "tic_grpo"}) == "FSDP"
    assert check(tmp_path, {"variant": "dual"}, zero_stage=3) == "DeepSpeed"


@pytest.mark.parametrize("setting", ["pack_rollout", "share_prompt"])
def test_an_older_trl_is_told_before_a_model_is_loaded(tmp_path, monkeypatch, setting):
    monkeypatch.delattr("trl.trainer.utils.add_fused_lm_head", raising=False)
    with pytest.raises(NotImplementedError, match=f"`{setting}=True` needs the fused LM head"):
        GRPOVariantTrainer("no/such/model", reward, make_config(tmp_path, **{setting: True}))


def test_prefetching_is_refused_with_an_older_trl(tmp_path, monkeypatch):
    monkeypatch.setattr(compat, "trl_version", "1.15.0")
    with pytest.raises(NotImplementedError, match="`prefetch_rollout=True` asks the server as TRL does from 1.16 on"):
        GRPOVariantTrainer("no/such/model", reward, make_config(tmp_path, **AHEAD))


def test_a_replaced_parent_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(GRPOTrainer, "__module__", "UnslothGRPOTrainer")
    with pytest.raises(
        RuntimeError, match="`trl.GRPOTrainer` is UnslothGRPOTrainer.GRPOTrainer, whose loss would run"
    ):
        GRPOVariantTrainer("no/such/model", reward, make_config(tmp_path))


@pytest.mark.parametrize("loss_type", ["cispo", "dapo", "luspo", "vespo"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_loss_type_that_an_older_trl_divides_otherwise_is_refused(tmp_path, monkeypatch, loss_type):
    args = make_config(tmp_path, loss_type=loss_type, mirror_beta=0.1, steps_per_generation=2)
    check_parent(GRPOTrainer, args)
    monkeypatch.setattr(compat, "trl_version", "1.9.0")
    with pytest.raises(NotImplementedError, match=f"`loss_type='{loss_type}'` divides by another number in TRL 1.9.0"):
        check_parent(GRPOTrainer, args)
    check_parent(GRPOTrainer, make_config(tmp_path, loss_type=loss_type))
    check_parent(GRPOTrainer, make_config(tmp_path, variant="dual"))


def test_a_parent_without_an_overridden_method_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(compat, "SEAMS", ("_compute_loss", "_gone"))
    with pytest.raises(RuntimeError, match="has no GRPOTrainer._gone"):
        GRPOVariantTrainer("no/such/model", reward, make_config(tmp_path))


def test_every_override_is_checked_on_the_parent():
    classes = GRPOVariantTrainer.__mro__[: GRPOVariantTrainer.__mro__.index(GRPOTrainer)]
    overridden = {
        name
        for cls in classes
        for name, value in vars(cls).items()
        if callable(value) and hasattr(GRPOTrainer, name) and not name.startswith("__")
    }
    assert overridden == set(compat.SEAMS)


def test_nothing_imports_the_trainer_but_what_hands_it_out():
    """The trainer stands above all rooms; those that it is made of do not know it."""
    package = ROOT / "trl_grpo_variants"
    importers = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level and node.module == "trainer"
    }
    assert importers == {"__init__.py", "launch.py", "axolotl/trainer.py"}
