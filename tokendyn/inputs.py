"""What the user gives a model to read: text, token ids or an image, from a file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from numerics.checkpoints import Checkpoint
from numerics.errors import InputError
from numerics.tokens import encode, read_ids
from numerics.transformer import require_whole

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
        return lambda path, checkpoint: _encoded(path, _text(text), checkpoint)
    if ids is not None:
        return lambda path, checkpoint: torch.tensor(read_ids(ids))
    return None if image is None else lambda path, checkpoint: _image(image)


def _encoded(path: Path, text: str, checkpoint: Checkpoint) -> Tensor:
    require_whole(checkpoint)  # before a missing tokenizer leads the user to pass token ids
    return torch.tensor(encode(path, text, checkpoint.config))


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
    except (OSError, ValueError, EOFError) as error:
        raise _bad_image(f"{file} that cannot be read ({type(error).__name__})") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        kind = array.dtype if isinstance(array, np.ndarray) else "several arrays"
        raise _bad_image(f"{file} holding {kind}")
    if not np.isfinite(array).all():
        raise _bad_image(f"{file} with entries that are NaN or infinite")
    return torch.from_numpy(array.astype(np.float64))


def _bad_image(got: str) -> InputError:
    return InputError(
        argument="--image",
        got=got,
        expected="an array of real, finite numbers (channels, height, width) saved by numpy.save",
        fix="save the image as the model's processor hands it over",
    )
