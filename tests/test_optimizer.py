"""The optimiser equals fastai's, in far fewer operations."""
import copy

import pytest
import torch
from fastai.optimizer import ranger as fastai_ranger
from fastai.torch_core import norm_bias_params
from torch.utils._python_dispatch import TorchDispatchMode

from tagging.modeling.network import build_network
from tagging.training.optimizer import Ranger, decay_groups


class CountCalls(TorchDispatchMode):
    calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        return function(*args, **(kwargs or {}))


def set_gradients(generator, *networks):
    """The same random gradients for each."""
    for parameters in zip(*(network.parameters() for network in networks)):
        gradient = torch.randn(parameters[0].shape, generator=generator)
        for parameter in parameters:
            parameter.grad = gradient.clone()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["xresnet18", "timm:vit_tiny_patch16_224", "timm:test_resnet"])
def test_a_hundred_steps_equal_fastais(name):
    torch.manual_seed(0)
    ours = build_network(name, 10, 64)
    theirs = copy.deepcopy(ours)
    start = torch.nn.utils.parameters_to_vector(ours.parameters()).detach()
    optimiser = Ranger(decay_groups(ours), lr=3e-3, wd=0.05)
    reference = fastai_ranger([list(theirs.parameters())], lr=3e-3, wd=0.05)
    for parameter in norm_bias_params(theirs):      # what fastai's Learner does with them
        reference.state[parameter]["do_wd"] = False
    generator = torch.Generator().manual_seed(1)
    for step in range(100):
        rate = 3e-3 * (1 - step / 100)              # a schedule sets it before each step
        reference.set_hyper("lr", rate)
        for group in optimiser.param_groups:
            group["lr"] = rate
        set_gradients(generator, ours, theirs)
        optimiser.step()
        reference.step()
    found, expected = (torch.nn.utils.parameters_to_vector(network.parameters()).detach() for network in (ours, theirs))
    assert (found - start).abs().mean() > 1e-3
    assert (found - expected).abs().max() < 1e-6


def test_weight_decay_spares_what_fastais_learner_spares():
    network = build_network("xresnet18", 10, 64)
    decayed, spared = decay_groups(network)
    assert (decayed["decay"], spared["decay"]) == (True, False)
    assert set(map(id, spared["params"])) == set(map(id, norm_bias_params(network)))
    assert len(decayed["params"]) + len(spared["params"]) == len(list(network.parameters()))


@pytest.mark.slow
def test_a_step_takes_the_same_few_operations_for_any_network():
    counts = {}
    for name in ("timm:test_resnet", "xresnet50"):
        network = build_network(name, 10, 64)
        optimiser = Ranger(decay_groups(network), lr=1e-3)
        for step in range(1, 13):
            set_gradients(torch.Generator().manual_seed(step), network)
            with CountCalls() as counter:
                optimiser.step()
            if step > 6:        # the first step makes the state, and before the sixth nothing is divided
                counts.setdefault(name, []).append(counter.calls)
    assert counts["timm:test_resnet"] == counts["xresnet50"]
    assert max(counts["xresnet50"]) <= 24


def test_a_parameter_without_a_gradient_is_left_alone():
    network = torch.nn.Linear(3, 2)
    optimiser = Ranger(decay_groups(network), lr=0.1)
    network.weight.grad = torch.ones_like(network.weight)
    before = network.bias.detach().clone()
    optimiser.step()
    assert (network.bias == before).all() and not optimiser.state[network.bias]
