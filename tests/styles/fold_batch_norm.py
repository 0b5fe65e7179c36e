"""Right solutions of fold_batch_norm in different styles."""

import numpy as np


def wide(*arrays):
    return [a if a is None else a.astype(np.promote_types(a.dtype, np.float32)) for a in arrays]


def scale_and_shift(weight, bias, running_mean, running_var, gamma, beta, eps=1e-5):
    w, b, mean, var, g, shift = wide(weight, bias, running_mean, running_var, gamma, beta)
    scale = g / np.sqrt(var + eps)
    b = 0 if b is None else b
    return (w * scale[:, None]).astype(weight.dtype), ((b - mean) * scale + shift).astype(weight.dtype)


def diagonal_matrix(weight, bias, running_mean, running_var, gamma, beta, eps=1e-5):
    w, mean, var, g, shift = (a.astype(np.float64) for a in (weight, running_mean, running_var, gamma, beta))
    b = np.zeros(len(w)) if bias is None else bias.astype(np.float64)
    scale = np.diag(g * (var + eps) ** -0.5)
    return (scale @ w).astype(weight.dtype), (scale @ (b - mean) + shift).astype(weight.dtype)


def row_by_row(weight, bias, running_mean, running_var, gamma, beta, eps=1e-5):
    folded, shift = np.empty_like(weight), np.empty_like(running_mean)
    for k in range(len(weight)):
        scale = float(gamma[k]) / (float(running_var[k]) + eps) ** 0.5
        folded[k] = [float(w) * scale for w in weight[k]]
        old = 0.0 if bias is None else float(bias[k])
        shift[k] = (old - float(running_mean[k])) * scale + float(beta[k])
    return folded, shift


def einsum(weight, bias, running_mean, running_var, gamma, beta, eps=1e-5):
    scale = gamma.astype(np.float64) / np.sqrt(running_var.astype(np.float64) + eps)
    shift = beta - running_mean * scale
    if bias is not None:
        shift = shift + bias * scale
    return np.einsum("oi,o->oi", weight, scale).astype(weight.dtype), shift.astype(weight.dtype)


def transposed(weight, bias, running_mean, running_var, gamma, beta, eps=1e-5):
    w, b, mean, var, g, shift = wide(weight, bias, running_mean, running_var, gamma, beta)
    scale = g / np.sqrt(var + var.dtype.type(eps))
    centered = -mean if b is None else b - mean
    folded = (w.T * scale).T
    return np.ascontiguousarray(folded, dtype=weight.dtype), (shift + centered * scale).astype(weight.dtype)


def one_more_column(weight, bias, running_mean, running_var, gamma, beta, eps=1e-5):
    """The bias as one more input that is always 1."""
    old = np.zeros_like(running_mean) if bias is None else bias
    both = np.column_stack([weight, old]).astype(np.promote_types(weight.dtype, np.float64))
    both[:, -1] -= running_mean
    both *= (gamma / np.sqrt(running_var.astype(np.float64) + eps))[:, np.newaxis]
    both[:, -1] += beta
    return both[:, :-1].astype(weight.dtype), both[:, -1].astype(weight.dtype)


def in_torch(weight, bias, running_mean, running_var, gamma, beta, eps=1e-5):
    import torch

    w, mean, var, g, shift = (
        torch.tensor(a.astype(np.float64)) for a in (weight, running_mean, running_var, gamma, beta)
    )
    scale = g * torch.rsqrt(var + eps)
    centered = -mean if bias is None else torch.tensor(bias.astype(np.float64)) - mean
    return (w * scale.unsqueeze(1)).numpy().astype(weight.dtype), (centered * scale + shift).numpy().astype(
        weight.dtype
    )


def a_list(weight, bias, running_mean, running_var, gamma, beta, eps=1e-5):
    return list(scale_and_shift(weight, bias, running_mean, running_var, gamma, beta, eps=eps))


STYLES = [
    scale_and_shift,
    diagonal_matrix,
    row_by_row,
    einsum,
    transposed,
    one_more_column,
    in_torch,
    a_list,
]
