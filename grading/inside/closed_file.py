"""In place of a file of an installed package that computes what exercises ask for: its functions refuse."""


def _refuse(*args, **kwargs):
    from normlab.guard import Stop

    raise Stop("calls scipy.special: this exercise is to write it, with NumPy")


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return _refuse
