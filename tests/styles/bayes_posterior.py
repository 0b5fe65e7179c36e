"""Right solutions of bayes_posterior in different styles."""

import math

import numpy as np


def shifted(log_prior, log_likelihood):
    wide = np.promote_types(log_likelihood.dtype, np.float32)
    joint = log_prior.astype(wide)[None, :] + log_likelihood.astype(wide)
    joint = joint - joint.max(axis=1, keepdims=True)
    posterior = np.exp(joint)
    return (posterior / posterior.sum(axis=1, keepdims=True)).astype(log_likelihood.dtype)


def by_evidence(log_prior, log_likelihood):
    joint = np.add(log_likelihood, log_prior, dtype=np.promote_types(log_prior.dtype, np.float32))
    evidence = np.logaddexp.reduce(joint, axis=1)
    return np.exp(joint - evidence[:, np.newaxis]).astype(log_prior.dtype)


def prior_as_weight(log_prior, log_likelihood):
    """Likelihood ratios to the best class, weighted by the prior itself."""
    possible = np.where(np.isneginf(log_prior), -np.inf, log_likelihood)
    ratios = np.exp(possible - possible.max(1)[:, None])
    weighted = ratios * np.exp(log_prior - np.max(log_prior))
    return (weighted.T / (weighted @ np.ones(len(log_prior)))).T.astype(log_likelihood.dtype)


def sample_by_sample(log_prior, log_likelihood):
    rows = []
    for row in log_likelihood:
        joint = [float(p) + float(v) for p, v in zip(log_prior, row, strict=True)]
        parts = [math.exp(v - max(joint)) for v in joint]
        rows.append([part / sum(parts) for part in parts])
    return np.array(rows, dtype=log_likelihood.dtype).reshape(log_likelihood.shape)


def odds(log_prior, log_likelihood):
    joint = np.add(log_prior, log_likelihood, dtype=np.float64)
    best = np.take_along_axis(joint, joint.argmax(1)[:, None], axis=1)
    return (np.exp(joint - best) / np.einsum("nk->n", np.exp(joint - best))[:, None]).astype(log_likelihood.dtype)


STYLES = [shifted, by_evidence, prior_as_weight, sample_by_sample, odds]
