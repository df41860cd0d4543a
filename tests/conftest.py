"""Hypothesis profiles: `ci` is repeatable; neither has a deadline, as speed is not tested here."""

import os

import pytest
import torch
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("dev", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Small batches run fastest on one thread, and results do not depend on it."""
    torch.set_num_threads(1)
