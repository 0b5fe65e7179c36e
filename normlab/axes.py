"""Which axes each normalization pools: the one table that everything else loops over.

Four letters name the axes: N the example, G the group, D the channel within its group, S the position (all positions
flattened to one axis). A channel is the pair (G, D). A norm is the set of letters over which its statistics are taken,
and whether the mean is subtracted. The weight and bias of all five vary over G and D, that is, per channel.
"""

from dataclasses import dataclass
from math import prod

LETTERS = "NGDS"


@dataclass(frozen=True)
class Norm:
    """One normalization: `pools`, the letters its statistics run over; `centered`, whether the mean is subtracted;
    `channels`, where the channel axes stand in the array: "first" (N, C, positions...) or "last" (..., C)."""

    pools: str
    centered: bool
    channels: str


NORMS = {
    "batch": Norm(pools="NS", centered=True, channels="first"),
    "layer": Norm(pools="GD", centered=True, channels="last"),
    "instance": Norm(pools="S", centered=True, channels="first"),
    "group": Norm(pools="DS", centered=True, channels="first"),
    "rms": Norm(pools="GD", centered=False, channels="last"),
}


def pooled_axes(norm):
    """Axis numbers that `norm` pools in an array whose axes are N, G, D, S.

    >>> pooled_axes("batch"), pooled_axes("group")
    ((0, 3), (2, 3))
    """
    return tuple(LETTERS.index(letter) for letter in NORMS[norm].pools)


def ngds_shape(shape, norm, num_groups=1, normalized_shape=None):
    """The (N, G, D, S) shape that an array of `shape` has in the eyes of `norm`.

    Channels first: (N, C, positions...) with C = num_groups * D. Channels last: the trailing axes named by
    `normalized_shape` (an int or a tuple; the last axis when None) are the channels of one group, and every element of
    the leading axes is an example of its own with a single position.

    Errors: ValueError when the shape has no channel axis, when num_groups does not divide C, or when the trailing axes
    are not `normalized_shape`.

    >>> ngds_shape((2, 6, 4, 4), "group", num_groups=3)
    (2, 3, 2, 16)
    >>> ngds_shape((2, 5, 8), "layer", normalized_shape=8)
    (10, 1, 8, 1)
    """
    shape = tuple(shape)
    if NORMS[norm].channels == "last":
        inner = shape[-1:] if normalized_shape is None else normalized_shape
        inner = (inner,) if isinstance(inner, int) else tuple(inner)
        if not inner or shape[-len(inner) :] != inner:
            raise ValueError(f"{norm} norm over {inner} does not fit an array of shape {shape}: its last axes differ")
        return prod(shape[: -len(inner)]), 1, prod(inner), 1
    if len(shape) < 2:
        raise ValueError(f"{norm} norm needs (N, C, positions...), got an array of shape {shape}")
    if num_groups < 1 or shape[1] % num_groups:
        raise ValueError(f"{norm} norm: {num_groups} groups do not divide {shape[1]} channels")
    return shape[0], num_groups, shape[1] // num_groups, prod(shape[2:])
