"""Judges one Outcome: right or wrong against PyTorch, in words, and which known mistake it equals."""

from dataclasses import dataclass

import numpy as np

from normlab import cases, exercises
from normlab.guard import run
from normlab.mistakes import MISTAKES

FALSE_ALARM = 1e-9  # of one statistical case on a right sampler; every exercise has fewer than a hundred such


@dataclass
class Right:
    """The right answer of a case: a float64 array, or `raises`; the tolerance and the dtype the answer must have."""

    value: np.ndarray | None
    raises: type | None
    tolerance: float = 0.0
    dtype: np.dtype | None = None
    shape: tuple = ()


def right_answer(exercise, case, seed):
    args, kwargs = exercise.draw(case, seed)
    if case.raises:
        return Right(None, case.raises)
    value = exercises.truth(exercise, args, kwargs)
    if exercise.returns == "samples":
        size = args[2] if isinstance(args[2], tuple) else (args[2],)
        return Right(value, None, shape=size)
    if exercise.returns == "tensor":
        eps = float(np.finfo(np.float32).eps)
        return Right(value, None, 20 * eps * float(np.abs(value).max()), np.dtype(np.float32), value.shape)
    args, kwargs = exercise.draw(case, seed)
    dtype = args[0].dtype
    far = ()
    if case.far:
        rounded = exercises.moved_by_one_rounding(exercise, args, kwargs, np.random.default_rng(0))
        far = rounded, max(float(np.abs(a[np.isfinite(a)]).max(initial=0)) for a in args if isinstance(a, np.ndarray))
    allowed = cases.tolerance(value, exercises.plain(exercise, args, kwargs), dtype, *far)
    return Right(value, None, allowed, dtype, value.shape)


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


def _wrong_kind(exercise, right, value):
    """What is wrong with the type, dtype or shape of an answer, or None; and the answer as a float64 array."""
    if value is None:
        return "returns None: is the return statement missing?", None
    if exercise.returns == "float":
        if isinstance(value, (float, np.floating)) or (
            type(value) is np.ndarray and value.shape == () and value.dtype.kind == "f"
        ):
            return None, np.asarray(value, np.float64)
        return f"returns {named_type(value)} where a float is right", None
    if exercise.returns == "tensor":
        torch = exercises.torch_or_none()
        if type(value) is not torch.Tensor:
            return f"returns {named_type(value)} where a torch.Tensor is right", None
        dtype, value = str(value.dtype).removeprefix("torch."), value.detach().cpu().double().numpy()
    else:
        scalar = right.shape == () and isinstance(value, np.generic)
        if type(value) is not np.ndarray and not scalar:
            wanted = "a NumPy scalar" if right.shape == () else "a NumPy array"
            return f"returns {named_type(value)} where {wanted} is right", None
        dtype = str(value.dtype)
    if exercise.returns == "samples":
        if np.dtype(dtype).kind not in "iu":
            return f"returns {dtype} where integers (the indices of the classes) are right", None
    elif dtype != str(right.dtype):
        return f"returns {dtype} where {right.dtype} is right", None
    if value.shape != right.shape:
        if value.ndim != len(right.shape):
            return f"returns an array with {_axes(value.ndim)} where {_axes(len(right.shape))} would be right", None
        return "returns an array of the wrong shape", None
    return None, np.asarray(value) if exercise.returns == "samples" else np.asarray(value, np.float64)


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
    over all classes together a right sampler is refused with probability at most FALSE_ALARM.
    """
    if samples.size == 0:
        return None
    if samples.min() < 0 or samples.max() >= len(p):
        return "draws an index that is not a class"
    q = _frequencies(samples, len(p))
    if (q[p == 0] > 0).any():
        return "draws a class that has probability 0"
    with np.errstate(divide="ignore", invalid="ignore"):
        kl = np.where(q > 0, q * np.log(q / p), 0) + np.where(q < 1, (1 - q) * np.log((1 - q) / (1 - p)), 0)
    kl = np.where((p == 0) | (p == 1), 0, kl)
    if samples.size * kl.max() > np.log(2 * len(p) / FALSE_ALARM):
        return "draws the classes with other frequencies"
    return None


def fault_of(exercise, right, outcome, hidden):
    """What the candidate did wrong on this case, as a verb phrase, or None if it is right; and whether that is about
    what the exercise asks for, so that it helps to say what would have been right."""
    if outcome.stopped:
        return outcome.stopped, False
    if isinstance(outcome.error, NotImplementedError):
        return "is not written yet: it raises NotImplementedError", False
    if outcome.error is not None:
        if right.raises and isinstance(outcome.error, right.raises):
            return None, False
        # The text of an error may quote hidden inputs, so it is shown only where the inputs are public.
        text = "" if hidden else first_line(outcome.error)
        instead = f" instead of {right.raises.__name__}" if right.raises else ""
        return f"raises {type(outcome.error).__name__}{instead}" + (f" ({text})" if text else ""), bool(right.raises)
    if outcome.mutated:
        return "changes its input: work on a copy", False
    if right.raises:
        return f"returns {named_type(outcome.value)} instead of raising {right.raises.__name__}", True
    wrong, value = _wrong_kind(exercise, right, outcome.value)
    if wrong:
        return wrong, False
    if exercise.returns == "samples":
        if outcome.idle and value.size and len(right.value) > 1:
            return "draws nothing from rng: the randomness is to come from rng.gumbel or rng.random", False
        return _wrong_frequencies(right.value, value), True
    return wrong_values(right.value, right.tolerance, value), True


# ---- naming the mistake ----------------------------------------------------------------------------------------------


def _alike(exercise, right, mistake, one, other):
    """Whether the candidate's outcome is the same wrong answer as the mistake's."""
    if one.stopped or other.stopped or one.mutated != other.mutated:
        return False
    if one.error is not None or other.error is not None:
        kinds = {type(one.error), type(other.error)}
        return len(kinds) == 1 or kinds == {TypeError, AttributeError}  # how None fails depends on what is done to it
    if right.raises:  # the right answer is an error, so there is no shape to compare with
        return _equal_arrays(one.value, other.value)
    (wrong_a, a), (wrong_b, b) = _wrong_kind(exercise, right, one.value), _wrong_kind(exercise, right, other.value)
    if wrong_a or wrong_b:
        return wrong_a == wrong_b and type(one.value) is type(other.value) and _equal_arrays(one.value, other.value)
    if mistake.trace and not mistake.trace(a):
        return False
    if mistake.noisy:
        one_size, other_size = (_size_of_error(right.value, x) for x in (a, b))
        return one_size < 30 * other_size and other_size < 30 * one_size
    if exercise.returns == "samples":
        classes = len(right.value)
        inside = all(x.size == 0 or (x.min() >= 0 and x.max() < classes) for x in (a, b))
        return inside and np.abs(_frequencies(a, classes) - _frequencies(b, classes)).max() < 0.01
    scale = max(np.abs(b[np.isfinite(b)]).max(initial=0.0), 1e-300)
    stretch = max(1.0, scale / max(np.abs(right.value[np.isfinite(right.value)]).max(initial=0.0), 1e-300))
    ulps = 16 * float(np.finfo(right.dtype or np.float64).eps) * scale
    return wrong_values(b, max(right.tolerance * stretch, ulps), a) is None


def _size_of_error(truth, value):
    """The largest error against the truth at the truth's scale, at most 1: a NaN counts as 1."""
    scale = np.abs(truth[np.isfinite(truth)]).max(initial=1e-300)
    with np.errstate(invalid="ignore"):
        return float(np.nan_to_num(np.abs(value - truth) / scale, nan=1.0, posinf=1.0).clip(0, 1).max(initial=0.0))


def _equal_arrays(a, b):
    """Whether two answers of the wrong kind are the same numbers all the same."""
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
        self._right, self._mistakes = {}, {}

    def right(self, case):
        if case.name not in self._right:
            self._right[case.name] = right_answer(self.exercise, case, self.seed)
        return self._right[case.name]

    def prepare(self, mistakes_too):
        """Computes what forked children then share."""
        for case in self.exercise.cases:
            self.right(case)
            for mistake in MISTAKES[self.exercise.name] if mistakes_too else ():
                for number in range(1 + len(mistake.variants)):
                    self.told_apart(mistake, number, case)

    def fault(self, case, outcome):
        return fault_of(self.exercise, self.right(case), outcome, self.hidden)

    def told_apart(self, mistake, number, case):
        """What variant `number` of the mistake does on the case if that is wrong there, else None."""
        key = mistake.slug, number, case.name
        if key not in self._mistakes:
            wrong = (mistake.wrong, *mistake.variants)[number]
            outcome = run(wrong, self.exercise, case, self.seed, watched=False)
            self._mistakes[key] = outcome if self.fault(case, outcome)[0] else None
        return self._mistakes[key]

    def name(self, outcomes, first, fewest=1, noisy_too=True):
        """The known mistake that the candidate's outcomes (case -> Outcome) equal on all cases that tell it apart.

        It must explain the failure on the case `first`, and be told apart by at least `fewest` cases; of several, it is
        the one told apart by most. None if there is none."""
        best, most = None, fewest - 1
        for mistake in MISTAKES[self.exercise.name]:
            if mistake.noisy and not noisy_too:
                continue
            for number in range(1 + len(mistake.variants)):
                if not self.told_apart(mistake, number, first):
                    continue
                telling = {case: wrong for case in outcomes if (wrong := self.told_apart(mistake, number, case))}
                if len(telling) > most and all(
                    self.fault(case, outcomes[case])[0]
                    and _alike(self.exercise, self.right(case), mistake, outcomes[case], wrong)
                    for case, wrong in telling.items()
                ):
                    best, most = mistake, len(telling)
        return best
