"""What checks recompute from stored tokens: attended means, A-forms of pairs, T1's monotonicity."""

import numpy as np

from paper_figures.figure import ContradictionError


def means(x: np.ndarray, W: np.ndarray) -> np.ndarray:
    """m_i = Σ_j P_ij x_j of tokens (times, n, d)."""
    scores = x @ W @ x.swapaxes(1, 2)
    weights = np.exp(scores - scores.max(2, keepdims=True))
    return weights @ x / weights.sum(2, keepdims=True)


def pair_forms(x: np.ndarray, A: np.ndarray) -> np.ndarray:
    """(x_i − x_j)ᵀA(x_i − x_j) for i < j, (..., pairs), of tokens (..., n, d)."""
    i, j = np.triu_indices(x.shape[-2], 1)
    gaps = x[..., i, :] - x[..., j, :]
    return ((gaps @ A) * gaps).sum(-1)


def require_growth(forms: np.ndarray, slack: np.ndarray | float, where: str) -> None:
    """ContradictionError if a form (times, pairs) decreases between two times by more than the slack."""
    if not (np.diff(forms, axis=0) >= -slack).all():
        raise ContradictionError(f"{where}: the A-form of a pair decreases, which T1 excludes")
