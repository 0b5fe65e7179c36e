"""BatchNorm is a module, and is taken through steps: what a module may lack, and what it may not build on."""

import pytest
import torch
from torch import nn

from normlab.chapters import running
from normlab.check import CheckFailed, check
from normlab.drive import running as drive
from normlab.exercises import EXERCISES
from normlab.guard import CALLS_THE_ANSWER


class Right(nn.Module):
    """A right solution, to be spoiled."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True):
        super().__init__()
        self.eps, self.momentum, self.tracks = eps, momentum, track_running_stats
        self.weight = nn.Parameter(torch.ones(num_features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if affine else None
        self.register_buffer("running_mean", torch.zeros(num_features) if self.tracks else None)
        self.register_buffer("running_var", torch.ones(num_features) if self.tracks else None)
        self.register_buffer("num_batches_tracked", torch.tensor(0) if self.tracks else None)

    def forward(self, x):
        own = self.training or not self.tracks
        if not 2 <= x.ndim <= 5 or (own and x.numel() == x.shape[1]):
            raise ValueError("no statistics")
        rows = x.movedim(1, 0).flatten(1).to(torch.promote_types(x.dtype, torch.float32))
        mean, var = (rows.mean(1), rows.var(1, correction=0)) if own else (self.running_mean, self.running_var)
        if self.training and self.tracks:
            self.num_batches_tracked += 1
            m = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean = (1 - m) * self.running_mean + m * mean.detach()
            self.running_var = (1 - m) * self.running_var + m * rows.detach().var(1)
        y = (rows - mean[:, None]) / (var[:, None] + self.eps).sqrt()
        if self.weight is not None:
            y = y * self.weight[:, None] + self.bias[:, None]
        return y.unflatten(1, x.movedim(1, 0).shape[1:]).movedim(0, 1).to(x.dtype)


@pytest.fixture(autouse=True)
def _public(monkeypatch):
    monkeypatch.delenv("NORMLAB_SECRET_FILE", raising=False)


def refusal(candidate):
    with pytest.raises(CheckFailed) as caught:
        check(candidate, "BatchNorm")
    return caught.value


def test_the_one_that_is_spoiled_is_right(capsys):
    check(Right, "BatchNorm")
    count = len(EXERCISES["BatchNorm"].cases)
    assert capsys.readouterr().out == f"BatchNorm: right on {count} of {count} kinds of input.\n"


class Inherits(nn.BatchNorm1d):
    def forward(self, x):
        return Right.forward(self, x)


class Wraps(nn.Module):
    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True):
        super().__init__()
        self.inner = nn.BatchNorm1d(num_features, eps, momentum, affine, track_running_stats)

    def forward(self, x):
        return self.inner(x)


class CallsTheFunction(Right):
    def forward(self, x):
        kept = self.running_mean, self.running_var, self.weight, self.bias
        return nn.functional.batch_norm(x, *kept, self.training, self.momentum, self.eps)


class CallsTorch(Right):
    def forward(self, x):
        kept = self.weight, self.bias, self.running_mean, self.running_var
        return torch.batch_norm(x, *kept, self.training, self.momentum, self.eps, False)


class CallsNative(Right):
    def forward(self, x):
        kept = self.weight, self.bias, self.running_mean, self.running_var
        return torch.ops.aten.native_batch_norm(x, *kept, self.training, self.momentum, self.eps)[0]


@pytest.mark.parametrize("candidate", [Inherits, Wraps, CallsTheFunction, CallsTorch, CallsNative, nn.BatchNorm1d])
def test_torchs_own_is_refused(candidate):
    told = refusal(candidate)
    assert told.mistake == CALLS_THE_ANSWER
    assert "this exercise is to write it, from" in str(told)


class NoModule:
    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True):
        pass


class ReturnsNothing(Right):
    def forward(self, x):
        super().forward(x)


class Flattens(Right):
    def forward(self, x):
        return super().forward(x).flatten()


class OneMoreBuffer(Right):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("calls", torch.tensor(0))


class HasALambda(Right):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.identity = lambda x: x


class NoGradient(Right):
    def forward(self, x):
        return super().forward(x.detach())


class Renamed(Right):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.mean, self.running_mean = self.running_mean, None
        del self.running_mean


class Unwritten(nn.Module):
    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True):
        super().__init__()
        raise NotImplementedError


@pytest.mark.parametrize(
    ("candidate", "sentence"),
    [
        (NoModule, "yours is no nn.Module: it is to be class BatchNorm(nn.Module)"),
        (ReturnsNothing, "yours returns no tensor from forward: is the return statement missing?"),
        (Flattens, "yours returns an output of another shape than its input."),
        (OneMoreBuffer, "yours has the key calls in its state_dict, where PyTorch's module has none."),
        (HasALambda, "on a round trip through pickle amid training, yours raises"),
        (NoGradient, "yours lets no gradient through to its input"),
        (Renamed, "running_mean"),
        (Unwritten, "BatchNorm is not written yet: it raises NotImplementedError."),
    ],
)
def test_what_a_module_lacks_is_said(candidate, sentence):
    told = refusal(candidate)
    assert sentence in str(told)
    assert told.mistake is None


def test_a_misfit_is_told_where_the_inputs_are_hidden_too(monkeypatch, tmp_path):
    (tmp_path / "secret").write_text("heather")
    monkeypatch.setenv("NORMLAB_SECRET_FILE", str(tmp_path / "secret"))
    assert "has the key calls in its state_dict" in str(refusal(OneMoreBuffer))


def test_a_module_of_any_file_goes_through_pickle():
    """A notebook's __main__, a checked file, a class inside a function: the module's state is what counts."""

    class Local(Right):
        pass

    module = Local(3)
    module.running_mean += 1
    again = drive._pickled(module)
    assert type(again) is Local
    assert again is not module
    assert torch.equal(again.running_mean, module.running_mean)


def test_rounding_to_bfloat16():
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 100
    assert (running._to_bfloat16(x.numpy()) == x.to(torch.bfloat16).float().numpy()).all()


def test_a_script_takes_its_arrays_in_order():
    steps = list(drive.steps("affine train copy eval+backward train+bfloat16", range(6)))
    assert [word for word, _, _ in steps] == ["affine", "train", "copy", "eval", "train"]
    assert [given for _, _, given in steps] == [[0, 1], [2], [], [3, 4], [5]]


def test_every_script_uses_up_its_arrays():
    for case in EXERCISES["BatchNorm"].cases:
        (script, arrays, _), _ = EXERCISES["BatchNorm"].draw(case, b"public")
        used = [a for _, _, given in drive.steps(script, arrays) for a in given]
        assert len(used) == len(arrays), case.name
