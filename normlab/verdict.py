"""Judges one Outcome: right or wrong against PyTorch, in words, and which known mistake it equals."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from normlab import cases, exercises
from normlab.drive import Misfit, found
from normlab.guard import run
from normlab.mistakes import MISTAKES

FALSE_ALARM = 1e-9  # of one statistical case on a right sampler; every exercise has fewer than a hundred such


@dataclass
class Piece:
    """One part of a right answer: a float64 array, the tolerance, and the dtype and shape the answer must have."""

    name: str
    kind: str
    value: np.ndarray
    tolerance: float = 0.0
    dtype: np.dtype | None = None
    shape: tuple = ()
    explain: Callable | None = None  # of a wrong value


@dataclass
class Right:
    """The right answer of a case: its pieces (one, unless the answer is a tuple), or `raises`."""

    pieces: tuple = ()
    raises: type | None = None


def _tuple(value):
    return value if isinstance(value, tuple) else (value,)


def right_answer(exercise, case, seed):
    if case.raises:
        return Right(raises=case.raises)
    truths = _tuple(exercises.truth(exercise, *exercise.draw(case, seed)))
    args, kwargs = exercise.draw(case, seed)
    arrays = [array for array in found((args, kwargs), np.ndarray) if array.dtype.kind == "f"]
    dtype = arrays[0].dtype if arrays else np.dtype(np.float64)
    formulas = exercises.plain(exercise, args, kwargs)
    formulas = truths if formulas is None else _tuple(formulas)
    rounded, magnitude = (None,) * len(truths), 0.0
    if case.far:
        rounded = _tuple(exercises.moved_by_one_rounding(exercise, args, kwargs, np.random.default_rng(0)))
        magnitude = max(float(np.abs(a[np.isfinite(a)]).max(initial=0)) for a in arrays)
    pieces = []
    for (name, kind), value, formula, moved in zip(exercise.pieces, truths, formulas, rounded, strict=True):
        if kind == "samples":
            pieces.append(Piece(name, kind, value, shape=args[2] if isinstance(args[2], tuple) else (args[2],)))
        elif kind == "verdicts":
            pieces.append(Piece(name, kind, value, explain=partial(exercise.explain, args)))
        elif kind == "int":
            pieces.append(Piece(name, kind, value.astype(np.float64)))
        elif kind == "tensor":
            allowed = 20 * float(np.finfo(np.float32).eps) * float(np.abs(value).max())
            pieces.append(Piece(name, kind, value, allowed, np.dtype(np.float32), value.shape))
        else:
            allowed = cases.tolerance(value, formula, dtype, moved, magnitude)
            pieces.append(Piece(name, kind, value, allowed, dtype, value.shape))
    return Right(tuple(pieces))


def first_line(error):
    """The first line of an error's text, shortened; nothing where the error cannot even say what it is."""
    try:
        return str(error).strip().split("\n")[0][:120]
    except Exception:
        return ""


def closed(sentence):
    """The sentence with its full stop, unless it ends in a question."""
    return sentence if sentence.endswith("?") else f"{sentence}."


def named_type(value):
    kind = type(value)
    if kind is np.ndarray:
        return "an array"
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__.split('.')[0]}.{kind.__name__}"
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"


def _axes(count):
    return f"{count} axis" if count == 1 else f"{count} axes"


def _wrong_kind(piece, value):
    """What is wrong with the type, dtype or shape of (a part of) an answer, or None; and it as a float64 array."""
    if value is None:
        return "returns None: is the return statement missing?", None
    kind = piece.kind
    if kind in ("float", "int"):
        types, letters = ((float, np.floating), "f") if kind == "float" else ((int, np.integer), "iu")
        array = type(value) is np.ndarray and value.shape == () and value.dtype.kind in letters
        if array or (isinstance(value, types) and not isinstance(value, bool)):
            return None, np.asarray(value, np.float64)
        return f"returns {named_type(value)} where {'a float' if kind == 'float' else 'an int'} is right", None
    if kind == "verdicts":
        other = [answer for answer in value if not isinstance(answer, (bool, np.bool_))]
        wrong = f"returns {named_type(other[0])} where True or False is right" if other else None
        return wrong, None if other else np.asarray(value, np.float64)
    if kind == "tensor":
        torch = exercises.torch_or_none()
        if type(value) is not torch.Tensor:
            return f"returns {named_type(value)} where a torch.Tensor is right", None
        dtype, value = str(value.dtype).removeprefix("torch."), value.detach().cpu().double().numpy()
    else:
        scalar = piece.shape == () and isinstance(value, np.generic)
        if type(value) is not np.ndarray and not scalar:
            wanted = "a NumPy scalar" if piece.shape == () else "a NumPy array"
            return f"returns {named_type(value)} where {wanted} is right", None
        dtype = str(value.dtype)
    if kind == "samples":
        if np.dtype(dtype).kind not in "iu":
            return f"returns {dtype} where integers (the indices of the classes) are right", None
    elif dtype != str(piece.dtype) and not (kind == "numbers" and np.dtype(dtype).kind == "f"):
        return f"returns {dtype} where {piece.dtype} is right", None
    if value.shape != piece.shape:
        if value.ndim != len(piece.shape):
            return f"returns an array with {_axes(value.ndim)} where {_axes(len(piece.shape))} would be right", None
        return "returns an array of the wrong shape", None
    return None, np.asarray(value) if kind == "samples" else np.asarray(value, np.float64)


def _about(piece, wrong):
    return f"({piece.name}) {wrong}" if piece.name else wrong


def _wrong_kinds(right, value):
    """What is wrong with the answer's type, or with that of one of its parts, or None; and all parts as arrays."""
    if not right.pieces[0].name:
        wrong, array = _wrong_kind(right.pieces[0], value)
        return wrong, [array]
    names = ", ".join(piece.name for piece in right.pieces)
    if value is None:
        return _wrong_kind(right.pieces[0], None)
    if not isinstance(value, (tuple, list)):
        return f"returns {named_type(value)} where a tuple is right: ({names})", None
    if len(value) != len(right.pieces):
        return f"returns {len(value)} values where {len(right.pieces)} are right: ({names})", None
    arrays = []
    for piece, part in zip(right.pieces, value, strict=True):
        wrong, array = _wrong_kind(piece, part)
        if wrong:
            return _about(piece, wrong), None
        arrays.append(array)
    return None, arrays


def wrong_values(truth, allowed, value):
    """What is wrong with the numbers of an answer of the right shape, or None."""
    with np.errstate(invalid="ignore"):
        if (np.isnan(value) & ~np.isnan(truth)).any():
            return "has NaN where there should be numbers: look for 0/0, inf/inf and inf - inf"
        if (np.isnan(truth) & ~np.isnan(value)).any():
            return "has numbers where there should be NaN"
        infinite = np.isinf(value) | np.isinf(truth)
        if (value[infinite] != truth[infinite]).any():
            if (np.isinf(value) & np.isinf(truth)).any():
                return "has an infinity of the wrong sign"
            there, wanted = (
                ("an infinity", "a finite number") if np.isinf(value).any() else ("a finite number", "an infinity")
            )
            return f"has {there} where there should be {wanted}"
        gap = np.abs(value - truth)[~infinite & ~np.isnan(truth)].max(initial=0.0)
    if gap <= allowed:
        return None
    scale = np.abs(truth[np.isfinite(truth)]).max(initial=0.0)
    if gap < 1e-3 * scale:
        return "comes close, but misses by more than rounding: look at eps, constants and the order of operations"
    return "gives other numbers"


def _frequencies(samples, classes):
    return np.bincount(samples.ravel(), minlength=classes) / max(samples.size, 1)


def _wrong_frequencies(p, samples):
    """What is wrong with samples of the categorical p, or None.

    Chernoff's bound: the share q of one class among n draws has probability at most exp(-n kl(q, p)) on either side;
    over all classes together a right sampler is refused with probability at most FALSE_ALARM / 2.
    """
    if samples.size == 0:
        return None
    if samples.min() < 0 or samples.max() >= len(p):
        return "draws an index that is not a class"
    q = _frequencies(samples, len(p))
    if (q[p == 0] > 0).any():
        return "draws a class that has probability 0"
    if samples.size * _divergence(q, p).max() > np.log(4 * len(p) / FALSE_ALARM):
        return "draws the classes with other frequencies"
    return None


def _divergence(q, p):
    """kl(q, p) of yes and no with the shares q instead of p, each entry by itself; 0 where p leaves no choice."""
    with np.errstate(divide="ignore", invalid="ignore"):
        kl = np.where(q > 0, q * np.log(q / p), 0) + np.where(q < 1, (1 - q) * np.log((1 - q) / (1 - p)), 0)
    return np.where((p == 0) | (p == 1), 0, kl)


def _wrong_pairs(p, samples):
    """What is wrong with samples whose frequencies are right, or None: whether they depend on one another.

    Two independent samples agree with probability sum(p^2). Neighbors along each axis are paired, each half with the
    other half, and the samples with their mirror images; in none of these is a sample in two pairs, so Chernoff's bound
    holds, and a right sampler is refused with probability at most FALSE_ALARM / 2 by all of them together.
    """
    flat, half = samples.ravel(), samples.size // 2
    pairings = [(flat[:half], flat[half : 2 * half]), (flat[:half], flat[::-1][:half])]
    for axis, length in enumerate(samples.shape):
        rows = np.moveaxis(samples, axis, 0)[: length // 2 * 2]
        pairings.append((rows[0::2], rows[1::2]))
    for one, other in pairings:
        if one.size:
            agree = np.mean(one == other)
            if one.size * _divergence(agree, np.minimum(np.sum(p * p), 1)) > np.log(4 * len(pairings) / FALSE_ALARM):
                return "draws samples that depend on one another"
    return None


def fault_of(right, outcome, hidden):
    """What the candidate did wrong on this case, as a verb phrase, or None if it is right; and whether that is about
    what the exercise asks for, so that it helps to say what would have been right."""
    if outcome.stopped:
        return outcome.stopped, False
    if isinstance(outcome.error, NotImplementedError):
        return "is not written yet: it raises NotImplementedError", False
    if outcome.error is not None:
        if right.raises and isinstance(outcome.error, right.raises):
            return None, False
        if isinstance(outcome.error, Misfit) and not right.raises:
            return str(outcome.error), True
        # The text of an error may quote hidden inputs, so it is shown only where the inputs are public.
        text = "" if hidden else first_line(outcome.error)
        instead = f" instead of {right.raises.__name__}" if right.raises else ""
        return f"raises {type(outcome.error).__name__}{instead}" + (f" ({text})" if text else ""), bool(right.raises)
    if outcome.mutated:
        return "changes its input: work on a copy", False
    if right.raises:
        return f"returns {named_type(outcome.value)} instead of raising {right.raises.__name__}", True
    wrong, arrays = _wrong_kinds(right, outcome.value)
    if wrong:
        return wrong, False
    for piece, value in zip(right.pieces, arrays, strict=True):
        if piece.kind == "samples":
            if outcome.idle and value.size and len(piece.value) > 1:
                return "draws nothing from rng: the randomness is to come from rng.gumbel or rng.random", False
            wrong = _wrong_frequencies(piece.value, value) or _wrong_pairs(piece.value, value)
        elif piece.explain:
            wrong = None if np.array_equal(value, piece.value) else piece.explain(piece.value, value)
        else:
            wrong = wrong_values(piece.value, piece.tolerance, value)
        if wrong:
            return _about(piece, wrong), True
    return None, True


# ---- naming the mistake ----------------------------------------------------------------------------------------------


def _alike(right, mistake, one, other):
    """Whether the candidate's outcome is the same wrong answer as the mistake's."""
    if one.stopped or other.stopped or (one.mutated, one.idle) != (other.mutated, other.idle):
        return False
    if one.error is not None or other.error is not None:
        kinds = {type(one.error), type(other.error)}
        if kinds == {Misfit}:
            return str(one.error) == str(other.error)
        return len(kinds) == 1 or kinds == {TypeError, AttributeError}  # how None fails depends on what is done to it
    if right.raises:  # the right answer is an error, so there is no shape to compare with
        return _equal(one.value, other.value)
    (wrong_a, a), (wrong_b, b) = _wrong_kinds(right, one.value), _wrong_kinds(right, other.value)
    if wrong_a or wrong_b:
        return wrong_a == wrong_b and type(one.value) is type(other.value) and _equal(one.value, other.value)
    if mistake.trace and not mistake.trace(*a):
        return False
    return all(_alike_piece(*three, mistake.noisy) for three in zip(right.pieces, a, b, strict=True))


def _alike_piece(piece, a, b, noisy):
    if piece.kind == "verdicts":
        return np.array_equal(a, b)
    if noisy:
        one_size, other_size = (_size_of_error(piece.value, x) for x in (a, b))
        return one_size <= 30 * other_size and other_size <= 30 * one_size
    if piece.kind == "samples":
        classes = len(piece.value)
        inside = all(x.size == 0 or (x.min() >= 0 and x.max() < classes) for x in (a, b))
        return inside and np.abs(_frequencies(a, classes) - _frequencies(b, classes)).max() < 0.01
    scale = max(np.abs(b[np.isfinite(b)]).max(initial=0.0), 1e-300)
    own = np.abs(piece.value[np.isfinite(piece.value)]).max(initial=0.0)
    stretch = max(1.0, scale / own) if own > 0 else 1.0
    ulps = 16 * float(np.finfo(piece.dtype or np.float64).eps) * scale
    return wrong_values(b, max(piece.tolerance * stretch, ulps), a) is None


def _size_of_error(truth, value):
    """The largest error against the truth at the truth's scale, at most 1: a NaN counts as 1."""
    scale = np.abs(truth[np.isfinite(truth)]).max(initial=1e-300)
    with np.errstate(invalid="ignore"):
        return float(np.nan_to_num(np.abs(value - truth) / scale, nan=1.0, posinf=1.0).clip(0, 1).max(initial=0.0))


def _equal(a, b):
    """Whether two answers of the wrong kind are the same numbers all the same."""
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(_equal(*pair) for pair in zip(a, b, strict=True))
    try:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    except (TypeError, ValueError, RuntimeError):
        return False
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-6, equal_nan=True)


class Bench:
    """One exercise under one seed: right answers, and what each known mistake does, each computed once when asked."""

    def __init__(self, exercise, seed):
        self.exercise, self.seed = exercise, seed
        self.hidden = seed != b"public"
        self.mistakes = MISTAKES[exercise.name] if exercise.mistakes is None else exercise.mistakes
        self._right, self._mistakes = {}, {}

    def right(self, case):
        if case.name not in self._right:
            self._right[case.name] = right_answer(self.exercise, case, self.seed)
        return self._right[case.name]

    def prepare(self, mistakes_too):
        """Computes what forked children then share."""
        for case in self.exercise.cases:
            self.right(case)
            for mistake in self.mistakes if mistakes_too else ():
                for number in range(1 + len(mistake.variants)):
                    self.told_apart(mistake, number, case)

    def fault(self, case, outcome):
        return fault_of(self.right(case), outcome, self.hidden)

    def told_apart(self, mistake, number, case):
        """What variant `number` of the mistake does on the case if that is wrong there, else None."""
        key = mistake.slug, number, case.name
        if key not in self._mistakes:
            wrong = (mistake.wrong, *mistake.variants)[number]
            outcome = run(wrong, self.exercise, case, self.seed, watched=False)
            self._mistakes[key] = outcome if self.fault(case, outcome)[0] else None
        return self._mistakes[key]

    def name(self, outcomes, first, fewest=1, noisy_too=True, against=()):
        """The known mistake that the candidate's outcomes (case -> Outcome) equal on all cases that tell it apart.

        It must explain the failure on the case `first`, and be told apart by at least `fewest` cases; of several, it is
        the one told apart by most. `against` {case: Outcome}: being right there on a case that the mistake gets wrong
        speaks against it. None if there is none."""
        best, most = None, fewest - 1
        for mistake in self.mistakes:
            if mistake.noisy and not noisy_too:
                continue
            for number in range(1 + len(mistake.variants)):
                wrong = self.told_apart(mistake, number, first)
                if not wrong or not _alike(self.right(first), mistake, outcomes[first], wrong):
                    continue
                telling = {case: wrong for case in outcomes if (wrong := self.told_apart(mistake, number, case))}
                if len(telling) <= most or any(
                    self.told_apart(mistake, number, case) and not self.fault(case, outcome)[0]
                    for case, outcome in dict(against).items()
                ):
                    continue
                if all(
                    self.fault(case, outcomes[case])[0] and _alike(self.right(case), mistake, outcomes[case], wrong)
                    for case, wrong in telling.items()
                ):
                    best, most = mistake, len(telling)
        return best
