import pytest

from nl3d.training.config import TrainingConfig, recipe
from nl3d.training.optimizer import learning_rate


@pytest.mark.parametrize("epoch", [0, 1, 149.9, 150])
def test_paper_s_rate_is_constant_for_half_of_the_epochs(epoch):
    assert learning_rate(TrainingConfig(), epoch) == 3e-4


@pytest.mark.parametrize("epoch", [150.5, 200, 299, 300])
def test_paper_s_rate_decays_exponentially(epoch):
    expected = 3e-4 * 0.001 ** ((epoch - 150) / (300 - 150))
    assert learning_rate(TrainingConfig(), epoch) == pytest.approx(expected, rel=1e-12)


def test_cosine_with_warm_up():
    config = TrainingConfig(epochs=100, schedule="cosine", warmup=0.1, lr=1.0, final_factor=0.01)
    rates = [learning_rate(config, epoch) for epoch in range(101)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[5] == pytest.approx(0.505)
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.505)
    assert rates[100] == pytest.approx(0.01)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_whole_run_of_warm_up_and_of_waiting_divide_by_nothing():
    assert learning_rate(TrainingConfig(schedule="cosine", warmup=1.0, lr=1.0), 150) == pytest.approx(0.505)
    assert learning_rate(TrainingConfig(decay_start=1.0), 300) == 3e-4
    assert learning_rate(recipe("paper", schedule="constant"), 299) == 3e-4
