"""Heads of trained models: small random models in place of the fetched ones, and spoiled data."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from scipy import stats

from numerics.fetch import SOURCES
from numerics.prompts import COLOURS, NAMES
from paper_figures import fig_head_behaviour
from paper_figures.fig_head_behaviour import FIGURE
from paper_figures.figure import ContradictionError, Data

P = {**FIGURE.sized(quick=True), "checkpoints": ["stories15m", "minilm"]}
WORDS = (
    *NAMES,
    *COLOURS,
    *("Here", "is", "what", "they", "like", ".", "likes", "What", "colour", "does", "?", "[UNK]"),
)
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
HEADS, PAIRS = 4, 4
KINDS = {"stories15m": transformers.LlamaConfig, "minilm": transformers.BertConfig}


def save(folder: Path, kind: type) -> Path:
    torch.manual_seed(1)
    model = transformers.AutoModel.from_config(kind(vocab_size=len(WORDS), **SIZES))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8.0)
    model.save_pretrained(folder)
    ids = {word: number for number, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folders = {SOURCES[name]: save(tmp_path_factory.mktemp(name), kind) for name, kind in KINDS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fig_head_behaviour, "fetch", folders.__getitem__)
        return FIGURE.compute(P, torch.device("cpu"))


@pytest.fixture
def data(computed: Data) -> Data:
    return deepcopy(computed)


def test_what_is_measured_agrees_and_is_drawn(data: Data):
    FIGURE.accept(data, P)
    page = FIGURE.draw(data, P)
    # a plane and two maps for each model, two colour bars, one model's frequencies used and alone
    assert len(page.axes) == 2 * 3 + 2 + 2
    caption = FIGURE.caption(data, P)
    assert "all-MiniLM-L6-v2 has no rotary encoding" in caption
    assert f"over the {HEADS} heads of stories15M" in caption


def test_the_caption_has_the_rank_correlations(data: Data):
    pairs = data["frequencies"]
    used = (pairs["use"] * np.log(pairs["theta"])).reshape(HEADS, PAIRS).sum(1)
    scores = data["scores"]
    said = []
    for mode in ("swapped", "rerun"):
        keep = (scores["checkpoint"] == "stories15m") & (scores["mode"] == mode)
        centred = scores["centred"][keep].reshape(2, 2, 2).mean(1).ravel()
        said.append(f"${stats.spearmanr(used, centred).statistic:.2f}$")
    assert " and ".join(said) in FIGURE.caption(data, P)


def times(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda column: factor * column


def put(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(column: np.ndarray) -> np.ndarray:
        column[-1] = value
        return column

    return change


@pytest.mark.parametrize(
    ("part", "column", "change", "match"),
    [
        ("logits", "variance", times(3), "exceeds S1's bound"),
        ("logits", "positional_deviation", times(0.2), "exceeds S1's bound"),
        ("logits", "positional_deviation", times(1.01), "twice"),
        ("logits", "symbolic_deviation", lambda column: column + 1e-3, "deviates from a symbolic one"),
        ("logits", "entropy", put(5.0), "exceeds log n"),
        ("logits", "entropy", put(-9.0), "below log n"),
        ("logits", "on_blocks", put(1.01), "attention on the blocks"),
        ("logits", "on_blocks", put(-0.01), "attention on the blocks"),
        ("scores", "positional", put(1.001), "positional score is not between"),
        ("scores", "symbolic", put(-0.001), "symbolic score is not between"),
        ("scores", "centred", put(-1.001), "centred score is not between"),
        ("scores", "centred", put(np.nan), "not finite"),
        ("frequencies", "use", times(0.99), "do not add up"),
        ("frequencies", "theta", put(2.0), "geometric"),
    ],
)
def test_a_spoiled_column_is_found(data: Data, part: str, column: str, change, match: str):
    data[part][column] = change(data[part][column])
    with pytest.raises(ContradictionError, match=match):
        FIGURE.accept(data, P)


@pytest.mark.parametrize(("column", "value"), [("symbolic", 0.999), ("centred", 0.5)])
def test_a_head_without_encoding_that_sees_positions_is_found(data: Data, column: str, value: float):
    scores = data["scores"]
    blind = (scores["checkpoint"] == "minilm") & (scores["mode"] == "swapped")
    scores[column][np.flatnonzero(blind)[0]] = value
    with pytest.raises(ContradictionError, match="without encoding"):
        FIGURE.accept(data, P)
