# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Which fields axolotl is to add to its configuration of GRPO, their values, and the trainer that it is to build."""

from dataclasses import fields
from importlib import import_module
from typing import Any

from axolotl.integrations.base import BasePlugin
from pydantic import BaseModel

from ..suggest import did_you_mean


_TRAINER = f"{__package__}.trainer.AxolotlGRPOVariantTrainer"
# What makes axolotl build a trainer with a loss of its own, and what has not been tried.
_OTHER_TRAINERS = ("async_prefetch", "use_data_producer")


class VariantInput(BaseModel):
    """Keys of axolotl's configuration that belong to the plugin."""

    grpo_variant: dict[str, Any] | None = None


class VariantPlugin(BasePlugin):
    """
    Plugin that trains axolotl's `rl: grpo` with a variant.

    Fields of [`GRPOVariantFields`] stand under `grpo_variant`; those of TRL may stand under `trl` as well, as without
    the plugin.

    Example:

    ```yaml
    rl: grpo
    plugins: [trl_grpo_variants.axolotl.VariantPlugin]
    grpo_variant:
      variant: dual
      mirror_beta: 0.08
    ```
    """

    def register(self, cfg: Any) -> None:
        """
        Choose the trainer, and see which fields of TRL the user leaves to the variant.

        Raises:
            `ImportError`: If the TRL that is installed is not supported.
            `ValueError`: If the configuration asks for what the plugin cannot do.
        """
        # Of an error while it imports a plugin axolotl only prints a word, and trains without it.
        import_module("..compat", __package__)
        from axolotl.utils.schemas.trl import TRLConfig

        from ..config import GRPOVariantConfig
        from ..resolution import TRL_DEFAULTS

        _check_kind(cfg)
        given, of_trl = cfg.get("grpo_variant") or {}, cfg.get("trl") or {}
        known = {field.name for field in fields(GRPOVariantConfig)}
        for name in given:
            if name not in known:
                raise ValueError(f"`grpo_variant` has no field `{name}`{did_you_mean(name, known, quote='`')}")
            if name in of_trl:
                raise ValueError(f"`{name}` is given twice, under `grpo_variant` and under `trl`; give it once.")
        # axolotl hands its own defaults over as if they had been given.
        defaults = {name for name, field in TRLConfig.model_fields.items() if field.default is not None}
        self._open = (defaults & TRL_DEFAULTS.keys()) - {*of_trl}
        cfg["trainer_cls"] = _TRAINER

    def get_input_args(self) -> str:
        """Where axolotl finds the keys of the plugin."""
        return f"{__package__}.VariantInput"

    def get_training_args_mixin(self) -> str:
        """Where axolotl finds the fields that it adds to its configuration of GRPO."""
        return "trl_grpo_variants.config.GRPOVariantFields"

    def get_training_args(self, cfg: Any) -> dict[str, Any]:
        """Values of these fields."""
        from ..config import GRPOVariantConfig

        left_open = {name: GRPOVariantConfig.__dataclass_fields__[name].default for name in self._open}
        return {**left_open, **(cfg.grpo_variant or {})}

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        """
        Make sure that it is the trainer of the variants.

        Raises:
            `TypeError`: If it is another one.
        """
        from .. import GRPOVariantTrainer

        if not isinstance(trainer, GRPOVariantTrainer):
            raise TypeError(
                f"axolotl has built a {type(trainer).__name__}, which knows no variant, because another plugin chooses the "
                "trainer; leave that plugin out."
            )


def _check_kind(cfg: Any) -> None:
    if cfg.get("rl") not in ("grpo", "gdpo"):
        raise ValueError(f"VariantPlugin trains with `rl: grpo` or `rl: gdpo`; got {cfg.get('rl')!r}.")
    if cfg.get("trainer_cls") not in (None, _TRAINER):
        raise ValueError(f"VariantPlugin brings its trainer; leave `trainer_cls` unset, got {cfg['trainer_cls']!r}.")
    for name in _OTHER_TRAINERS:
        if (cfg.get("trl") or {}).get(name):
            raise ValueError(
                f"`trl.{name}: true` trains with a loss of axolotl's own; leave it off, or the plugin out."
            )
    if (cfg.get("context_parallel_size") or 1) > 1:
        raise ValueError(
            f"`context_parallel_size: {cfg['context_parallel_size']}` trains with a loss of axolotl's own; leave it at 1, "
            "or the plugin out."
        )
    if cfg.get("use_ray"):
        raise ValueError("`use_ray: true` has not been tried with VariantPlugin; leave it off, or the plugin out.")
