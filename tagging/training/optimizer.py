"""Ranger, the optimizer of the starting system, in a few operations for all parameters together."""
import math
from collections.abc import Iterable

import torch
from torch import nn

STATE = "mean", "square", "slow"       # of each parameter: means of gradient and squared gradient, slow weights
NORMS = nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm, nn.LayerNorm, nn.GroupNorm


class Ranger(torch.optim.Optimizer):
    """RAdam with decoupled weight decay, wrapped in Lookahead. Equal to fastai's `ranger`.

    fastai loops over the parameters in Python, with a dozen operations for each. On a GPU their launches take longer
    than the network. Here each operation is one call for all parameters.

    Liu et al., "On the variance of the adaptive learning rate and beyond", 2019; Zhang et al., "Lookahead optimizer:
    k steps forward, 1 step back", 2019.

    Args:
        groups: parameters. `decay` says whether weight decay applies to a group.
        mom, sqr_mom: decay of the means of the gradient and of its square.
        k: steps between two updates of the slow weights.
        pull: how far the slow weights then move towards the fast ones, as a share.
    """

    def __init__(self, groups: Iterable[dict], lr: float, *, mom: float = 0.95, sqr_mom: float = 0.99,
                 eps: float = 1e-6, wd: float = 0.01, k: int = 6, pull: float = 0.5):
        super().__init__(groups, {"lr": lr, "mom": mom, "sqr_mom": sqr_mom, "eps": eps, "wd": wd, "k": k, "pull": pull,
                                  "step": 0})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]     # without a closure, which fastai never passes
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                group["step"] += 1
                self.update(group, weights)

    def update(self, group: dict, weights: list[torch.Tensor]) -> None:
        grads = [weight.grad for weight in weights if weight.grad is not None]
        states = [self.state[weight] for weight in weights]
        for weight, state in zip(weights, states):
            if not state:
                state |= zip(STATE, (torch.zeros_like(weight), torch.zeros_like(weight), weight.clone()))
        means, squares, slow = ([state[name] for state in states] for name in STATE)
        step, lr, mom, sqr_mom = group["step"], float(group["lr"]), group["mom"], group["sqr_mom"]

        if group["decay"]:
            torch._foreach_mul_(weights, 1 - lr * group["wd"])
        torch._foreach_mul_(means, mom)
        torch._foreach_add_(means, grads, alpha=1 - mom)
        torch._foreach_mul_(squares, sqr_mom)
        torch._foreach_addcmul_(squares, grads, grads, 1 - sqr_mom)

        rate = lr / (1 - mom ** step)
        longest = 2 / (1 - sqr_mom) - 1
        length = longest - 2 * step * sqr_mom ** step / (1 - sqr_mom ** step)
        if length > 5:          # the estimate of the variance is good enough to divide by it
            rectification = math.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
            bias = math.sqrt(1 - sqr_mom ** step)       # outside the root, which saves a copy of all parameters
            deviations = torch._foreach_sqrt(squares)
            torch._foreach_add_(deviations, group["eps"] * bias)
            torch._foreach_addcdiv_(weights, means, deviations, -rate * rectification * bias)
        else:
            torch._foreach_add_(weights, means, alpha=-rate)

        if step % group["k"] == 0:
            torch._foreach_lerp_(slow, weights, group["pull"])
            torch._foreach_copy_(weights, slow)


def decay_groups(network: nn.Module) -> list[dict]:
    """Return the parameters in two groups. Weight decay applies to weights, not to biases or normalisation layers."""
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for module in network.modules():
        norm = isinstance(module, NORMS)
        for name, parameter in module.named_parameters(recurse=False):
            (spared if norm or name == "bias" else decayed).append(parameter)
    return [{"decay": True, "params": decayed}, {"decay": False, "params": spared}]
