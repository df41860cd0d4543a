"""Is a suspect's violation real? Longer and sharper runs, and a close look at states that stand still.

A state can move so slowly that it looks fixed for any time a computer has (its velocity is like
e^{−|x|²}); so what stands still counts only if Newton's method finds an equilibrium right beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import chain

import torch
from flint import arb
from torch import Generator, Tensor

from tokendyn.claims.dynamics import Path, Systems, started_at
from tokendyn.claims.genome import Genome
from tokendyn.claims.hunt import NEAR, Judge, Suspect
from tokendyn.claims.system import ExactSystem, hypotheses
from tokendyn.claims.violation import (
    FLOOR,
    GONE,
    STRICT,
    along,
    blurred,
    instant,
    long_run,
    quantities,
    times_for,
)

HORIZONS = (60.0, 600.0, 20_000.0)
RATES = (30.0, 60.0, 150.0, 400.0, 1000.0)
"""Horizons at which rates are measured."""
NEARBY = 150.0
"""The horizon at which they are for starts near by."""
GROWING = torch.linspace(0, 120, 481, dtype=torch.float64)
"""Times at which exponential growth is looked at."""
NEIGHBOURS, FEW = 48, 8
SAMPLES = 9
"""Of a run up to a violation."""
FAR = 0.05
"""How far off to look for more equilibria, relative to the size of tokens."""
WIDEST, DAMPED = 12.0, 4.0
"""Differences of scores up to which what they leave does not creep: e^(−12) is far above a zero's error.

And up to which damping by the least weight changes sizes within the runs that tell a rate.
"""
UNSURE = 1e-8
"""The error of states that runs end in, relative to their largest entry."""
SLOW_STEPS = 30
"""Newton steps to a singular zero."""
ZERO_MODE = 1e-7
"""Growth, in units of the pace, that is none where Newton's steps to a singular zero end."""
TINY_PARAMETER = 1e-3
"""Raw numbers of weights below it, perhaps squared, do their work after any run ends, unless they are 0."""
TINY = 1e-6
"""Size, beside the largest, of entries of a start that do so too, and of tokens that a tolerance hides."""
SHORTER = 0.6
"""The way of what settles, relative to that over a tenth of the time: like t^(-0.22), or faster."""
MOVES = 1e-4
"""Speed, relative to the tokens' size and the system's pace, above which a state is not standing still."""


def established(judge: Judge, suspect: Suspect) -> Suspect | None:
    """The suspect if it is confirmed; or if that is, the same with 0 for tokens that vanish beside others."""
    if confirmed(judge, suspect):
        return suspect
    sunk = _sunk(judge, suspect) if judge.claim.parsed.asymptotic else None
    return sunk if sunk and sunk.score > 0 and confirmed(judge, sunk) else None


@torch.no_grad()
def _sunk(judge: Judge, suspect: Suspect) -> Suspect | None:
    """The suspect whose start is 0 where tokens come to be hidden; None if none do."""
    systems = judge.systems(suspect.genome, suspect.raw[None])
    path = systems.path(times_for(judge.claim, HORIZONS[1]), max_steps=100_000)
    start, hidden = systems.x0[0], _hidden(path.states[0, path.last[0]].nan_to_num(0))
    if not start[hidden].any():
        return None
    row = started_at(suspect.genome, suspect.raw, start.masked_fill(hidden[:, None], 0.0))
    return judge.suspect(suspect.genome, row)


def confirmed(judge: Judge, suspect: Suspect) -> bool:
    """Whether the violation stands up to more time and smaller tolerances, in floating point."""
    row = suspect.raw[None]
    if judge.feasible(suspect.genome, row)[0] < 0:
        return False
    if judge.claim.parsed.asymptotic:
        plainer = _plainer(suspect)
        if not judge.systems(suspect.genome, row).one_pace(1e-4)[0]:
            return False
        if (plainer != suspect.raw).any() and not confirmed(judge, judge.suspect(suspect.genome, plainer)):
            return False
    return _confirmed(judge, suspect)


def _plainer(suspect: Suspect) -> Tensor:
    """The row with 0 in place of tiny parameters, and of parts of tokens that are tiny beside others."""
    place = suspect.genome.parts["x"].place
    start = suspect.raw[place].abs()
    tiny = suspect.raw.abs() < TINY_PARAMETER
    tiny[place] = start < TINY * start.max()
    return torch.where(tiny, 0.0, suspect.raw)


def _confirmed(judge: Judge, suspect: Suspect) -> bool:
    """The same for a row within the hypotheses, as it is."""
    if not judge.claim.parsed.asymptotic:
        return suspect.score > STRICT and _again(judge, suspect) and _typical(judge, suspect)
    if judge.claim.parsed.kind == "rate":
        return _misses_rate(judge, suspect) and _typical(judge, suspect)
    resolved = True
    for horizon in _horizons(judge):
        seen, ended = _survives(judge, suspect, horizon)
        if not seen:
            return False
        resolved = resolved and seen == "resolved"
        if ended:
            break
    if not resolved and judge.claim.attention == "hardmax":  # neighbours chatter alike
        return False
    if judge.claim.quantifier == "every start":
        return resolved or _shared(judge, suspect)
    return _shared(judge, suspect) and not _parting(judge, suspect)


def confirmed_exactly(judge: Judge, genome: Genome, raw: Sequence[Fraction]) -> Suspect | None:
    """The suspect that rationals stand for, if it is confirmed, and no hypothesis fails exactly.

    Floats must be right about its weights: where these cancel to 0, rounding may be all that moves tokens.
    """
    suspect, exact = judge.suspect(genome, raw), ExactSystem(genome, raw)
    if hypotheses(exact).fails or not confirmed(judge, suspect):
        return None
    floats = judge.systems(genome, suspect.raw[None]).system
    for matrices, right in ((floats.score, exact.W), (floats.value, exact.V)):
        entries = [[[float(arb(entry).mid()) for entry in row] for row in matrix] for matrix in right]
        wanted = torch.tensor(entries, dtype=torch.float64)
        error = (matrices.view(wanted.shape) - wanted).norm(dim=(1, 2))
        if not (error <= 1e-9 * wanted.norm(dim=(1, 2))).all():  # NaN: a weight that is not defined
            return None
    return suspect


def _horizons(judge: Judge) -> tuple[float, ...]:
    return (60.0, 600.0) if judge.claim.step or judge.claim.attention == "hardmax" else HORIZONS


def _agree(systems: Systems, *paths: Path) -> Tensor:
    """Whether runs have the same quantities (items,), at every sample but the start, to 2 %."""
    both = torch.stack([path.reached[0] for path in paths]).all(0)
    both[0] = False
    sides = [_quantity(systems, path)[0, both] for path in paths]
    return torch.stack([((side - sides[0]).abs() <= 0.02 * sides[0].abs()).all(0) for side in sides]).all(0)


def _clean(systems: Systems, path: Path) -> Tensor:
    """Whether small errors leave the quantities (items,) as they are.

    What cancels beside large tokens is not resolved, and shows it here. So does what grows from rounding,
    where hypotheses or an invariant set keep it at 0: it goes through sizes that no run agrees about.
    """
    return _agree(systems, path, *(replace(path, states=x) for x in blurred(systems, path.states, UNSURE)))


def _quantity(systems: Systems, path: Path) -> Tensor:
    """Of the conclusion (B, samples, items): the distance of both sides where they are to be compared."""
    left, right = along(systems, path)
    if right is not None and systems.claim.parsed.kind in ("compare", "limit", "eventually"):
        return left - right
    return left


def _again(judge: Judge, suspect: Suspect) -> bool:
    """Whether the violation shows again; at a later time, larger than what tolerances make of it."""
    least = STRICT if judge.claim.parsed.kind == "compare" else 1e-5
    if suspect.time == 0:
        return judge.score(suspect.genome, suspect.raw[None])[0][0].item() > least
    systems = judge.systems(suspect.genome, suspect.raw[None])
    times = torch.linspace(0, 1, SAMPLES, dtype=torch.float64) * suspect.time * systems.pace[0]
    times = times.round().unique() if systems.h is not None else times
    with torch.no_grad():
        paths = [systems.path(times, rtol=rtol) for rtol in (1e-6, 1e-10)]
        if not all(path.reached[0, -1] for path in paths):
            return False
        runs = [
            replace(path, states=states)
            for path in paths
            for states in (path.states, *blurred(systems, path.states, UNSURE))
        ]
        scores = torch.stack([instant(systems, run.states[:, -1], run.times[:, -1])[0] for run in runs])
        sizes = torch.stack([_quantity(systems, run)[0, 1:] for run in runs])
    least = 1e-4 if judge.claim.parsed.kind == "compare" else 1e-2
    agree = (scores.amax(0) < 1.2 * scores.amin(0)) & (_spread(sizes) <= 0.2 * sizes.abs().amin(0)).all(0)
    return bool(((scores.amin(0) > least) & agree).any())


def _spread(values: Tensor) -> Tensor:
    return values.amax(0) - values.amin(0)


def _runs(systems: Systems, horizon: float) -> tuple[Path, Path]:
    """A fine one and a coarse one."""
    times = times_for(systems.claim, horizon)
    fine, coarse = (systems.path(times, rtol=rtol, max_steps=100_000) for rtol in (1e-9, 1e-6))
    return fine, coarse


@torch.no_grad()
def _misses_rate(judge: Judge, suspect: Suspect) -> bool:
    """Whether the two longest runs that tell a rate both miss it."""
    systems = judge.systems(suspect.genome, suspect.raw[None])
    found = []
    for horizon in RATES:
        fine, coarse = _runs(systems, horizon)
        items = long_run(systems, fine)[0]
        end = fine.times[:, fine.last[0]]
        if judge.claim.quantifier != "every start":
            end = end.clamp(max=NEARBY / systems.pace)
        usable = (_resolved(fine) or not fine.grew[0]) and bool(systems.tells_rates_apart(end)[0])
        usable = usable and (_moving(systems, fine) or _stands(judge, suspect, fine.states[0, fine.last[0]]))
        told = _clean(systems, fine) & _agree(systems, fine, coarse) & usable
        found.append(torch.where(told, items, -torch.inf))
    scores = [[score for score in item if score > -torch.inf] for item in torch.stack(found, 1).tolist()]
    return any(len(item) > 1 and min(item[-2:]) > 0 for item in scores)


@torch.no_grad()
def _survives(judge: Judge, suspect: Suspect, horizon: float) -> tuple[str, bool]:
    """How the violation shows: "resolved", "seen" where runs do not agree about its size, "" not at all.

    And whether tokens outgrew the run, so that there is no longer one.
    """
    systems = judge.systems(suspect.genome, suspect.raw[None])
    fine, coarse = _runs(systems, horizon)
    violated = long_run(systems, fine)[0] > 0
    if not violated.any() or not (_resolved(fine) or _decaying_power(judge, fine)):
        return "", False
    if judge.claim.attention == "softmax" and systems.frozen(fine)[0]:
        return "", False
    clean, freezes = violated & _clean(systems, fine), bool(fine.grew[0] and _freezes(systems).any())
    if fine.grew[0] and not (clean.any() or freezes):
        return "", True
    stable = bool((clean & _agree(systems, fine, coarse)).any()) or _came_to_zero(fine) or freezes
    seen = "resolved" if stable else "seen"
    if horizon == _horizons(judge)[0] or fine.grew[0]:
        return seen, bool(fine.grew[0])
    return seen if _endures(judge, suspect, horizon, fine, violated, stable) else "", False


def _endures(
    judge: Judge, suspect: Suspect, horizon: float, path: Path, violated: Tensor, stable: bool
) -> bool:
    """Whether what a run shows, as far as floats can tell, is not on its way to something else."""
    systems, between = judge.systems(suspect.genome, suspect.raw[None]), _horizons(judge)[1:-1]
    timed = judge.claim.parsed.kind == "limit" and "t" in judge.claim.parsed.names()
    if horizon in between:
        return timed or _lasts(judge, suspect, path) or _open(systems, path.states[0, -1])
    if _scaled(systems) and _slowly(systems, path.states[0, -1]):
        return False
    if timed:
        return stable and _moving(systems, path) and _comes_elsewhere(systems, path)
    times = (times_for(judge.claim, one) for one in between)
    earlier = (systems.path(one, rtol=1e-9, max_steps=100_000) for one in times)
    return _settles(systems, path, violated) or all(
        _lasts(judge, suspect, run) for run in chain([path], earlier)
    )


def _lasts(judge: Judge, suspect: Suspect, path: Path) -> bool:
    """Whether a run ends in what goes on: exponential decay, motion, or an equilibrium."""
    systems = judge.systems(suspect.genome, suspect.raw[None])
    return _came_to_zero(path) or _moving(systems, path) or _stands(judge, suspect, path.states[0, -1])


def _resolved(path: Path) -> bool:
    """Whether no token is so small beside the largest that the run's tolerance, which they share, hides it.

    What is exactly 0 is resolved.
    """
    x = path.states[0, path.last[0]].nan_to_num(0)
    return not (_hidden(x) & (x != 0).any(-1)).any()


def _hidden(x: Tensor) -> Tensor:
    """Which tokens (n,) of x (n, d) are that small."""
    size = x.norm(dim=-1)
    return size <= TINY * size.max()


def _came_to_zero(path: Path) -> bool:
    """Exponentially: all tokens are 1e-8 of what they were."""
    return bool(path.states[0, -1].abs().max() < 1e-8 * path.states[0, 0].abs().max())


def _moving(systems: Systems, path: Path) -> bool:
    """Whether every token still moves at the end, at a speed that the run resolves, as a share of its size.

    A single token that seems to stand may creep, and drive the others for as long as it does. What turns as
    a whole, about an axis of symmetry, stands, but for rates.
    """
    x = path.states[:, path.last[0]]
    rate = systems.claim.parsed.kind == "rate"
    moves = systems.velocity(x)[0] if rate else _unturned(systems, x[0])
    speed = moves.norm(dim=-1) * (1 if systems.h is None else systems.h[0])
    size, largest_size = x[0].norm(dim=-1), path.states[0].nan_to_num(0).norm(dim=-1).amax()
    least, time = MOVES * systems.pace[0], path.times[0, path.last[0]]
    if rate:  # what creeps like a power of log(t) has none yet
        least = 0.3 / time
    elif _scaled(systems):
        least = 0.003 / time
    moving = (speed > least * size) | (size < 1e-8 * largest_size)
    if systems.claim.causal:  # the first token sees only itself: where it rests, it does not creep
        moving[0] |= speed[0] <= 1e-12 * systems.pace[0] * size[0]
    if not moving.all() or _sleeps(systems, path):
        return False
    return _scaled(systems) or rate or _keeps_going(path)


def _sleeps(systems: Systems, path: Path) -> bool:
    """Whether a weight of attention is so small that the damping it does is not seen yet.

    A weight of a token that keeps its size, or of any while the largest size is kept.
    """
    if systems.claim.attention != "softmax":
        return False
    sizes = path.states[0].norm(dim=-1)
    each, whole = ((growth > 1 / 3) & (growth < 3) for growth in (_growth(sizes), _growth(sizes.amax(-1))))
    widest = DAMPED if systems.claim.parsed.kind == "rate" else WIDEST
    return bool(((each | whole) & (_contrast(systems, path.states[0, path.last[0]]) >= widest)).any())


def _scaled(systems: Systems) -> bool:
    """Whether the conclusion may be about states that come to rest like a power of time."""
    return systems.claim.parsed.kind == "power" or "t" in systems.claim.parsed.names()


def _comes_elsewhere(systems: Systems, path: Path) -> bool:
    """Whether the quantity comes to another limit: it changes ever less over decades of time."""
    left, right = along(systems, path)
    assert right is not None
    distance = (left - right)[0].abs()
    last = path.last[0]
    samples = [distance[max(0, last - back)] for back in (16, 8, 0)]
    before, after = (samples[1] - samples[0]).abs(), (samples[2] - samples[1]).abs()
    settled = (after < 0.5 * before + 1e-6 * samples[2]) & (after < 0.05 * samples[2]) & (samples[2] > FLOOR)
    return bool(settled.any())


@torch.no_grad()
def _freezes(systems: Systems) -> Tensor:
    """Whether distances (B, items) of a limit stand still, but not at 0, while tokens grow exponentially.

    They cancel beside tokens that outgrow floats, and are looked at before: from 1e4 to 1e6 times the start,
    where all tokens come to attend alike.
    """
    claim = systems.claim
    if claim.parsed.kind != "limit" or claim.step or _scaled(systems):
        return torch.zeros(len(systems.raw), 1, dtype=torch.bool)
    first = systems.path(GROWING, max_steps=20_000, rtol=1e-12)
    sizes = first.states.nan_to_num(torch.inf).norm(dim=-1).amax(-1)
    at = [(sizes <= times * sizes[:, :1]).sum(1) - 1 for times in (1e4, 1e5, 1e6)]
    q = _quantity(systems, first).abs()
    early, middle, late = (q[torch.arange(len(q)), k] for k in at)
    seen = (at[0] > 8) & (at[1] - at[0] > 2) & (at[2] - at[1] > 2) & (at[2] < len(GROWING) - 1)
    begun, ended = (_unlike(systems, first.states[torch.arange(len(q)), k]) for k in (0 * at[2], at[2]))
    seen = seen & (begun > 1e-200) & (ended <= 1e-12 * begun)
    still = ((middle - early).abs() < 1e-2 * late) & ((late - middle).abs() < 1e-3 * late)
    return seen[:, None] & still & (late > 1e-3 * q[:, 0])


def _unlike(systems: Systems, x: Tensor) -> Tensor:
    """How differently (B,) tokens at x (B, n, d) attend: 0 if all rows of attention are alike."""
    rows = systems.attention(x.nan_to_num(0))
    return (rows - rows[..., :1, :]).abs().flatten(1).amax(1)


def _settles(systems: Systems, path: Path, violated: Tensor) -> bool:
    """Whether every token comes to rest like a power of time, where a violated item (items,) still differs.

    Its way over a decade of time is ever shorter, and no weight of attention is so small that it would move
    tokens later only. Beside where they will be, extrapolated, there is a state of rest.
    """
    last = int(path.last[0])
    x = path.states[0, [last - back for back in (24, 16, 8, 0)]] if last >= 24 else path.states[0, :0]
    if not len(x) or not _open(systems, x[-1]):
        return False
    ways, size = (x[1:] - x[:-1]).norm(dim=-1), x[-1].norm(dim=-1).max()
    if not (ways[1:] < SHORTER * ways[:-1] + 1e-7 * size).all():
        return False
    ratio = (ways[2] / ways[1].clamp(min=1e-300)).clamp(max=SHORTER)[:, None]
    rest, modes = _rest(systems, x[-1] + ratio / (1 - ratio) * (x[-1] - x[-2]))
    if rest is None or modes.max() > ZERO_MODE or _slow(modes):
        return False
    if (rest - x[-1]).norm(dim=-1).max() > 4 * ways[2].max() + 1e-6 * size:
        return False
    time = path.times[0, last]
    there, now = (
        left if right is None else left - right
        for left, right in (quantities(systems, systems.at(state[None], time)) for state in (rest, x[-1]))
    )
    return bool((violated & (there / now > 0.5)[0]).any())


def _rest(systems: Systems, x: Tensor) -> tuple[Tensor | None, Tensor]:
    """A state of rest (None: there is none) that Newton steps lead to from x, and its modes' growth.

    Its Jacobian may be singular: each step then takes off a share of what is left.
    """
    field, at = _field(systems, x, x.new_zeros(x.shape[1], x.shape[1])), x.flatten().clone()
    jacobian = at
    for _ in range(SLOW_STEPS):
        with torch.enable_grad():
            jacobian = torch.autograd.functional.jacobian(field, at)
        if not jacobian.isfinite().all():
            return None, at
        at = at - torch.linalg.pinv(jacobian, rtol=1e-10) @ field(at)
    found = field(at).abs().max() <= 1e-13 * x.abs().max()
    return (at.unflatten(0, x.shape) if found else None), torch.linalg.eigvals(jacobian).real


def _slow(modes: Tensor) -> bool:
    """Whether a mode takes longer than runs, but is none at rest."""
    return bool(((modes.abs() > ZERO_MODE) & (modes.abs() < 30 / HORIZONS[-1])).any())


def _slowly(systems: Systems, x: Tensor) -> bool:
    """Whether tokens come to a state with such a mode, in time exponentially, though powers of time show."""
    rest, modes = _rest(systems, x)
    return rest is not None and _slow(modes)


def _decaying_power(judge: Judge, path: Path) -> bool:
    """Powers are measured while tokens are resolved; those that decay faster then do no harm."""
    return judge.claim.parsed.kind == "power" and not path.grew[0]


def _keeps_going(path: Path) -> bool:
    """Whether the tokens' size, over the last half decades of time, is kept to 1e-4 or grows threefold.

    What shrinks slowly may go on to 0; weak damping looks like none for a while.
    """
    growth = _growth(path.states[0].norm(dim=-1).amax(-1))
    return bool((growth - 1).abs() < 1e-4 or growth > 3)


def _growth(sizes: Tensor) -> Tensor:
    """Of sizes (samples, …), over the last half decades of time; NaN if they outgrew the run."""
    return sizes[-7:].amax(0) / sizes[-13:-6].amax(0)


def _stands(judge: Judge, suspect: Suspect, x: Tensor) -> bool:
    """Whether there is an equilibrium beside x that the trajectory comes to, or that is a start of its own.

    It comes to a stable one. An unstable one says nothing of almost every start, and nothing of starts with
    hypotheses unless it satisfies them itself.
    """
    systems = judge.systems(suspect.genome, suspect.raw[None])
    found = _equilibrium(systems, x)
    if found is None:
        return False
    at, jacobian = found
    values, slack = torch.linalg.eigvals(jacobian), 1e-11 * torch.linalg.matrix_norm(jacobian, 2)
    growth = values.real if systems.h is None else (1 + systems.h[0] * values).abs() - 1
    if growth.max() <= slack:
        return True
    row = started_at(suspect.genome, suspect.raw, at)
    return judge.claim.quantifier == "every start" and judge.feasible(suspect.genome, row[None]).item() >= 0


def _equilibrium(systems: Systems, x: Tensor) -> tuple[Tensor, Tensor] | None:
    """What Newton's method finds beside x with full precision, isolated but for symmetries; its Jacobian.

    An equilibrium of the flow seen from axes that turn as the tokens do, if they turn as a whole.
    Where the Jacobian is more singular than rotations that commute with the weights make it, floats cannot
    tell standing from creeping, and only a certificate can; unless there are equilibria that way, a good
    distance off, and no weight of attention is so small that nothing tells them from what creeps.
    """
    moves, turn = _turns(systems, x)
    field = _field(systems, x, turn)
    size, free = x.abs().max(), _rank(moves)

    def newton(at: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """A zero near a state, the Jacobian and the directions that it leaves free; None if there is none."""
        move = jacobian = at
        right, rank = at, 0
        for _ in range(6):
            jacobian = torch.autograd.functional.jacobian(field, at)
            if not jacobian.isfinite().all():
                return None
            left, stretch, right = torch.linalg.svd(jacobian)
            rank = min(len(stretch) - free, int((stretch > 1e-9 * stretch[0]).sum()))
            if rank < 1:
                return None
            move = -right[:rank].mT @ ((left[:, :rank].mT @ field(at)) / stretch[:rank])
            at = at + move
        small = field(at).abs().max() <= 1e-12 * size and move.abs().max() <= 1e-10 * size
        return (at, jacobian, right[rank:]) if small else None

    with torch.enable_grad():
        found = newton(x.flatten().clone())
        if found is None or (found[0] - x.flatten()).abs().max() > 1e-3 * size:
            return None
        at, jacobian, others = found
        if len(others) > free and not (
            _open(systems, x) and all(newton(at + FAR * size * v) for v in others)
        ):
            return None
    at = at.unflatten(0, x.shape)
    return at / at.norm(dim=-1, keepdim=True) if systems.claim.sphere else at, jacobian


def _field(systems: Systems, x: Tensor, turn: Tensor) -> Callable[[Tensor], Tensor]:
    """The velocity of flat states of x's shape, relative to the pace, seen from axes that turn."""
    on_sphere = systems.claim.sphere

    def field(flat: Tensor) -> Tensor:
        state = flat.unflatten(0, x.shape)[None]
        length = state.norm(dim=-1, keepdim=True)
        if on_sphere:
            state = state / length
        radial = (1 - length) * state if on_sphere else 0.0  # so that radial directions are regular
        unturned = systems.velocity(state) - state @ turn.mT
        return (unturned / systems.pace[0] + radial)[0].flatten()

    return field


def _open(systems: Systems, x: Tensor) -> bool:
    """Whether no token is all but unseen: what its weight moves would be taken for standing."""
    return bool(_contrast(systems, x).max() < WIDEST)


def _contrast(systems: Systems, x: Tensor) -> Tensor:
    """The largest difference of scores (n,) that each token of x (n, d) has, in any head."""
    seen = systems.system.scores(x[None])
    visible = systems.system.visible(len(x)).expand(seen.shape)
    lowest, highest = seen.masked_fill(~visible, torch.inf), seen.masked_fill(~visible, -torch.inf)
    return (highest.amax(-1) - lowest.amin(-1)).flatten(0, -2).amax(0)


def _turns(systems: Systems, x: Tensor) -> tuple[Tensor, Tensor]:
    """How rotations that commute with all weights move x, (k, n, d); the generator (d, d) of its own turning.

    That is the one which explains most of its velocity; 0 for layers, which turn by whole angles.
    """
    d = x.shape[1]
    if systems.claim.encoding not in ("none", "alibi", "bias") or d == 1:
        return x.new_zeros(0, *x.shape), x.new_zeros(d, d)
    r, c = torch.triu_indices(d, d, 1)
    basis = x.new_zeros(len(r), d, d)
    basis[range(len(r)), r, c], basis[range(len(r)), c, r] = 1.0, -1.0
    weights = torch.cat([m.reshape(-1, d, d) for m in (systems.system.score, systems.system.value)])
    brackets = (basis[:, None] @ weights - weights @ basis[:, None]).flatten(1)
    _, stretch, right = torch.linalg.svd(brackets.mT, full_matrices=True)
    padded = torch.cat((stretch, stretch.new_zeros(len(r) - len(stretch))))
    commuting = torch.einsum("kb,bij->kij", right[padded < 1e-9 * weights.abs().max()], basis)
    moves = x @ commuting.mT
    velocity = systems.velocity(x[None])[0].flatten()
    share = torch.linalg.pinv(moves.flatten(1).mT, rtol=1e-9) @ velocity
    share = share if systems.h is None else 0 * share
    return moves, torch.einsum("k,kij->ij", share, commuting)


def _rank(moves: Tensor) -> int:
    return int(torch.linalg.matrix_rank(moves.flatten(1), rtol=1e-9)) if len(moves) else 0


def _unturned(systems: Systems, x: Tensor) -> Tensor:
    """The velocity (n, d) of a state, less that of its turning as a whole."""
    return systems.velocity(x[None])[0] - x @ _turns(systems, x)[1].mT


def _typical(judge: Judge, suspect: Suspect) -> bool:
    """Under "almost every start": whether starts near by violate the conclusion too."""
    return judge.claim.quantifier == "every start" or _shared(judge, suspect)


def _shared(judge: Judge, suspect: Suspect) -> bool:
    """Whether starts near by, of which enough satisfy the hypotheses, violate the conclusion too."""
    rows = _neighbours(judge, suspect)
    if len(rows) < NEIGHBOURS // 4:
        return False
    horizon = NEARBY if judge.claim.parsed.kind == "rate" else 600.0
    score, _ = judge.score(suspect.genome, rows, horizon)
    shown = (score > 0) | _freezes(judge.systems(suspect.genome, rows)).any(1)
    return bool(shown.double().mean() > 0.9)


def _neighbours(judge: Judge, suspect: Suspect) -> Tensor:
    """Rows that differ in their start a little; those of them that satisfy the hypotheses."""
    g = Generator().manual_seed(0)
    place = suspect.genome.parts["x"].place
    rows = suspect.raw.repeat(NEIGHBOURS, 1)
    size = suspect.raw[place].abs().max().clamp(min=1e-3)
    rows[:, place] += NEAR * size * torch.randn(rows[:, place].shape, generator=g, dtype=torch.float64)
    return rows[judge.feasible(suspect.genome, rows) >= 0]


@torch.no_grad()
def _parting(judge: Judge, suspect: Suspect) -> bool:
    """Whether starts near by part from each other as slowly as they creep, in all that is violated.

    The start is then on a null set that attracts nothing, and others come to do something else in the end.
    """
    genome, times = suspect.genome, times_for(judge.claim, _horizons(judge)[-1])
    alone = judge.systems(genome, suspect.raw[None])
    path = alone.path(times, max_steps=100_000)
    over = path.grew[0] or path.states[0, -1].abs().max() < GONE
    if over or (not _scaled(alone) and _moving(alone, path)):
        return False
    violated = long_run(alone, path)[0] > 0
    many = judge.systems(genome, _neighbours(judge, suspect)[:FEW])
    near = many.path(times, max_steps=100_000)
    values = [_quantity(systems, run) for systems, run in ((alone, path), (many, near))]
    apart = _spread(values[1]) / values[0][0].abs()
    before, after = apart[int((times <= times[-1] / 10).sum()) - 1], apart[-1]
    return not (after <= 1.05 * before + 1e-5)[violated].any()  # what runs err by; NaN: one that ended
