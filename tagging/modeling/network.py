"""Networks by name: xresnet with Mish, self-attention and MaxBlurPool, or any of timm's."""
from typing import Any

import timm
import torch
from fastai.vision.models import xresnet
from torch import nn

from tagging.errors import TaggingError
from tagging.utils.devices import has_bf16

XRESNETS = ("xresnet18", "xresnet34", "xresnet50", "xresnet101")


class Classifier(nn.Module):
    """A body that turns images into features and a linear head that turns them into logits.

    The body runs in bf16 on a GPU, the head in fp32: bf16 logits have ties, and lwlrap ranks them.

    Args:
        body: (batch, 1, height, width) -> (batch, features).
        head: (batch, features) -> (batch, classes).
        image_size: the only side in pixels that the body accepts, or None if it accepts any.
    """

    def __init__(self, body: nn.Module, head: nn.Linear, image_size: int | None = None):
        super().__init__()
        self.body, self.head, self.image_size = body, head, image_size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 1, height, width) -> logits (batch, classes), float32."""
        return self.head(self.features(images))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 1, height, width) -> the input of the head (batch, features), float32."""
        if images.device.type == "cuda":
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=has_bf16(images.device)):
            return self.body(images).float()


def build_network(name: str, classes: int, image_size: int) -> Classifier:
    """Build a network with random weights.

    Args:
        name: one of XRESNETS, or timm:NAME.
        image_size: side in pixels for the timm networks that are built for one size, such as vit.
    Raises:
        TaggingError: the network is unknown, or timm cannot build it for these images.
    """
    if name in XRESNETS:
        return build_xresnet(name, classes)
    family, _, member = name.partition(":")
    if family != "timm" or not timm.is_model(member):
        raise TaggingError(f"--network '{name}' is unknown. Choose {', '.join(XRESNETS)}, or timm:NAME with a NAME "
                           "of timm.list_models().")
    config = timm.get_pretrained_cfg(member)
    fixed = config is not None and config.fixed_input_size
    options: dict[str, Any] = {"img_size": image_size} if fixed else {}
    try:
        body = timm.create_model(member, pretrained=False, in_chans=1, num_classes=0, **options)
        with torch.inference_mode():        # some networks reject the size only here
            body.eval()(torch.zeros(1, 1, image_size, image_size))
    except (AssertionError, ValueError, RuntimeError, TypeError) as error:
        raise TaggingError(f"timm cannot build '{member}' for one channel and {image_size} x {image_size} pixels: "
                           f"{error}. Choose other --noisy.sizes and --curated.sizes, or another network.") from error
    features: Any = getattr(body, "head_hidden_size", body.num_features)
    return Classifier(body.train(), nn.Linear(features, classes), image_size if fixed else None)


def build_xresnet(name: str, classes: int) -> Classifier:
    layers = list(getattr(xresnet, name)(act_cls=nn.Mish, sa=True, c_in=1, n_out=classes).children())
    pool = [isinstance(layer, nn.MaxPool2d) for layer in layers].index(True)
    layers[pool] = max_blur_pool(channels=64)
    return Classifier(nn.Sequential(*layers[:-1]), layers[-1])


def max_blur_pool(channels: int) -> nn.Module:
    """Halve an image without aliasing: a maximum at every position, then a binomial blur with stride 2.

    Equal to kornia's MaxBlurPool2D(3, 2). Zhang, "Making convolutional networks shift-invariant again", 2019.
    """
    return nn.Sequential(nn.MaxPool2d(2, 1),
                         timm.layers.BlurPool2d(channels, filt_size=3, stride=2, pad_mode="constant"))
