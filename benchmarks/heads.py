"""The metric of block swaps over all heads and swaps at once, against its definition in loops.

Run `python -m benchmarks.heads`. The definition (S2, and the centred score) takes one head and one swap after
the other: it puts the swapped keys' logits together, takes their softmax anew, block means, and cosines. It
is written here with NumPy, apart from `numerics.positional_symbolic`. Both get the same logits of 32 heads
and 512 keys, in one run on one core, in turns; the least CPU time of a few rounds counts. With few blocks
there are few swaps to save: the ratio grows with their number. Ends with status 1 if a score differs by more
than 1e-10, or the metric is not 20 times as fast at 32 blocks (of 16 keys) or more.
"""

import sys

import numpy as np
import torch

from benchmarks.machine import processor, stay_on_one_core, timed, versions
from numerics.positional_symbolic import behaviour

HEADS, KEYS, BLOCKS, TEMPERATURE, SEED, ROUNDS = 32, 512, (8, 16, 32, 64, 128), 1 / 512, 0, 3
LEAST_RATIO, FROM_BLOCKS, LARGEST_DIFFERENCE = 20, 32, 1e-10


def directly(logits: np.ndarray, blocks: int, temperature: float, of: str) -> np.ndarray:
    """Positional, symbolic and centred score of each head, (3, heads), from logits (heads, m, m)."""
    return np.stack([_one_head(head, blocks, temperature, of) for head in logits], 1)


def _one_head(logits: np.ndarray, blocks: int, temperature: float, of: str) -> tuple[float, float, float]:
    m = len(logits)
    size = m // blocks
    places = np.arange(m)

    def means(row: np.ndarray) -> np.ndarray:
        if of == "weights":
            row = np.exp(row - row.max())
            row /= row.sum()
        return row.reshape(blocks, size).mean(1)

    d = means(logits[places, places])
    gaps, scores, contrasts = [], [], []
    for i in range(blocks):
        for j in range(i + 1, blocks):
            content = places.copy()
            content[i * size : (i + 1) * size] = places[j * size : (j + 1) * size]
            content[j * size : (j + 1) * size] = places[i * size : (i + 1) * size]
            after = means(logits[content, places])
            (a, b), (c, e) = (d[i], d[j]), (after[i], after[j])
            norm = np.sqrt((a * a + b * b) * (c * c + e * e))
            gaps.append(abs(a - b) / temperature)
            scores.append(((c * a + e * b) / norm, (c * b + e * a) / norm))
            total = (a + b, c + e) if of == "weights" else (1, 1)
            contrasts.append(((a - b) / total[0], (c - e) / total[1]))
    weight = np.exp(np.array(gaps) - max(gaps))
    weight /= weight.sum()
    positional, symbolic = weight @ np.array(scores)
    before, later = np.array(contrasts).T
    return positional, symbolic, 2 * (weight @ (before * later)) / (weight @ (before**2 + later**2))


def at_once(logits: torch.Tensor, blocks: int, temperature: float, of: str) -> np.ndarray:
    """The same by `numerics.positional_symbolic.behaviour`."""
    found = behaviour(logits, blocks, temperature, of)
    return torch.stack([found.positional, found.symbolic, found.centred]).numpy()


def main() -> int:
    """Print the table; 1 if a score differs or the ratio is too small, else 0."""
    stay_on_one_core()
    generator = torch.Generator().manual_seed(SEED)
    logits = 2 * torch.randn(HEADS, KEYS, KEYS, dtype=torch.float64, generator=generator)
    array = logits.numpy()
    print(
        f"{HEADS} heads, {KEYS} keys; {processor()}; " + ", ".join(f"{k} {v}" for k, v in versions().items())
    )
    print("of       blocks  swaps  definition, s  metric, s  ratio  largest difference")
    bad = False
    for of in ("weights", "logits"):
        for blocks in BLOCKS:
            at_once(logits, blocks, TEMPERATURE, of)
            slow, fast = [], []
            for _ in range(ROUNDS):
                slow.append(timed(lambda b=blocks, of=of: directly(array, b, TEMPERATURE, of)))
                fast += [timed(lambda b=blocks, of=of: at_once(logits, b, TEMPERATURE, of)) for _ in range(5)]
            seconds = [min(run.cpu for run in runs) for runs in (slow, fast)]
            ratio, difference = seconds[0] / seconds[1], np.abs(slow[0].result - fast[0].result).max()
            swaps = HEADS * blocks * (blocks - 1) // 2
            print(
                f"{of:8} {blocks:6} {swaps:6} {seconds[0]:14.3f} {seconds[1]:10.4f} {ratio:6.0f} "
                f"{difference:19.1e}"
            )
            slow_metric = blocks >= FROM_BLOCKS and ratio < LEAST_RATIO
            bad |= bool(slow_metric or not difference <= LARGEST_DIFFERENCE)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
