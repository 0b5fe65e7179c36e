"""Right solutions of BatchNorm in different styles."""

import torch
from torch import nn


def require(x, one_is_enough=False):
    if x.dim() not in (2, 3, 4, 5):
        raise ValueError(f"expected 2 to 5 axes, got {x.dim()}")
    if not one_is_enough and x.numel() == x.shape[1]:
        raise ValueError(f"expected more than 1 value per channel when training, got input size {tuple(x.shape)}")


class _Base(nn.Module):
    """What is registered, in the words of most of the styles."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True):
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = nn.Parameter(torch.ones(num_features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if affine else None
        self.register_buffer("running_mean", torch.zeros(num_features) if track_running_stats else None)
        self.register_buffer("running_var", torch.ones(num_features) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", torch.tensor(0) if track_running_stats else None)

    def factor(self):
        return 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum


class InPlace(_Base):
    """torch.var_mean, in-place updates under no_grad."""

    def forward(self, x):
        batch = self.training or not self.track_running_stats
        require(x, one_is_enough=not batch)
        dims, shape = [d for d in range(x.dim()) if d != 1], [1, -1] + [1] * (x.dim() - 2)
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        if batch:
            var, mean = torch.var_mean(wide, dims, correction=0)
        else:
            mean, var = self.running_mean, self.running_var
        if self.training and self.track_running_stats:
            with torch.no_grad():
                n = x.numel() / x.shape[1]
                self.num_batches_tracked += 1
                m = self.factor()
                self.running_mean.mul_(1 - m).add_(mean, alpha=m)
                self.running_var.mul_(1 - m).add_(var, alpha=m * n / (n - 1))
        y = (wide - mean.view(shape)) * torch.rsqrt(var.view(shape) + self.eps)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)


class Lerp(_Base):
    """Two variances by torch.var, updates by lerp_ from detached values."""

    def forward(self, x):
        require(x, one_is_enough=not (self.training or self.running_mean is None))
        rows = x.movedim(1, 0).flatten(1)
        if rows.dtype.itemsize < 4:
            rows = rows.float()
        if self.training or self.running_mean is None:
            mean, var = rows.mean(1), rows.var(1, unbiased=False)
            if self.running_mean is not None:
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean.detach(), self.factor())
                self.running_var.lerp_(rows.detach().var(1, unbiased=True), self.factor())
        else:
            mean, var = self.running_mean, self.running_var
        y = (rows - mean[:, None]) / (var + self.eps).sqrt()[:, None]
        if self.weight is not None:
            y = torch.addcmul(self.bias[:, None], y, self.weight[:, None])
        return y.reshape(x.movedim(1, 0).shape).movedim(0, 1).to(x.dtype)


class Assigned(_Base):
    """New tensors are assigned to the buffers; channels last inside; torch's own way of writing the folded form."""

    def forward(self, x):
        require(x, one_is_enough=not self.training and self.running_mean is not None)
        last = x.transpose(1, -1).to(torch.promote_types(x.dtype, torch.float32))
        if self.training and self.running_mean is not None:
            table = last.detach().reshape(-1, self.num_features)
            self.num_batches_tracked = self.num_batches_tracked + 1
            m = self.factor()
            self.running_mean = (1 - m) * self.running_mean + m * table.mean(0)
            self.running_var = (1 - m) * self.running_var + m * table.var(0)
        if self.training or self.running_mean is None:
            axes = tuple(range(last.dim() - 1))
            mean = last.mean(axes)
            var = ((last - mean) ** 2).mean(axes)
        else:
            mean, var = self.running_mean, self.running_var
        scale = (var + self.eps) ** -0.5
        y = (last - mean) * (scale if self.weight is None else scale * self.weight)
        if self.bias is not None:
            y = y + self.bias
        return y.transpose(1, -1).to(x.dtype)


class CopyData(_Base):
    """Updates through .data.copy_, channel by channel."""

    def forward(self, x):
        own = self.training or not self.track_running_stats
        require(x, one_is_enough=not own)
        wide = x.to(self.dtype_of(x))
        channels = []
        if self.training and self.track_running_stats:
            self.num_batches_tracked.data.copy_(self.num_batches_tracked + 1)
        for c in range(self.num_features):
            values = wide.select(1, c)
            mean, var = values.mean(), values.var(correction=0)
            if self.training and self.track_running_stats:
                n, m = values.numel(), self.factor()
                self.running_mean[c] = ((1 - m) * self.running_mean[c] + m * mean).detach()
                self.running_var[c] = ((1 - m) * self.running_var[c] + m * var * n / (n - 1)).detach()
            if not own:
                mean, var = self.running_mean[c], self.running_var[c]
            y = (values - mean) / torch.sqrt(var + self.eps)
            channels.append(y if self.weight is None else y * self.weight[c] + self.bias[c])
        return torch.stack(channels, dim=1).to(x.dtype)

    @staticmethod
    def dtype_of(x):
        return torch.float64 if x.dtype == torch.float64 else torch.float32


class Einsum(_Base):
    """einsum for the sums, and a method for each mode."""

    def normalize(self, v, mean, var):
        y = torch.einsum("ncs,c->ncs", v - mean[None, :, None], (var + self.eps).rsqrt())
        if self.affine:
            y = torch.einsum("ncs,c->ncs", y, self.weight) + self.bias[:, None]
        return y

    def forward(self, x):
        own = self.training or not self.track_running_stats
        require(x, one_is_enough=not own)
        v = x.reshape(x.shape[0], x.shape[1], -1).to(torch.promote_types(x.dtype, torch.float32))
        y = self.by_batch(v) if own else self.normalize(v, self.running_mean, self.running_var)
        return y.reshape(x.shape).to(x.dtype)

    def by_batch(self, v):
        n = v.shape[0] * v.shape[2]
        mean = torch.einsum("ncs->c", v) / n
        deviation = v - mean[:, None]
        m2 = torch.einsum("ncs,ncs->c", deviation, deviation)
        if self.training and self.track_running_stats:
            self.keep(mean.detach(), m2.detach() / (n - 1))
        return self.normalize(v, mean, m2 / n)

    @torch.no_grad()
    def keep(self, mean, var):
        self.num_batches_tracked += 1
        m = self.factor()
        self.running_mean += m * (mean - self.running_mean)
        self.running_var += m * (var - self.running_var)


class Double(_Base):
    """All arithmetic in float64."""

    def forward(self, x):
        own = self.training or not self.track_running_stats
        require(x, one_is_enough=not own)
        wide = x.double()
        dims, shape = (0, *range(2, x.ndim)), (1, -1, *(1,) * (x.ndim - 2))
        mean, var = (wide.mean(dims), wide.var(dims, correction=0)) if own else (self.running_mean, self.running_var)
        if self.training and self.track_running_stats:
            n = x.numel() // x.shape[1]
            self.num_batches_tracked.add_(1)
            m = self.factor()
            self.running_mean.copy_((1 - m) * self.running_mean.double() + m * mean.detach())
            self.running_var.copy_((1 - m) * self.running_var.double() + m * var.detach() * n / (n - 1))
        y = (wide - mean.double().reshape(shape)) / (var.double().reshape(shape) + self.eps).sqrt()
        if self.affine:
            y = y * self.weight.reshape(shape) + self.bias.reshape(shape)
        return y.to(x.dtype)


class _Statistics:
    """What one batch says about its channels; made anew in every call."""

    def __init__(self, x):
        rows = x.movedim(1, 0).reshape(x.shape[1], -1)
        self.n = rows.shape[1]
        self.mean = rows.mean(1)
        self.biased = rows.sub(self.mean[:, None]).square().mean(1)

    @property
    def unbiased(self):
        return self.biased * self.n / (self.n - 1)


class WithHelpers(_Base):
    """Helper objects, a hook-like property, attributes of its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.history = []
        self.summary = _Statistics

    @property
    def tracks(self):
        return self.running_mean is not None

    def forward(self, x):
        own = self.training or not self.tracks
        require(x, one_is_enough=not own)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        if own:
            batch = self.summary(wide)
            mean, var = batch.mean, batch.biased
            if self.training and self.tracks:
                self.num_batches_tracked += 1
                self.history.append(int(self.num_batches_tracked))
                m = self.factor()
                with torch.no_grad():
                    for kept, new in ((self.running_mean, batch.mean), (self.running_var, batch.unbiased)):
                        kept.copy_(kept * (1 - m) + new * m)
        else:
            mean, var = self.running_mean, self.running_var
        spread = (slice(None),) + (None,) * (x.ndim - 2)
        y = (wide - mean[spread]) / (var[spread] + self.eps).sqrt()
        y = y if self.weight is None else y * self.weight[spread]
        y = y if self.bias is None else y + self.bias[spread]
        return y.to(x.dtype)


class ByRegistering(nn.Module):
    """register_parameter(name, None), reset_parameters, and names of its own for the rest."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True):
        nn.Module.__init__(self)
        self.c, self.e, self.m = num_features, eps, momentum
        for name in ("weight", "bias"):
            self.register_parameter(name, nn.Parameter(torch.empty(num_features)) if affine else None)
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, torch.empty(num_features) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long) if track_running_stats else None)
        self.reset_parameters()

    def reset_parameters(self):
        if self.weight is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)
        if self.running_mean is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def forward(self, x):
        if x.dim() < 2 or x.dim() > 5:
            raise ValueError("2 to 5 axes")
        flat = x.reshape(x.size(0), x.size(1), -1)
        if x.dtype != torch.float64:
            flat = flat.float()
        if self.training or self.running_mean is None:
            n = flat.size(0) * flat.size(2)
            if n < 2:
                raise ValueError("more than one value per channel")
            mean = flat.sum((0, 2), keepdim=True) / n
            var = (flat - mean).pow(2).sum((0, 2), keepdim=True) / n
            if self.training and self.running_mean is not None:
                self._remember(mean.detach().flatten(), var.detach().flatten() * n / (n - 1))
        else:
            mean, var = self.running_mean[None, :, None], self.running_var[None, :, None]
        y = (flat - mean) / torch.sqrt(var + self.e)
        if self.weight is not None:
            y = self.weight[None, :, None] * y + self.bias[None, :, None]
        return y.reshape(x.shape).type_as(x)

    def _remember(self, mean, var):
        self.num_batches_tracked += 1
        if self.m is None:
            new = 1.0 / float(self.num_batches_tracked)
        else:
            new = self.m
        self.running_mean += new * (mean - self.running_mean)
        self.running_var += new * (var - self.running_var)


def a_factory(num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True):
    """A function that makes the module, with another class for a module without memory."""
    return Lerp(num_features, eps, momentum, affine, track_running_stats)


STYLES = [InPlace, Lerp, Assigned, CopyData, Einsum, Double, WithHelpers, ByRegistering, a_factory]
