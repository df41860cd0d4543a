"""The stiff method: Rodas5P, a linearly implicit step with the exact Jacobian.

Steinebach (2023), "Construction of Rosenbrock–Wanner method Rodas5P and numerical benchmarks within the Julia
Differential Equations package", BIT Numerical Mathematics 63:27. Order 5 with an embedded order 4, stiffly
accurate, A- and L-stable; written as in Hairer & Wanner, "Solving Ordinary Differential Equations II", IV.7.
Linear algebra is elementwise along the batch, so that no row's rounding depends on its batch mates.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from numerics import dormand_prince as dp
from numerics.kernel import LARGE, Kernel
from numerics.radial import pack, rates, slope, total, unpack
from numerics.solution import Solution
from numerics.task import Position, Task, join
from numerics.torch_backend import Method, Step, combine, march

GAMMA = 0.21193756319429014
A6 = (-7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256, 0.030198172008377946)
A = (
    (3.0,),
    (2.849394379747939, 0.45842242204463923),
    (-6.954028509809101, 2.489845061869568, -10.358996098473584),
    (2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641),
    A6,
    (*A6, 1.0),
    (*A6, 1.0, 1.0),
)
# fmt: off
C = (
    (-14.155112264123755,),
    (-17.97296035885952, -2.859693295451294),
    (147.12150275711716, -1.41221402718213, 71.68940251302358),
    (165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306),
    (24.854864614690072, -3.0009227002832186, 47.4931110020768, 5.5814197821558125, -0.6610691825249471),
    (30.91273214028599, -3.1208243349937974, 77.79954646070892, 34.28646028294783, -19.097331116725623,
     -28.087943162872662),
    (37.80277123390563, -3.2571969029072276, 112.26918849496327, 66.9347231244047, -40.06618937091002,
     -54.66780262877968, -9.48861652309627),
)
DENSE = (
    (25.948786856663858, -2.5579724845846235, 10.433815404888879, -2.3679251022685204, 0.524948541321073,
     1.1241088310450404, 0.4272876194431874, -0.17202221070155493),
    (-9.91568850695171, -0.9689944594115154, 3.0438037242978453, -24.495224566215796, 20.176138334709044,
     15.98066361424651, -6.789040303419874, -6.710236069923372),
    (11.419903575922262, 2.8879645146136994, 72.92137995996029, 80.12511834622643, -52.072871366152654,
     -59.78993625266729, -0.15582684282751913, 4.883087185713722),
)
# fmt: on
LARGEST = 256  # n·d; the matrices of one row have (n·d + 1)² entries
CHUNK = 1 << 18  # numbers in one pass of tangents, to stay in cache
ROOM = 1 << 24  # numbers in the matrices of the rows treated at the same time


def supports(n: int, d: int) -> bool:
    """Whether systems of n tokens in dimension d are small enough for dense linear algebra."""
    return n * d <= LARGEST and n <= LARGE


def jacobian(z: Tensor, velocity: Tensor, kernel: Kernel, growing: Tensor | None) -> Tensor:
    """The derivative (m, m, batch) of the slope at z (m, batch), m = n·d + 1; velocity is the slope there.

    (λu, r − log λ) are the same tokens for every λ > 0, so the derivative by r is that along u, less u'.
    """
    u, r = unpack(z, kernel)
    settled = 0.4 * math.log(torch.finfo(z.dtype).max)  # attention no longer changes, and nothing overflows
    r = r.clamp(max=settled)

    def along(direction: Tensor) -> Tensor:
        return pack(*torch.func.jvp(lambda u: rates(u, r, kernel, growing), (u,), (direction,))[1])

    unit = torch.eye(len(z) - 1, dtype=z.dtype, device=z.device)
    unit = unit.view(-1, *u.shape[:2], 1).expand(-1, *u.shape)
    chunk = max(1, CHUNK // z.numel())
    columns = torch.func.vmap(along, out_dims=1, chunk_size=chunk)(torch.cat([unit, u[None]]))
    columns[:-1, -1] -= velocity[:-1]
    columns[:, -1] = 0.0 if growing is None else torch.where(growing, columns[:, -1], 0.0)
    return columns


def inverse(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Gauss–Jordan elimination with partial pivoting of matrices (m, m, batch), for ``solve``.

    Returns the inverse with permuted columns, and the permutation (m, batch). Not finite where singular.
    """
    matrix = matrix.clone()
    order = torch.arange(len(matrix), device=matrix.device)[:, None].repeat(1, matrix.shape[-1])
    for k in range(len(matrix)):
        pivot = matrix[k:, k].abs().argmax(0, keepdim=True) + k
        for part in (matrix, order):
            index = pivot.expand(1, *part.shape[1:])
            row = part.gather(0, index)
            part.scatter_(0, index, part[k : k + 1].clone())
            part[k] = row[0]
        scale = matrix[k, k].clone()
        matrix[k, k] = 1
        matrix[k] /= scale
        column = matrix[:, k].clone()
        column[k] = 0
        matrix[:k, k] = 0
        matrix[k + 1 :, k] = 0
        matrix -= column[:, None] * matrix[k]
    return matrix, order


def solve(inverse: tuple[Tensor, Tensor], right: Tensor) -> Tensor:
    """The solutions (m, batch) for right-hand sides (m, batch), added in a fixed order."""
    matrix, order = inverse
    return total((matrix * right.gather(0, order)).movedim(1, 0))


def stages(
    z: Tensor, velocity: Tensor, h: Tensor, kernel: Kernel, growing: Tensor | None
) -> tuple[Tensor, list[Tensor]]:
    """One step of size h (batch,): the new state and the eight stages kᵢ, the last of which is the error.

    (1/(γh) − J) kᵢ = ż(z + Σⱼ aᵢⱼkⱼ) + Σⱼ cᵢⱼkⱼ/h.
    """
    matrix = -jacobian(z, velocity, kernel, growing)
    matrix.diagonal().add_((1 / (GAMMA * h))[:, None])
    inverted = inverse(matrix)
    found, state = [solve(inverted, velocity)], z
    for weights, coupling in zip(A, C, strict=True):
        state = z + combine(weights, found)
        found.append(solve(inverted, slope(state, kernel, growing) + combine(coupling, found) / h))
    return state + found[-1], found


def _rodas(z: Tensor, velocity: Tensor, h: Tensor, kernel: Kernel, growing: Tensor | None) -> Step:
    new, found = stages(z, velocity, h, kernel, growing)
    first, second, third = (combine(weights, found) for weights in DENSE)
    return Step(new, slope(new, kernel, growing), found[-1], bends=(first, second + third, -third))


RODAS = Method(_rodas, dp.ALPHA, dp.BETA, stiff=True)  # the error is of the same order


def run(task: Task, at: Position, record: Solution) -> Position:
    """Rodas5P steps on any device, row by row adaptive; every row stays to its end."""
    rows = torch.arange(len(at.row), device=at.row.device).split(max(1, ROOM // len(at.z) ** 2))
    return join([march(RODAS, replace(task, stiff=False), at.keep(part), record) for part in rows])
