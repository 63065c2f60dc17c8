# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Published GRPO variants for TRL, selected by a config field."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__


if TYPE_CHECKING:
    from . import theory
    from .config import GRPOVariantConfig, GRPOVariantFields
    from .launch import register, unregister
    from .monitor.callback import SuccessMonitor
    from .objective.terms import Advantage, Domain, PolicyTerm, Setting, TermInputs, TermOutput
    from .papers import Paper
    from .trainer import GRPOVariantTrainer
    from .variants import Variant, get_variant, list_variants, register_variant

__all__ = [
    "Advantage",
    "Domain",
    "GRPOVariantConfig",
    "GRPOVariantFields",
    "GRPOVariantTrainer",
    "Paper",
    "PolicyTerm",
    "Setting",
    "SuccessMonitor",
    "TermInputs",
    "TermOutput",
    "Variant",
    "get_variant",
    "list_variants",
    "register",
    "register_variant",
    "theory",
    "unregister",
]

_MODULES = {
    **dict.fromkeys(("GRPOVariantConfig", "GRPOVariantFields"), ".config"),
    "GRPOVariantTrainer": ".trainer",
    "SuccessMonitor": ".monitor.callback",
    "Paper": ".papers",
    **dict.fromkeys(("Advantage", "Domain", "PolicyTerm", "Setting", "TermInputs", "TermOutput"), ".objective.terms"),
    "Variant": ".variants",
    "get_variant": ".variants",
    "list_variants": ".variants",
    "register": ".launch",
    "register_variant": ".variants",
    "unregister": ".launch",
}


# Importing TRL takes seconds; whoever only asks for the list of variants does not wait for it.
def __getattr__(name: str) -> Any:
    if name == "theory":
        return import_module(".theory", __name__)
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("GRPOVariantConfig", "GRPOVariantFields", "GRPOVariantTrainer"):
        # Refuses a TRL that is not supported before anything is missed in it.
        import_module(".compat", __name__)
    return getattr(import_module(_MODULES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
