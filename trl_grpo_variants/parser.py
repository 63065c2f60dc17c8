# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The command line of a command."""

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """A parser that raises a `ValueError` of one sentence, where `argparse` prints its usage and ends the process."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message[0].upper()}{message[1:]}; see `{self.prog} --help`.")
