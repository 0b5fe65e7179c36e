"""Drop-in layers: torch.nn's normalizations, softmax and cross entropy on normlab's kernels.

    import normlab.nn

    normlab.nn.convert(model)  # {"encoder.norm1": "LayerNorm", ...}

Each class is a subclass of torch.nn's class of the same name and overrides the one method that calls the function. All
else is PyTorch's own: parameters and how they start, state_dict, repr, hooks, copying, isinstance.
"""

import torch

from normlab import functional as F

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "CrossEntropyLoss",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LogSoftmax",
    "RMSNorm",
    "Softmax",
    "convert",
]


def _batch_norm(self, input):
    """forward of the batch norms: counts the batch, decides whose statistics are used, and what moves toward them."""
    self._check_input_dim(input)
    tracks = self.training and self.track_running_stats
    momentum = 0.0 if self.momentum is None else self.momentum
    if tracks and self.num_batches_tracked is not None:
        self.num_batches_tracked.add_(1)  # even if the input turns out to be wrong: so does PyTorch
        if self.momentum is None:
            # The plain average over all batches: the k-th one counts 1/k.
            momentum = 1.0 / float(self.num_batches_tracked)
    # In training, statistics that are not tracked must not move: the function is not given them.
    given = tracks or not self.training
    return F.batch_norm(
        input,
        self.running_mean if given else None,
        self.running_var if given else None,
        self.weight,
        self.bias,
        self.training or (self.running_mean is None and self.running_var is None),
        momentum,
        self.eps,
    )


class BatchNorm1d(torch.nn.BatchNorm1d):
    """torch.nn.BatchNorm1d: input (N, C) or (N, C, L), normalized for each channel C  [eq-normalize]."""

    forward = _batch_norm


class BatchNorm2d(torch.nn.BatchNorm2d):
    """torch.nn.BatchNorm2d: input (N, C, H, W), normalized for each channel C  [eq-normalize]."""

    forward = _batch_norm


class BatchNorm3d(torch.nn.BatchNorm3d):
    """torch.nn.BatchNorm3d: input (N, C, D, H, W), normalized for each channel C  [eq-normalize]."""

    forward = _batch_norm


def _instance_norm(self, input):
    """What torch.nn's instance norms call once the shape is checked and has an N."""
    return F.instance_norm(
        input,
        self.running_mean,
        self.running_var,
        self.weight,
        self.bias,
        self.training or not self.track_running_stats,
        0.0 if self.momentum is None else self.momentum,
        self.eps,
    )


class InstanceNorm1d(torch.nn.InstanceNorm1d):
    """torch.nn.InstanceNorm1d: input (N, C, L) or (C, L), normalized over L  [eq-normalize]."""

    _apply_instance_norm = _instance_norm


class InstanceNorm2d(torch.nn.InstanceNorm2d):
    """torch.nn.InstanceNorm2d: input (N, C, H, W) or (C, H, W), normalized over H and W  [eq-normalize]."""

    _apply_instance_norm = _instance_norm


class InstanceNorm3d(torch.nn.InstanceNorm3d):
    """torch.nn.InstanceNorm3d: input (N, C, D, H, W) or (C, D, H, W), normalized over D, H, W  [eq-normalize]."""

    _apply_instance_norm = _instance_norm


class LayerNorm(torch.nn.LayerNorm):
    """torch.nn.LayerNorm: input (..., *normalized_shape), normalized over the last axes  [eq-normalize]."""

    def forward(self, input):
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(torch.nn.RMSNorm):
    """torch.nn.RMSNorm: input (..., *normalized_shape), scaled by the RMS of its last axes  [eq-normalize]."""

    def forward(self, x):
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)


class GroupNorm(torch.nn.GroupNorm):
    """torch.nn.GroupNorm: input (N, C, ...), normalized over each group of channels  [eq-normalize]."""

    def forward(self, input):
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class Softmax(torch.nn.Softmax):
    """torch.nn.Softmax: along `dim`, positive numbers that sum to 1  [eq-softmax]."""

    def forward(self, input):
        return F.softmax(input, self.dim, _stacklevel=5)


class LogSoftmax(torch.nn.LogSoftmax):
    """torch.nn.LogSoftmax: the logarithm of softmax along `dim`."""

    def forward(self, input):
        return F.log_softmax(input, self.dim, _stacklevel=5)


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """torch.nn.CrossEntropyLoss: logits (N, C, ...) against class indices (N, ...) or probabilities (N, C, ...)."""

    def forward(self, input, target):
        return F.cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


_OURS = {getattr(torch.nn, name): globals()[name] for name in __all__ if name != "convert"}


def convert(model, back=False):
    """Swap the layers of `model` that are torch.nn's for ours, in place, and return what was swapped.

    model: a torch.nn.Module; with back=True ours become torch.nn's again, for a file or a tool that knows only those.
    Returns a dict from the layer's qualified name, "" for the model itself, to its class's name, in the model's order.
    A layer that stands in several places is named once. Subclasses, SyncBatchNorm or your own, are left alone: what
    they override is not known here. Errors: TypeError if model is no torch.nn.Module.

    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Softmax(1))
    >>> convert(model)
    {'1': 'LayerNorm', '2': 'Softmax'}
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"convert needs a torch.nn.Module, not {type(model).__name__}")
    become = {ours: theirs for theirs, ours in _OURS.items()} if back else _OURS
    swapped = {name: layer for name, layer in model.named_modules() if type(layer) in become}
    # Another class for the same object, because both classes keep the same things in it: parameters, buffers, hooks and
    # flags stay where they are, and whoever holds the layer or a parameter (optimizer, tied module, list) still does.
    for layer in swapped.values():
        layer.__class__ = become[type(layer)]
    return {name: type(layer).__name__ for name, layer in swapped.items()}
