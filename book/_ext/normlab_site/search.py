"""A search that knows mathematics: `γ`, `gamma` and a formula's \\gamma are one word to it."""

import re

from sphinx.search.en import SearchEnglish

NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu "
    "nu xi omicron pi rho sigma tau upsilon phi chi psi omega"
).split()
LETTERS = dict(zip(NAMES, "αβγδεζηθικλμνξοπρστυφχψω", strict=True))
SPOKEN = {letter: name for name, letter in LETTERS.items()}
COMMAND = re.compile(r"\\(?:var)?([A-Za-z]+)")


class Search(SearchEnglish):
    """English, with the other name of each Greek letter beside it."""

    def split(self, input):
        letters = [LETTERS[name] for name in COMMAND.findall(input) if name in LETTERS]
        spoken = [SPOKEN[letter] for letter in input if letter in SPOKEN]
        return [*super().split(input), *letters, *spoken]


def setup(app):
    app.add_search_language(Search)
