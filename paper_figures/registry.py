"""All figures, in the order of docs/figures.md."""

from paper_figures import (
    fig_absolute_rates,
    fig_canonical_tasks,
    fig_causal_rates,
    fig_collapse,
    fig_collapse_threshold,
    fig_encodings,
    fig_head_behaviour,
    fig_hyperplane,
    fig_layers,
    fig_movie,
    fig_pairwise,
    fig_positional_symbolic,
    fig_quadrants,
    fig_refinements,
    fig_regime_map,
    fig_scenarios,
    fig_spectra,
    fig_threshold,
)
from paper_figures.figure import Figure
from theory.errors import InputError, did_you_mean

FIGURES: tuple[Figure, ...] = tuple(
    module.FIGURE
    for module in (
        fig_scenarios,
        fig_quadrants,
        fig_pairwise,
        fig_threshold,
        fig_collapse,
        fig_collapse_threshold,
        fig_causal_rates,
        fig_absolute_rates,
        fig_hyperplane,
        fig_regime_map,
        fig_encodings,
        fig_layers,
        fig_spectra,
        fig_refinements,
        fig_positional_symbolic,
        fig_head_behaviour,
        fig_canonical_tasks,
        fig_movie,
    )
)


def select(names: tuple[str, ...]) -> list[Figure]:
    """The figures of these names, all if there are none. InputError for an unknown one."""
    known = {figure.name: figure for figure in FIGURES}
    for name in names:
        if name not in known:
            fix = f"{did_you_mean(name, known)} `tokendyn figures --list` shows all".strip()
            raise InputError("NAME", got=repr(name), expected="the name of a figure", fix=fix)
    return [known[name] for name in dict.fromkeys(names)] or list(FIGURES)
