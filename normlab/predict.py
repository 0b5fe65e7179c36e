"""compare(prediction, measured): what a learner said before, beside what was measured."""

import math
import numbers

from normlab.check import CheckFailed
from normlab.verdict import named_type


def compare(prediction, measured, options=None, close=0.1):
    """Print a prediction and the measurement beside each other; return None.

    measured: a number, True or False, or one of the `options`, a string of letters such as "abc". A number is matched
    within the share `close` of it, and within 1e-6. Errors: CheckFailed, with one sentence, if nothing was predicted,
    or something that could not be measured: a word for a number, a letter that is no option.
    """
    if prediction is None:
        raise CheckFailed("Say first what you expect: write it into the cell above, and run that cell.")
    if options is not None:
        prediction = prediction.strip().lower() if isinstance(prediction, str) else prediction
        if not (isinstance(prediction, str) and len(prediction) == 1 and prediction in options):
            raise CheckFailed(f"Choose one of the letters {', '.join(options)}: prediction = {options[0]!r}.")
        matches = prediction == measured
    elif isinstance(measured, bool):
        if not isinstance(prediction, bool):
            raise CheckFailed(f"True or False is asked for, and yours is {named_type(prediction)}.")
        matches = prediction == measured
    else:
        if isinstance(prediction, bool) or not isinstance(prediction, numbers.Real):
            raise CheckFailed(f"A number is asked for, and yours is {named_type(prediction)}.")
        alike = prediction == measured or (math.isnan(prediction) and math.isnan(measured))
        near = math.isfinite(measured) and abs(prediction - measured) <= max(close * abs(measured), 1e-6)
        matches = alike or near
        prediction, measured = f"{prediction:.4g}", f"{measured:.4g}"
    result = "Your prediction matches what happens." if matches else "Your prediction differs from what happens."
    print(f"Predicted: {prediction}. Measured: {measured}. {result}")
