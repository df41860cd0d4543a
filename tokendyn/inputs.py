"""What the user gives a model to read: text, token ids or an image, from a file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from numerics.checkpoints import Checkpoint
from numerics.errors import InputError
from numerics.tokens import encode, read_ids

Reader = Callable[[Path, Checkpoint], Tensor]
"""From the path of the weights and the checkpoint to token ids (n,) or an image (channels, height, width)."""


def reader(text: str | None, ids: str | None, image: str | None) -> Reader | None:
    """A reader of the one file that is given, or None. Raises `InputError` for several."""
    given = {"--text": text, "--ids": ids, "--image": image}
    named = [option for option, file in given.items() if file is not None]
    if len(named) > 1:
        raise InputError(
            argument=named[1],
            got=" and ".join(named),
            expected="one of --text, --ids and --image",
            fix="audit once for each",
        )
    if text is not None:
        return lambda path, checkpoint: torch.tensor(encode(path, _text(text), checkpoint.config))
    if ids is not None:
        return lambda path, checkpoint: torch.tensor(read_ids(ids))
    return None if image is None else lambda path, checkpoint: _image(image)


def _text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            argument="--text",
            got=f"{file} that cannot be read ({type(error).__name__})",
            expected="a file of text in UTF-8",
            fix="check its name and its encoding",
        ) from error


def _image(file: str) -> Tensor:
    try:
        array = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(
            argument="--image",
            got=f"{file} that cannot be read ({type(error).__name__})",
            expected="an array (channels, height, width) saved by numpy.save",
            fix="save the image as the model's processor hands it over",
        ) from error
    return torch.from_numpy(np.asarray(array, dtype=np.float64))
