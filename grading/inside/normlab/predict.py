"""What `from normlab.predict import compare` finds where a learner's code runs: predictions are compared elsewhere."""


def compare(prediction=None, measured=None, options=None, close=0.1):
    print("The grader compares predictions.")
