"""What came of a sweep: outcomes and rates, family by family."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from numerics.solution import Outcome

FAMILY = ("n", "d", "heads", "causal", "encoding", "sphere", "score_positive", "response_positive")
"""Systems that agree in these columns are one family."""

RATES = ("norm_rate", "diameter_rate", "steps")
QUANTILES = (0.05, 0.5, 0.95)
SUMMARISED = (*FAMILY, "outcome", *RATES)


def summarise(tables: Iterable[Any]) -> dict[str, Any]:
    """Counts of outcomes, and the quantiles of finite rates, of Arrow tables with the columns SUMMARISED."""
    parts = list(tables)
    columns = {
        name: np.concatenate([part[name].to_numpy() for part in parts]) if parts else np.empty(0)
        for name in SUMMARISED
    }
    members = _members([columns[name] for name in FAMILY])
    families = [
        {
            **{
                name: columns[name][rows[0]].item() if name != "encoding" else columns[name][rows[0]]
                for name in FAMILY
            },
            "systems": len(rows),
            "outcomes": _outcomes(columns["outcome"][rows]),
            **{name: _quantiles(columns[name][rows]) for name in RATES},
        }
        for rows in members
    ]
    outcomes = _outcomes(columns["outcome"])
    return {"systems": len(columns["outcome"]), "outcomes": outcomes, "families": families}


def _members(keys: list[np.ndarray]) -> list[np.ndarray]:
    """The rows of each family, families in the order of their keys."""
    code = np.zeros(len(keys[0]), dtype=np.int64)
    for key in keys:
        values, index = np.unique(key, return_inverse=True)
        _, code = np.unique(code * len(values) + index, return_inverse=True)
    order = np.argsort(code, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(code[order])) + 1) if len(code) else []


def _outcomes(names: np.ndarray) -> dict[str, int]:
    return {kind.name: count for kind in Outcome if (count := int((names == kind.name).sum()))}


def _quantiles(values: np.ndarray) -> list[float] | None:
    """At QUANTILES, of the finite values; None if there are none."""
    values = values[np.isfinite(values)]
    return np.quantile(values, QUANTILES).tolist() if len(values) else None
