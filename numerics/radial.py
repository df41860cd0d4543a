"""Log-radius coordinates: tokens x = eʳu, so that exponential growth is a constant slope of r.

The state of a batch is one tensor z (n·d + 1, batch): u in the order of (n, d), then r. A row that does not
grow keeps r = 0 and u = x; in a growing row r' = ⟨u, F⟩/⟨u, u⟩ and u' = F − r'u with F = e⁻ʳ ẋ(eʳu), so that
u keeps its length.
"""

import math

import torch
from torch import Tensor

from numerics.kernel import Kernel, flow, power_of_two

OUTGROWN = 8.0  # a row goes over where max|x| is above this and ⟨x, ẋ⟩ > 0
FAR = 1e100  # … or where max|x| is above this, in float32 FAR_32; it goes back where max|x| < 1
PLAIN = 1e300  # samples up to this size, in float32 PLAIN_32, are written as plain tokens
FAR_32, PLAIN_32 = 1e12, 1e37


def pack(u: Tensor, r: Tensor) -> Tensor:
    """u (n, d, batch) and r (batch,) as z (n·d + 1, batch)."""
    return torch.cat([u.flatten(0, 1), r[None]])


def unpack(z: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """The inverse of ``pack``."""
    return z[:-1].unflatten(0, (-1, kernel.value.shape[0])), z[-1]


def largest(z: Tensor) -> Tensor:
    """max|u| of each system (batch,)."""
    return z[:-1].abs().amax(0)


def total(a: Tensor) -> Tensor:
    """The sum over the first axis, added pairwise in a fixed order."""
    while len(a) > 1:
        half = len(a) // 2
        a = torch.cat([a[:half] + a[half : 2 * half], a[2 * half :]])
    return a[0]


def slope(z: Tensor, kernel: Kernel, growing: Tensor | None) -> Tensor:
    """ż (n·d + 1, batch) for states z and flags growing (batch,), or None where no row grows.

    In a row that does not grow both give the same numbers.
    """
    return pack(*rates(*unpack(z, kernel), kernel, growing))


def rates(u: Tensor, r: Tensor, kernel: Kernel, growing: Tensor | None) -> tuple[Tensor, Tensor]:
    """u' (n, d, batch) and r' (batch,), see ``slope``."""
    if growing is None:
        return flow(u, kernel), torch.zeros_like(r)
    F = flow(u, kernel, r)
    rate = total((u * F).flatten(0, 1)) / total((u * u).flatten(0, 1))
    rate = torch.where(growing, rate, 0.0)
    return F - rate * u, rate


def change(z: Tensor, velocity: Tensor, growing: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """States, their slopes and flags in the coordinates that suit them, without a new evaluation."""
    size, far = largest(z), FAR if z.dtype == torch.float64 else FAR_32
    outgrown = ~growing & (size > OUTGROWN)
    if outgrown.any():
        outward = total(z[:-1] * velocity[:-1]) > 0
        over = outgrown & (outward | (size > far))
    else:
        over = outgrown
    if over.any():
        radius = torch.where(over, power_of_two(size), 1.0)
        F = velocity[:-1] / radius
        u = z[:-1] / radius
        rate = torch.where(over, total(u * F) / total(u * u), 0.0)
        z = torch.cat([u, torch.where(over, radius.log(), z[-1])[None]])
        velocity = torch.cat([F - rate * u, torch.where(over, rate, velocity[-1])[None]])
        growing = growing | over
    back = growing & (size.log() + z[-1] < 0)
    if back.any():
        scale = torch.where(back, z[-1].exp(), 1.0)
        rate = torch.where(back, velocity[-1], 0.0)
        velocity = torch.cat([(velocity[:-1] + rate * z[:-1]) * scale, (velocity[-1] - rate)[None]])
        z = torch.cat([z[:-1] * scale, torch.where(back, 0.0, z[-1])[None]])
        growing = growing & ~back
    return z, velocity, growing


def tokens(z: Tensor, kernel: Kernel) -> Tensor:
    """x = eʳu (n, d, batch); inf where it overflows."""
    u, r = unpack(z, kernel)
    half = (r / 2).clamp(max=0.98 * math.log(torch.finfo(r.dtype).max)).exp()
    return u * half * half


def sample(z: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """Tokens (batch, n, d) over e^log_scale, and log_scale (batch,): 0 for tokens below PLAIN."""
    u, r = unpack(z, kernel)
    plain = math.log(PLAIN if z.dtype == torch.float64 else PLAIN_32)
    log_scale = torch.where(largest(z).log() + r < plain, 0.0, r)
    return (u * (r - log_scale).exp()).movedim(-1, 0), log_scale
