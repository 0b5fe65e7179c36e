"""What `from normlab.check import check` finds where a learner's code runs: the checks are made elsewhere."""


class CheckFailed(AssertionError):
    pass


def check(candidate=None, exercise=None, part=None):
    print("The grader runs the checks.")
