"""Right solutions of numerical_gradient in different styles."""

import numpy as np


def two_copies(f, x, dy, h):
    x = x.astype(np.float64)
    dx = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += h
        down[i] -= h
        dx[i] = ((f(up) - f(down)) * dy).sum() / (2 * h)
    return dx


def moved_and_restored(f, x, dy, h):
    x = np.array(x, dtype=float)
    dx = np.empty_like(x)
    for i in np.ndindex(*x.shape):
        value = x[i]
        x[i] = value + h
        above = np.sum(f(x) * dy)
        x[i] = value - h
        below = np.sum(f(x) * dy)
        x[i] = value
        dx[i] = (above - below) / (2 * h)
    return dx


def one_step_array(f, x, dy, h):
    x = x.astype(np.float64)
    slopes = []
    for i in range(x.size):
        step = np.zeros(x.size)
        step[i] = h
        step = step.reshape(x.shape)
        slopes.append(np.vdot(f(x + step) - f(x - step), dy) / h / 2)
    return np.array(slopes).reshape(x.shape)


def flat_iterator(f, x, dy, h):
    x, dx = x.astype(float), np.zeros(x.shape)
    for i, value in enumerate(x.flat):
        up, down = x.copy(), x.copy()
        up.flat[i], down.flat[i] = value + h, value - h
        dx.flat[i] = np.sum(dy * (f(up) - f(down)) / (2 * h))
    return dx


def the_step_that_was_made(f, x, dy, h):
    """Divides by the distance between the two points as they were rounded."""
    x = x.astype(np.float64)
    dx = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += h
        down[i] -= h
        dx[i] = ((f(up) - f(down)) * dy).sum() / (up[i] - down[i])
    return dx


def identity_rows(f, x, dy, h):
    x = x.astype(np.float64)
    dy = np.asarray(dy, np.float64)

    def loss(values):
        return float(np.asarray(f(values)).ravel() @ dy.ravel())

    units = np.eye(x.size).reshape(x.size, *x.shape) * h
    return np.array([(loss(x + u) - loss(x - u)) / (2 * h) for u in units]).reshape(x.shape)


def jacobian_first(f, x, dy, h):
    """All of the Jacobian, one column for each element, and then dy."""
    x = x.astype(np.float64)
    columns = []
    for i in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[i] = h
        columns.append(np.ravel((f(x + step) - f(x - step)) / (2 * h)))
    return (np.stack(columns, axis=1).T @ np.ravel(dy)).reshape(x.shape)


def recursive(f, x, dy, h):
    values = x.astype(np.float64).ravel().tolist()

    def loss(changed):
        return (f(np.array(changed).reshape(x.shape)) * dy).sum()

    def slope(i):
        head, tail = values[:i], values[i + 1 :]
        return (loss([*head, values[i] + h, *tail]) - loss([*head, values[i] - h, *tail])) / (2 * h)

    return np.array([slope(i) for i in range(len(values))]).reshape(x.shape)


STYLES = [
    two_copies,
    moved_and_restored,
    one_step_array,
    flat_iterator,
    the_step_that_was_made,
    identity_rows,
    jacobian_first,
    recursive,
]
