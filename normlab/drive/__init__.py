"""How learners' code is used: called, watched, handed its arguments, its answers carried back.

Nothing in this package knows a right answer. A grader that runs learners' code in a sandbox puts this package there,
with guard.py and what watches Triton kernels, and nothing else of normlab.
"""

import weakref


def call(candidate, *args, **kwargs):
    """How most candidates are used."""
    return candidate(*args, **kwargs)


class Misfit(Exception):
    """What `drive` raises when a candidate lacks what it has to have: a verb phrase that goes on after "yours", and
    that quotes nothing of the case."""


# ---- what is handed to a candidate -----------------------------------------------------------------------------------

_given = set()


def given(function):
    """Marks a function of ours that candidates may call, such as the f of numerical_gradient(f, ...)."""
    _given.add(function.__code__)
    return function


def is_given(code):
    return code in _given


class Once:
    """An iterator over `values` that can be looked at once, as a stream can. What else a list could do raises."""

    def __init__(self, values):
        self._values, self._begun = iter(values), False

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._values)

    def __bool__(self):
        return True  # as of any iterator: without this, Python would ask for len()

    def __len__(self):
        raise TypeError("a stream has no len()")

    def __getitem__(self, index):
        raise TypeError("a stream has no items to index: take them one by one, in a for loop")


def tensors_held(torch):
    """A context that measures the bytes PyTorch's results hold, which tracemalloc does not see: `peak` is the most at
    once. (A TorchDispatchMode would see more, and imports the compiler first, which takes seconds.)"""

    class Held(torch.overrides.TorchFunctionMode):
        peak, held = 0, ()

        def __torch_function__(self, function, types, args=(), kwargs=None):
            answer = function(*args, **(kwargs or {}))
            results = found(answer, torch.Tensor)
            if results:
                self.held = [(ref, key, size) for ref, key, size in self.held if ref() is not None]
                stored = ((tensor, tensor.untyped_storage()) for tensor in results)
                self.held += [(weakref.ref(tensor), memory.data_ptr(), memory.nbytes()) for tensor, memory in stored]
                self.peak = max(self.peak, sum({key: size for _, key, size in self.held}.values()))
            return answer

    return Held()


# ---- walking through arguments and answers ---------------------------------------------------------------------------


def walk(value, change, kind):
    """`value` with `change` applied to everything of type `kind` in it, through lists, tuples and dicts."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, (list, tuple)):
        parts = [walk(v, change, kind) for v in value]
        return parts if isinstance(value, list) else tuple(parts)  # a named tuple would take its parts one by one
    if isinstance(value, dict):
        return {name: walk(v, change, kind) for name, v in value.items()}
    return value


def found(value, kind):
    """Everything of type `kind` in `value`, in order."""
    inside = []
    walk(value, lambda v: (inside.append(v), v)[1], kind)
    return inside
