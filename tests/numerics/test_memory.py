import pytest
import torch

from numerics import AttentionSystem, InputError, integrate, memory

EYE = torch.eye(2).double()[None]


def test_an_integration_that_does_not_fit_says_what_it_needs():
    """200,000 tokens at 10⁶ times are 2 · 200,000 · 10⁶ numbers of 8 bytes, 2980 GiB."""
    if memory.available(EYE.device) is None:
        pytest.skip("this system does not say how much memory is free")
    x0, times = torch.ones(1, 200_000, 2).double(), torch.linspace(0, 1, 10**6).double()
    message = (
        r"x0: got states .*: 2.98e\+03 GiB; expected at most the .* GiB that are free on cpu. Fix: .*fewer"
    )
    with pytest.raises(InputError, match=message):
        integrate(AttentionSystem(EYE, EYE), x0, times)


def test_what_fits_is_let_through():
    memory.require("x0", 1, "one byte", "none", EYE.device)
    with pytest.raises(InputError) as error:
        memory.require("x0", 10**18, "an exabyte", "buy memory", EYE.device)
    assert (error.value.argument, error.value.fix) == ("x0", "buy memory")


def test_a_device_that_does_not_say_is_not_checked():
    memory.require("x0", 10**18, "an exabyte", "none", torch.device("meta"))


def test_estimates_cover_the_states_and_the_scores_of_small_systems():
    times = torch.zeros(100)
    assert memory.of_integration(torch.zeros(5, 30, 4), times, 1) > 5 * 4 * (100 * 30 * 4 + 30 * 30)
    double = torch.zeros(5, 30, 4).double()
    assert memory.of_integration(double, times, 1) == 2 * memory.of_integration(double.float(), times, 1)
    large = torch.zeros(1, 10**5, 4)  # linear in n
    assert memory.of_integration(large, times, 1) == 2 * memory.of_integration(
        large[:, : 10**5 // 2], times, 1
    )
