"""Right solutions of old_output in different styles."""

import torch
from torch import nn


def by_hand(seed):
    torch.manual_seed(seed)
    weight = torch.rand(1)
    x = torch.randn(2, 1, 2, 2)
    return weight * (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()


def by_layer(seed):
    torch.manual_seed(seed)
    layer = nn.BatchNorm2d(1)
    with torch.no_grad():
        layer.weight.uniform_()
    return layer(torch.randn(2, 1, 2, 2))


def by_function(seed):
    stream = torch.Generator().manual_seed(seed)
    weight = torch.rand((1,), generator=stream)
    x = torch.randn((2, 1, 2, 2), generator=stream)
    return nn.functional.batch_norm(x, None, None, weight=weight, bias=torch.zeros(1), training=True)


def rounded_at_the_end(seed):
    torch.manual_seed(seed)
    weight, x = torch.empty(1).uniform_(0, 1).double(), torch.empty(2, 1, 2, 2).normal_().double()
    centered = x - x.mean(dim=(0, 2, 3), keepdim=True)
    return (centered * torch.rsqrt(centered.square().mean() + 1e-5) * weight).float()


STYLES = [by_hand, by_layer, by_function, rounded_at_the_end]
