"""compare: a prediction beside its measurement, and one sentence where nothing can be compared."""

import numpy as np
import pytest

from normlab.check import CheckFailed
from normlab.predict import compare

MATCHES, DIFFERS = "Your prediction matches what happens.", "Your prediction differs from what happens."
TRIED = {
    "the number itself": (1, 1.0, {}, f"Predicted: 1. Measured: 1. {MATCHES}"),
    "within a tenth": (0.54, 0.4962, {}, f"Predicted: 0.54. Measured: 0.4962. {MATCHES}"),
    "beyond a tenth": (0.55, 0.4962, {}, f"Predicted: 0.55. Measured: 0.4962. {DIFFERS}"),
    "closer asked for": (0.54, 0.4962, {"close": 0.01}, f"Predicted: 0.54. Measured: 0.4962. {DIFFERS}"),
    "rounding noise around 0": (0, -2.4e-7, {}, f"Predicted: 0. Measured: -2.4e-07. {MATCHES}"),
    "the other sign": (-0.5, 0.5, {}, f"Predicted: -0.5. Measured: 0.5. {DIFFERS}"),
    "a NumPy scalar": (np.float32(2), np.float64(2), {}, f"Predicted: 2. Measured: 2. {MATCHES}"),
    "infinity": (float("inf"), float("inf"), {}, f"Predicted: inf. Measured: inf. {MATCHES}"),
    "a finite number for infinity": (1e9, float("inf"), {}, f"Predicted: 1e+09. Measured: inf. {DIFFERS}"),
    "NaN": (float("nan"), float("nan"), {}, f"Predicted: nan. Measured: nan. {MATCHES}"),
    "a number for NaN": (0, float("nan"), {}, f"Predicted: 0. Measured: nan. {DIFFERS}"),
    "yes": (True, True, {}, f"Predicted: True. Measured: True. {MATCHES}"),
    "no": (False, True, {}, f"Predicted: False. Measured: True. {DIFFERS}"),
    "a letter": (" B", "b", {"options": "abc"}, f"Predicted: b. Measured: b. {MATCHES}"),
    "another letter": ("c", "b", {"options": "abc"}, f"Predicted: c. Measured: b. {DIFFERS}"),
}
REFUSED = {
    "nothing": (None, 1.0, {}, "Say first what you expect: write it into the cell above, and run that cell."),
    "a word": ("one", 1.0, {}, "A number is asked for, and yours is a str."),
    "a truth value": (True, 1.0, {}, "A number is asked for, and yours is a bool."),
    "an array": (np.ones(2), 1.0, {}, "A number is asked for, and yours is an array."),
    "a number for yes or no": (1, True, {}, "True or False is asked for, and yours is an int."),
    "no option": ("d", "b", {"options": "abc"}, "Choose one of the letters a, b, c: prediction = 'a'."),
    "two options": ("ab", "b", {"options": "abc"}, "Choose one of the letters a, b, c: prediction = 'a'."),
    "a number for a letter": (2, "b", {"options": "abc"}, "Choose one of the letters a, b, c: prediction = 'a'."),
}


@pytest.mark.parametrize("case", TRIED)
def test_says_whether_it_matches(case, capsys):
    prediction, measured, options, line = TRIED[case]
    assert compare(prediction, measured, **options) is None
    assert capsys.readouterr() == (line + "\n", "")


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compared_gets_one_sentence(case, capsys):
    prediction, measured, options, sentence = REFUSED[case]
    with pytest.raises(CheckFailed) as caught:
        compare(prediction, measured, **options)
    assert str(caught.value) == sentence
    assert capsys.readouterr().out == ""
