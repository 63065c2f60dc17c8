# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Visits as arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


Columns = dict[str, NDArray[Any]]


def columns(table: Any) -> Columns:
    """
    Columns of a table of visits as arrays; numbers as float64, with NaN where there is none.

    Args:
        table (`pyarrow.Table`):
            Visits.

    Returns:
        `dict[str, np.ndarray]`:
            Arrays of shape `(n,)`.
    """
    texts = ("prompt_id", "prompt")
    return {
        name: np.array(table.column(name).to_pylist(), dtype=object if name in texts else np.float64)
        for name in table.column_names
    }
