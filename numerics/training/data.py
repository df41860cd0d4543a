"""Data sets of the experiments: what a step sees is a function of the seed and the step alone.

Nothing of a position in the data has to be stored for a resumed run, and runs of one seed see the same data
in every scenario and with every encoding.
"""

import gzip
import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from numerics.errors import InputError
from numerics.fetch import DATA_SETS, FetchError, fetch
from numerics.training.config import Task

PARTS = ("train", "valid", "test")
ENWIK8 = (90_000_000, 5_000_000, 5_000_000)
"""The usual parts of enwik8, in bytes (Al-Rfou et al. 2019)."""
HELD_OUT_IMAGES = 5000
"""The last of the training images, for validation."""
Batch = tuple[Tensor, Tensor]


def step_seed(*numbers: int) -> int:
    """A seed for the generator, different for different numbers."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:7], "big")


@dataclass(frozen=True, eq=False)
class Text:
    """Bytes to be predicted, each from those before it in a window of `context`."""

    parts: dict[str, UInt8[Tensor, " bytes"]]
    context: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Tokens, inputs per token, classes."""
        return self.context, 1, 256

    def draw(self, part: str, count: int, seed: int) -> Batch:
        """`count` windows at random places: bytes (count, n), and the ones that follow them."""
        content = self.parts[part]
        generator = torch.Generator().manual_seed(seed)
        starts = torch.randint(len(content) - self.context, (count,), generator=generator)
        windows = content[starts[:, None] + torch.arange(self.context + 1)].long()
        return windows[:, :-1], windows[:, 1:]


@dataclass(frozen=True, eq=False)
class Images:
    """Images cut into patches, to be classified."""

    parts: dict[str, tuple[UInt8[Tensor, "count height width channels"], Int[Tensor, " count"]]]
    patch: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Tokens, inputs per token, classes."""
        images, labels = self.parts["train"]
        height, width, channels = images.shape[1:]
        return height * width // self.patch**2, self.patch**2 * channels, int(labels.max()) + 1

    def draw(self, part: str, count: int, seed: int) -> Batch:
        """`count` images as patches (count, n, inputs) with values from −1 to 1, and their classes."""
        images, labels = self.parts[part]
        generator = torch.Generator().manual_seed(seed)
        if count <= len(labels) and part != "train":
            chosen = torch.randperm(len(labels), generator=generator)[:count]
        else:
            chosen = torch.randint(len(labels), (count,), generator=generator)
        return self._patches(images[chosen]), labels[chosen]

    def _patches(self, images: Tensor) -> Float[Tensor, "count n inputs"]:
        size = self.patch
        cut = images.unflatten(2, (-1, size)).unflatten(1, (-1, size)).transpose(2, 3)
        return cut.flatten(3).flatten(1, 2).flatten(2) / 127.5 - 1


@lru_cache(maxsize=1)
def load(task: Task) -> Text | Images:
    """The data of a task, fetched if need be; the last is kept for the next run.

    Raises `FetchError` if a package cannot be fetched or its checksum differs, and `InputError` for a file
    that cannot be read or is too short, and for a patch that does not divide the image.
    """
    if task.is_text:
        return _text(task)
    images = {"mnist": _mnist, "cifar10": _cifar10, "synthetic-images": _synthetic_images}[task.name](task)
    height, width = images["train"][0].shape[1:3]
    if height % task.patch or width % task.patch:
        raise InputError(
            f"tasks.{task.name}.patch", task.patch, f"a divisor of {height} and {width}", "e.g. 4"
        )
    return Images(images, task.patch)


def _text(task: Task) -> Text:
    if task.name == "enwik8":
        content = torch.from_numpy(_enwik8(task))
        sizes = list(ENWIK8)
    else:
        content = _synthetic_text() if task.name == "synthetic-text" else _file(task)
        held_out = len(content) // 20
        sizes = [len(content) - 2 * held_out, held_out, held_out]
    if min(sizes) <= task.context or sum(sizes) > len(content):
        raise InputError(
            f"tasks.{task.name}.data",
            f"{len(content):,} bytes",
            f"100,000,000 for enwik8, else more than {20 * task.context:,}: a twentieth is held out twice",
            "name a longer file, or shorten context",
        )
    return Text(dict(zip(PARTS, content.split(sizes), strict=True)), task.context)


def _enwik8(task: Task) -> np.ndarray:
    """Memory-mapped from the unpacked file beside the fetched one, so that processes share it."""
    packed = _own(task) if task.data else fetch(DATA_SETS["enwik8"])
    if packed.suffix != ".gz":
        return np.memmap(packed, np.uint8, mode="c")
    plain = packed.with_suffix("")
    if not plain.exists() or plain.stat().st_size != sum(ENWIK8):
        try:
            content = gzip.decompress(packed.read_bytes())
            part = plain.with_name(f".{plain.name}.part")
            part.write_bytes(content)
            part.replace(plain)
        except (OSError, EOFError) as error:
            raise FetchError(
                tried=f"to unpack {packed}", got=str(error), fix="make room, or delete the file and try again"
            ) from error
    return np.memmap(plain, np.uint8, mode="c")


def _own(task: Task) -> Path:
    path = Path(task.data)
    if not path.is_file():
        raise InputError(f"tasks.{task.name}.data", task.data, "a file that exists", "correct the path")
    return path


def _file(task: Task) -> Tensor:
    return torch.frombuffer(bytearray(_own(task).read_bytes()), dtype=torch.uint8)


def _synthetic_text() -> Tensor:
    """Words of a small vocabulary, each followed by one of two."""
    generator = torch.Generator().manual_seed(0)
    words = [
        bytes(torch.randint(97, 123, (length,), generator=generator).tolist()) for length in range(2, 10)
    ]
    follows = torch.randint(len(words), (len(words), 2), generator=generator).tolist()
    word, text = 0, bytearray()
    for choice in torch.randint(2, (4000,), generator=generator).tolist():
        text += words[word] + b" "
        word = follows[word][choice]
    return torch.frombuffer(text, dtype=torch.uint8)


ImageParts = dict[str, tuple[Tensor, Tensor]]


def _parts(
    images: Tensor, labels: Tensor, test_images: Tensor, test_labels: Tensor, held_out: int
) -> ImageParts:
    return {
        "train": (images[:-held_out], labels[:-held_out]),
        "valid": (images[-held_out:], labels[-held_out:]),
        "test": (test_images, test_labels),
    }


def _folder(task: Task) -> Path:
    if not task.data:
        return fetch(DATA_SETS[task.name]).parent
    if not Path(task.data).is_dir():
        raise InputError(f"tasks.{task.name}.data", task.data, "a folder that exists", "correct the path")
    return Path(task.data)


def _mnist(task: Task) -> ImageParts:
    """The four files in the idx format: a header of 16 (labels: 8) bytes, then the bytes."""
    folder = _folder(task)
    train, test = (
        (
            _idx(folder / f"{part}-images-idx3-ubyte", 16, 28, 28, 1),
            _idx(folder / f"{part}-labels-idx1-ubyte", 8),
        )
        for part in ("train", "t10k")
    )
    return _parts(train[0], train[1].long(), test[0], test[1].long(), HELD_OUT_IMAGES)


def _idx(path: Path, header: int, *shape: int) -> Tensor:
    try:
        return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)[header:].reshape(-1, *shape)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError("data", f"{path}: {error}", "a file of MNIST", "correct the folder") from error


def _cifar10(task: Task) -> ImageParts:
    """Five batches and a test batch, PNG files of which each row is an image; the classes in JSON."""
    folder = _folder(task)
    try:
        images = [
            _png(folder / f"{name}.png") for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")
        ]
        labels = [
            torch.tensor(json.loads((folder / f"{part}_lables.json").read_bytes()))
            for part in ("train", "test")
        ]
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError("data", f"{folder}: {error}", "CIFAR-10", "correct the folder") from error
    return _parts(torch.cat(images[:-1]), labels[0], images[-1], labels[1], HELD_OUT_IMAGES)


def _png(path: Path) -> Tensor:
    from matplotlib.image import imread  # slow to import, and only for this

    rows = imread(path, format="png")[..., :3]
    return torch.from_numpy(np.rint(rows * 255).astype(np.uint8)).reshape(-1, 32, 32, 3)


def _synthetic_images(task: Task) -> ImageParts:
    """A bright square in one of the four quarters of a noisy image of 8 × 8."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (1200,), generator=generator)
    images = torch.randint(100, (1200, 8, 8, 1), generator=generator, dtype=torch.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = 4 * (label // 2) + 1, 4 * (label % 2) + 1
        image[row : row + 2, column : column + 2] += 120
    return _parts(images[:1000], labels[:1000], images[1000:], labels[1000:], 200)
