"""A search that knows mathematics: `γ`, `gamma` and a formula's \\gamma are one word to it."""

import re

from sphinx.search.en import SearchEnglish

NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu "
    "nu xi omicron pi rho sigma tau upsilon phi chi psi omega"
).split()
LETTERS = dict(zip(NAMES, "αβγδεζηθικλμνξοπρστυφχψω", strict=True))
SPOKEN = {letter: name for name, letter in LETTERS.items()} | {"ϵ": "epsilon", "ϕ": "phi"}
# As TeX and code write them: \gamma_c, \varepsilon, gamma_hat.
NAME = re.compile(rf"(?<![A-Za-z])(?:var)?({'|'.join(NAMES)})(?![A-Za-z])", re.IGNORECASE)


class Search(SearchEnglish):
    """English, with the letter and the name for each Greek letter that is written or named."""

    def split(self, input):
        named = {name.lower() for name in NAME.findall(input)}
        named |= {SPOKEN[letter] for letter in input if letter in SPOKEN}
        return [*super().split(input), *sorted(named), *(LETTERS[name] for name in sorted(named))]


def setup(app):
    app.add_search_language(Search)
