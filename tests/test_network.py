"""Networks by name."""
import itertools

import numpy as np
import pytest
import timm
import torch
from fastai.layers import SimpleSelfAttention
from torch import nn

from tagging.errors import TaggingError
from tagging.modeling import network
from tagging.modeling.network import XRESNETS, build_network, max_blur_pool


def images(count, size):
    return torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(0))


def modules(net, kind):
    return [module for module in net.modules() if isinstance(module, kind)]


@pytest.mark.parametrize("name", XRESNETS)
def test_xresnets_have_mish_self_attention_and_a_blurred_pool(name):
    net = build_network(name, 7, 32).eval()
    with torch.inference_mode():
        logits = net(images(2, 32))
    assert logits.shape == (2, 7) and logits.dtype == torch.float32
    assert not torch.allclose(logits[0], logits[1])
    assert modules(net, nn.Mish) and not modules(net, nn.ReLU)
    assert len(modules(net, SimpleSelfAttention)) == 1
    assert [(pool.kernel_size, pool.stride) for pool in modules(net, nn.MaxPool2d)] == [(2, 1)]
    assert len(modules(net, timm.layers.BlurPool2d)) == 1
    assert net.image_size is None


def test_xresnet50_has_23_8_million_parameters():
    with torch.device("meta"):
        net = build_network("xresnet50", 80, 128)
    assert sum(weights.numel() for weights in net.parameters()) == pytest.approx(23.8e6, abs=0.05e6)
    assert net.head.weight.shape == (80, 2048)


@pytest.mark.parametrize("height, width", [(6, 6), (7, 4)])
def test_max_blur_pool_by_hand(height, width):
    image = np.random.default_rng(0).normal(size=(2, height, width))
    high, wide = height - 1, width - 1
    top = np.zeros((2, high + 2, wide + 2))                                  # with a border of zeros
    for c, i, j in itertools.product(range(2), range(high), range(wide)):
        top[c, i + 1, j + 1] = max(image[c, i, j], image[c, i, j + 1], image[c, i + 1, j], image[c, i + 1, j + 1])
    weights = [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    expected = np.zeros((2, (high + 1) // 2, (wide + 1) // 2))
    for c, i, j in np.ndindex(*expected.shape):
        expected[c, i, j] = sum(weights[a][b] * top[c, 2 * i + a, 2 * j + b] for a in range(3) for b in range(3)) / 16
    pooled = max_blur_pool(2)(torch.from_numpy(image)[None].float())[0]
    assert pooled.shape == expected.shape
    assert np.abs(pooled.numpy() - expected).max() < 1e-6


@pytest.mark.parametrize("name, size, only_size", [
    ("timm:resnet18", 64, None), ("timm:vit_tiny_patch16_224", 64, 64), ("timm:mobilenetv3_small_050", 64, None)])
def test_timms_networks_take_one_channel(name, size, only_size):
    net = build_network(name, 5, size).eval()
    with torch.inference_mode():
        logits = net(images(2, size))
    assert logits.shape == (2, 5) and logits.dtype == torch.float32
    assert not torch.allclose(logits[0], logits[1])
    assert net.image_size == only_size


def test_a_network_for_any_size_takes_other_sizes():
    net = build_network("timm:test_resnet", 3, 64).eval()
    assert net(images(2, 96)).shape == net(images(2, 33)).shape == (2, 3)


@pytest.mark.parametrize("name", ["", "resnet18", "xresnet19", "timm:", "timm:no_such_net", "torch:resnet18"])
def test_an_unknown_network_is_named_with_the_choice(name):
    with pytest.raises(TaggingError, match=f"--network '{name}' is unknown.*xresnet18.*timm:NAME"):
        build_network(name, 5, 64)


def test_a_size_that_timm_cannot_build_is_told():
    with pytest.raises(TaggingError, match=r"'nest_tiny'.*100 x 100.*--noisy\.sizes"), torch.device("meta"):
        build_network("timm:nest_tiny", 5, 100)


def test_a_body_in_bf16_and_channels_last_is_close_to_fp32():
    """As on a GPU: self-attention flattens the image with a view, which not every memory layout allows."""
    torch.manual_seed(0)
    net = build_network("xresnet18", 5, 64).eval()
    attention, = modules(net, SimpleSelfAttention)
    # A new network multiplies the attention, and the end of each block, by zero: there would be nothing to compare.
    attention.gamma.data.fill_(2e-6)
    for norm in modules(net, nn.BatchNorm2d):
        norm.weight.data.fill_(1)
    added = []
    attention.register_forward_hook(lambda _, given, result: added.append((result - given[0]).norm() / result.norm()))
    with torch.inference_mode():
        expected = net.body(images(2, 64))
        with torch.autocast("cpu", torch.bfloat16):
            features = net.body(images(2, 64).contiguous(memory_format=torch.channels_last))
    assert len(added) == 2 and min(added) > 0.3
    assert features.dtype == torch.bfloat16 and features.shape == expected.shape == (2, 512)
    assert (features.float() - expected).norm() < 0.03 * expected.norm()


def test_the_head_works_in_fp32_whatever_the_body_gives():
    """Logits in bf16 would tie."""
    class Body(nn.Module):
        def forward(self, images):
            return images.flatten(1).bfloat16()

    net = network.Classifier(Body(), nn.Linear(16, 200))
    logits = net(images(1, 4))
    assert logits.dtype == torch.float32
    assert len(logits.unique()) == 200
