"""The exercises of the chapter `kernels`: real wrong code, compiled and interpreted, and where tools are missing."""

import importlib.util
import sys
import textwrap

import numba
import numpy as np
import pytest

from normlab import check, check_all, verdict
from normlab.chapters import kernels
from normlab.check import CheckFailed
from normlab.drive import kernels as drive_kernels
from normlab.exercises import EXERCISES

triton = pytest.importorskip("triton", reason="Not checked: kernels in Triton.", exc_type=ImportError)
tl = pytest.importorskip("triton.language")


def refused(candidate, name):
    """(sentence, slug) of a refusal."""
    found = check._refusal(verdict.Bench(EXERCISES[name], b"public"), candidate, None)
    assert found is not None, "accepted"
    return found


# ---- bytes_moved -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "right"),
    {
        ("softmax", (2, 3), 4, True): 48,
        ("softmax", (2, 3), 4, False): 224,
        # By hand, rows 2, columns 3, numbers 6. mean 8, d 14, s 12, var 8, rstd 4, x_hat 14, z 15, y 15.
        ("layer_norm", (2, 3), 1, False): 90,
        ("layer_norm", (2, 3), 1, True): 18,
        # s 12, ms 8, rstd 4, x_hat 14, y 15.
        ("rms_norm", (2, 3), 1, False): 53,
        ("rms_norm", (2, 3), 1, True): 15,
        ("softmax", (7,), 2, False): (8 * 7 + 4) * 2,
    }.items(),
)
def test_bytes_by_hand(arguments, right):
    assert EXERCISES["bytes_moved"].numpy_truth(*arguments) == right


# ---- softmax_rows: what is compiled, and what it holds ---------------------------------------------------------------


@numba.njit
def _row(x, to):
    top, total = x[0], 0.0
    for j in range(1, x.size):
        top = max(top, x[j])
    for j in range(x.size):
        to[j] = np.exp(x[j] - top)
        total += to[j]
    for j in range(x.size):
        to[j] /= total


@numba.njit
def makes_a_spare_matrix(x, out):
    spare = np.empty(x.shape, x.dtype)
    for i in range(len(x)):
        _row(x[i], spare[i])
        for j in range(x.shape[1]):
            out[i, j] = spare[i, j]


@numba.njit
def one_row_too_many(x, out):
    for i in range(len(x)):
        _row(x[i], out[i])
    out[len(x), 0] = 1.0


@numba.njit
def leaves_the_last_row(x, out):
    for i in range(len(x) - 1):
        _row(x[i], out[i])


@numba.njit
def uses_what_numba_lacks(x, out):
    out[:] = np.gradient(x)[0]


@numba.njit
def maximum_along_an_axis(x, out):
    out[:] = np.max(x, axis=1)


@numba.jit(forceobj=True)
def in_object_mode(x, out):
    out[:] = x


def compiles_beside(x, out):
    """Compiled code is there, and is not called."""
    for i in range(len(x)):
        out[i] = np.exp(x[i] - x[i].max()) / np.exp(x[i] - x[i].max()).sum()
    return _never


@numba.njit
def _never(x):
    return x


@numba.njit
def writes_to_x(x, out):
    for i in range(len(x)):
        _row(x[i], x[i])
        out[i] = x[i]


@pytest.mark.parametrize(
    ("candidate", "words", "slug"),
    [
        (makes_a_spare_matrix, "another array of the size of x", "second-matrix"),
        (one_row_too_many, "writes outside of out", None),
        (leaves_the_last_row, "leaves part of out as it was", None),
        (uses_what_numba_lacks, "does not compile: Use of unsupported NumPy function 'numpy.gradient'", None),
        (maximum_along_an_axis, "does not compile: No implementation of function max found", None),
        (in_object_mode, "object mode", "object-mode"),
        (compiles_beside, "runs as plain Python", "not-compiled"),
        (writes_to_x, "on a matrix, yours changes its input", "mutates-input"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_wrong_rows(candidate, words, slug):
    sentence, mistake = refused(candidate, "softmax_rows")
    assert words in sentence
    assert mistake == slug


def test_a_compiler_is_not_watched_call_by_call():
    """It would take ten times as long. Afterwards everything is as it was."""
    seen = []

    def profile(frame, event, arg):
        pass

    sys.setprofile(profile)
    try:
        drive_kernels._unprofiled(lambda: seen.append(sys.getprofile()))
        after = sys.getprofile()
    finally:
        sys.setprofile(None)
    assert (seen, after) == ([None], profile)


# ---- Triton ----------------------------------------------------------------------------------------------------------


@triton.jit
def calls_tritons_own(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + tl.program_id(0) * x_stride + cols, mask=cols < n_cols, other=-float("inf"))
    tl.store(out_ptr + tl.program_id(0) * out_stride + cols, tl.softmax(x.to(tl.float32)), mask=cols < n_cols)


@triton.jit
def _helper(x):
    return tl.softmax(x)


@triton.jit
def calls_it_in_a_helper(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + tl.program_id(0) * x_stride + cols, mask=cols < n_cols, other=-float("inf"))
    tl.store(out_ptr + tl.program_id(0) * out_stride + cols, _helper(x.to(tl.float32)), mask=cols < n_cols)


@triton.jit
def number_by_number(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    x_row, out_row = x_ptr + tl.program_id(0) * x_stride, out_ptr + tl.program_id(0) * out_stride
    top = -float("inf")
    for j in range(n_cols):
        top = tl.maximum(top, tl.load(x_row + j).to(tl.float32))
    total = 0.0
    for j in range(n_cols):
        total += tl.exp(tl.load(x_row + j).to(tl.float32) - top)
    for j in range(n_cols):
        tl.store(out_row + j, tl.exp(tl.load(x_row + j).to(tl.float32) - top) / total)


@triton.jit
def not_written(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    raise NotImplementedError


@triton.jit
def other_arguments(x_ptr, n_cols, BLOCK: tl.constexpr):
    pass


@triton.jit
def calls_numpy(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    tl.store(out_ptr + cols, np.exp(tl.load(x_ptr + cols, mask=cols < n_cols, other=0.0)), mask=cols < n_cols)


@triton.jit
def stores_nothing(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    pass


@triton.jit
def writes_to_x_as_well(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    tl.store(x_ptr + tl.arange(0, BLOCK), 0.0, mask=tl.arange(0, BLOCK) < n_cols)


@pytest.mark.parametrize(
    ("candidate", "words", "slug"),
    [
        (calls_tritons_own, "calls tl.softmax", "calls-the-answer"),
        (calls_it_in_a_helper, "calls tl.softmax", "calls-the-answer"),
        (number_by_number, "reads x three times", "three-passes"),
        (not_written, "is not written yet", None),
        (other_arguments, "takes (x_ptr, n_cols, BLOCK)", None),
        (calls_numpy, "calls what is not Triton's", None),
        (stores_nothing, "leaves part of out as it was", None),
        (writes_to_x_as_well, "writes to x", None),
        (lambda *_: None, "is no Triton kernel", "not-a-kernel"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_wrong_kernels(candidate, words, slug):
    sentence, mistake = refused(candidate, "softmax_kernel")
    assert words in sentence
    assert mistake == slug


def test_the_traffic_of_right_kernels_is_compulsory():
    """To the byte: what the limit of the check says is what a right kernel does."""
    import torch

    from normlab import watch

    x, out = torch.randn(3, 100), torch.empty(3, 100)
    solutions = _styles("layer_norm_kernel")
    with watch.watched() as seen:
        solutions[0][(3,)](x, out, torch.ones(100), torch.zeros(100), 100, 100, 100, 1e-5, BLOCK=128)
    seen.check()
    once = x.nbytes
    assert [seen.loaded(n) for n in ("x_ptr", "weight_ptr", "bias_ptr")] == [once] * 3
    assert (seen.stored("out_ptr"), seen.loaded("out_ptr")) == (once, 0)


def _styles(name):
    from tests.test_exercises import styles

    return styles(name)


# ---- where tools are missing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "package", "words"),
    [
        ("softmax_rows", "numba", "compiled by Numba, which is not installed here"),
        ("softmax_kernel", "triton", "made for Linux alone, and no other exercise needs it"),
        ("layer_norm_kernel", "triton", "made for Linux alone, and no other exercise needs it"),
    ],
)
def test_one_sentence_where_a_package_is_missing(monkeypatch, name, package, words):
    found = importlib.util.find_spec
    monkeypatch.setattr(kernels, "find_spec", lambda wanted: None if wanted == package else found(wanted))
    with pytest.raises(CheckFailed, match=words) as failed:
        check.check(lambda: None, name)
    assert str(failed.value).startswith(f"{name}: this exercise is ")
    state, sentence, _ = check_all._without_a_process(name, (None, None, [name]))
    assert (state, sentence) == ("unchecked", str(failed.value))


def test_numba_told_to_compile_nothing(monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    with pytest.raises(CheckFailed, match="while NUMBA_DISABLE_JIT is set"):
        check.check(lambda x, out: None, "softmax_rows")


def test_a_file_with_a_kernel_on_the_command_line(tmp_path, capsys):
    """Nothing has to be set for it."""
    source = """
    import triton
    import triton.language as tl

    @triton.jit
    def softmax_kernel(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
        cols = tl.arange(0, BLOCK)
        x = tl.load(x_ptr + tl.program_id(0) * x_stride + cols, mask=cols < n_cols, other=-float("inf")).to(tl.float32)
        e = tl.exp({})
        tl.store(out_ptr + tl.program_id(0) * out_stride + cols, e / tl.sum(e, axis=0), mask=cols < n_cols)
    """
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(textwrap.dedent(source.format("x - tl.max(x, axis=0)")))
    wrong.write_text(textwrap.dedent(source.format("x")))
    assert check.main(["softmax_kernel", str(right), str(wrong)]) == 1
    accepted, refused = capsys.readouterr().out.splitlines()
    assert accepted == f"{right}: accepted"
    assert "subtract the row's maximum before tl.exp" in refused
