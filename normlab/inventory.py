"""The concept inventory: twenty questions before the course, the same twenty after it, scored by yourself.

In a notebook:         inventory.show(), then inventory.score(before), and weeks later inventory.score(after, before)
On the command line:   python -m normlab.inventory [--before ANSWERS]

The questions stand in inventory.toml. Nothing is stored and nothing is sent: answers are text that the caller keeps.
"""

import argparse
import hashlib
import sys
import textwrap
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("inventory.toml")
LETTERS = "abcde"
OPEN = "-"  # in place of a letter: the question was left open, which counts as not right
OPEN_TOO = "?_."  # what else people write for it


class BadAnswers(ValueError):
    """Answers that cannot be scored; `str` is one sentence that says why."""

    def _render_traceback_(self):
        # IPython shows this in place of a traceback: the learner reads the sentence and nothing else.
        return [str(self)]


@dataclass(frozen=True)
class Option:
    """One answer. `belief` is the slug of the belief it shows, None for the right one; `because` explains it."""

    letter: str
    text: str
    belief: str | None
    because: str


@dataclass(frozen=True)
class Question:
    """`section` is a heading of the chapter's page, or None. Texts are Markdown within one paragraph."""

    id: str
    chapter: str
    section: str | None
    text: str
    options: tuple[Option, ...]

    @property
    def right(self):
        """The letter of the right option."""
        return next(option.letter for option in self.options if option.belief is None)

    def option(self, letter):
        """The option of that letter, None for a question left open."""
        return next((option for option in self.options if option.letter == letter), None)


@dataclass(frozen=True)
class Inventory:
    """`chapters` and `beliefs` map a slug to a sentence. `version` changes with any word that a taker reads."""

    questions: tuple[Question, ...]
    chapters: dict[str, str]
    beliefs: dict[str, str]
    version: str


def read(path=FILE):
    """The Inventory of a file like inventory.toml. Errors: ValueError, one sentence, if the file is not like that."""
    data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    questions = tuple(_question(table, data) for table in data["questions"])
    if twice := _twice([question.id for question in questions]):
        raise ValueError(f"two questions have the id {twice}")
    wording = "\n".join(line for q in questions for line in (q.id, q.text, *(option.text for option in q.options)))
    version = hashlib.sha256(wording.encode()).hexdigest()[:8]
    return Inventory(questions, data["chapters"], data["beliefs"], version)


def _question(table, data):
    name = table["id"]
    options = tuple(_option(letter, row, name) for letter, row in zip(LETTERS, table["options"], strict=False))
    if not 3 <= len(table["options"]) <= len(LETTERS):
        raise ValueError(f"question {name} has {len(table['options'])} options, and 3 to {len(LETTERS)} are possible")
    if [option.belief for option in options].count(None) != 1:
        raise ValueError(f"question {name} is to have one option with `why`, and `belief` in all others")
    for slug in (option.belief for option in options if option.belief):
        if slug not in data["beliefs"]:
            raise ValueError(f"question {name}: there is no sentence for the belief {slug}")
    if table["chapter"] not in data["chapters"]:
        raise ValueError(f"question {name}: there is no chapter {table['chapter']}")
    return Question(name, table["chapter"], table.get("section"), table["text"], options)


def _option(letter, row, name):
    if set(row) not in ({"text", "why"}, {"text", "belief", "because"}):
        raise ValueError(f"question {name}, option {letter}: it has text and why, or text, belief and because")
    return Option(letter, row["text"], row.get("belief"), row.get("why") or row["because"])


def _twice(names):
    return next((name for name in names if names.count(name) > 1), None)


@cache
def load():
    """The Inventory that the package carries."""
    return read()


# ---- Answers and scores ----------------------------------------------------------------------------------------------


def parse(given, questions=None, name=None):
    """Answers as a tuple, one letter a question, "-" for one that was left open.

    given: a text such as "b d a - c" (spaces, commas and line ends do not count, capitals are letters too), a list of
    letters, or a dict from a question's number or id to its letter; what a dict leaves out was left open.
    Errors: BadAnswers, whose sentence begins with `name` if there is one.
    """
    questions = load().questions if questions is None else questions
    try:
        return _parsed(given, questions)
    except BadAnswers as bad:
        raise BadAnswers(f"{name}: {bad}" if name else str(bad)) from None


def _parsed(given, questions):
    if given is None or given is Ellipsis or (isinstance(given, str) and not given.strip()):
        raise BadAnswers(f"There are no answers yet: write one letter for each of the {len(questions)} questions.")
    if isinstance(given, dict):
        given = _from_dict(given, questions)
    elif isinstance(given, str):
        given = [letter for letter in given if not letter.isspace() and letter not in ",;"]
    elif not isinstance(given, list | tuple):
        raise BadAnswers(f"Answers are a text such as 'b d a', a list or a dict, not {type(given).__name__}.")
    if len(given) != len(questions):
        raise BadAnswers(
            f"There are {len(questions)} questions, and these are {len(given)} answers: "
            f"give one letter for each, and {OPEN} for one that you leave open."
        )
    return tuple(_letter(number, answer, question) for number, (answer, question) in _numbered(given, questions))


def _numbered(given, questions):
    return enumerate(zip(given, questions, strict=True), start=1)


def _letter(number, answer, question):
    """One answer as a small letter or OPEN. Errors: BadAnswers."""
    letter = OPEN if answer is None else answer.strip().lower() if isinstance(answer, str) else answer
    if letter in ("", *OPEN_TOO):
        letter = OPEN
    if letter != OPEN and letter not in (option.letter for option in question.options):
        letters = ", ".join(option.letter for option in question.options)
        raise BadAnswers(
            f"Answer {number} is {answer!r}, and question {number} has the options {letters}; "
            f"{OPEN} stands for a question left open."
        )
    return letter


def _from_dict(given, questions):
    """A dict's answers in the order of the questions. Errors: BadAnswers."""
    places = {question.id: place for place, question in enumerate(questions)}
    places |= {number: number - 1 for number in range(1, len(questions) + 1)}
    answers = [OPEN] * len(questions)
    for key, answer in given.items():
        if key not in places:
            raise BadAnswers(f"There is no question {key!r}: name it by its number, 1 to {len(questions)}, or its id.")
        answers[places[key]] = answer
    return answers


def right_of(answers, questions=None):
    """How many of parsed answers are right, an int."""
    questions = load().questions if questions is None else questions
    return sum(answer == question.right for answer, question in zip(answers, questions, strict=True))


def gain(before, after):
    """Normalized gain: of what was missing before, the share that has come.

    g = (after - before) / (1 - before); before and after are shares of right answers, 0 to 1. Negative if answers were
    lost. None if before is 1: nothing was missing. Source: hake1998.

    >>> gain(0.5, 0.75)
    0.5
    """
    if not (0 <= before <= 1 and 0 <= after <= 1):
        raise ValueError(f"gain takes shares from 0 to 1, got {before} and {after}")
    return None if before == 1 else (after - before) / (1 - before)


# ---- What is shown ---------------------------------------------------------------------------------------------------


def as_questions(inventory=None):
    """All questions with their options, Markdown."""
    questions = (inventory or load()).questions
    blocks = []
    for number, question in enumerate(questions, start=1):
        options = "\n".join(f"- **{option.letter}** {option.text}" for option in question.options)
        blocks.append(f"**{number}.** {question.text}\n\n{options}")
    return "\n\n".join(blocks)


def as_score(after, before=None, inventory=None):
    """What there is to say of answers, Markdown. Errors: BadAnswers.

    With one set of answers: the score, and the chapters that treat what was not right; no answer is given away. With
    `before` besides: both scores, the gain, and every question with its answer.
    """
    inventory = inventory or load()
    questions, given = inventory.questions, parse(after, inventory.questions, None if before is None else "after")
    count, right = len(questions), right_of(given, questions)
    if before is None:
        return _topics(right, given, inventory)
    earlier = parse(before, questions, "before")
    old = right_of(earlier, questions)
    lines = [f"Before: {_of(old, count)}. After: {_of(right, count)}. {gain_in_words(old, right, count)}"]
    for number, (question, was, now) in enumerate(zip(questions, earlier, given, strict=True), start=1):
        lines += [_verdict(number, question, was, now), *_explained(question, {was, now}, inventory)]
    return "\n\n".join(lines)


def gain_in_words(old, new, count):
    """A sentence on two counts of right answers out of `count`."""
    share = gain(old / count, new / count)
    if share is None:
        return "Nothing was missing before, so there is no gain to compute."
    if new < old:
        return f"Normalized gain: {share:.2f}: {old - new} fewer than before."
    return f"Normalized gain: {share:.2f}: {new - old} more, of the {count - old} that were missing."


def _of(right, count):
    return f"{right} of {count} right ({100 * right / count:.0f} %)"


def _topics(right, given, inventory):
    missed = [q.chapter for q, letter in zip(inventory.questions, given, strict=True) if letter != q.right]
    if not missed:
        return f"{_of(right, len(given))}. Read for the pictures, and do the exercises."
    chapters = "\n".join(f"- {inventory.chapters[stem]} (`{stem}`)" for stem in inventory.chapters if stem in missed)
    return (
        f"{_of(right, len(given))}. Which ones, and why, you will be told after the course.\n\n"
        f"The chapters with most for you:\n\n{chapters}"
    )


def _verdict(number, question, was, now):
    """One line: what was answered twice, and what is right."""
    if question.right == now:
        word = "right both times" if question.right == was else "right now"
    else:
        word = "was right before" if question.right == was else "not right yet"
    return f"**{number}. {word}** (before: {was}, after: {now}, right: {question.right}). {question.text}"


def _explained(question, chosen, inventory):
    """Markdown blocks: the right answer, then what was chosen besides."""
    right = question.option(question.right)
    yield f"**{right.letter}** {right.text} — {right.because}"
    for option in question.options:
        if option.letter in chosen and option is not right:
            yield f"**{option.letter}** {option.text} — *{inventory.beliefs[option.belief]}* {option.because}"
    place = f"Chapter `{question.chapter}`, {inventory.chapters[question.chapter]}"
    yield place + (f' Section "{question.section}".' if question.section else "")


def _display(markdown):
    """Show Markdown where a notebook runs, else print it as wrapped text."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None:
        from IPython.display import Markdown, display

        display(Markdown(markdown))
    else:
        print(_plain(markdown))


def _plain(markdown):
    """Markdown as lines of at most 88 characters, without its asterisks."""
    lines = markdown.replace("**", "").splitlines()
    return "\n".join(textwrap.fill(line, 88, subsequent_indent="  " * line.startswith("- ")) for line in lines)


def show():
    """Display the questions."""
    _display(as_questions())


def score(after, before=None):
    """Display what as_score says of the answers `after`, held against the answers `before` if there are any."""
    _display(as_score(after, before))


# ---- The command line ------------------------------------------------------------------------------------------------


def main(argv=None):
    """Ask every question in the terminal, then score. Returns the exit status: 0, or 1 if it was broken off."""
    parser = argparse.ArgumentParser(prog="python -m normlab.inventory", description=__doc__.splitlines()[0])
    parser.add_argument("--before", metavar="ANSWERS", help="the answers of the first time: this is the second")
    options = parser.parse_args(argv)
    questions = load().questions
    try:
        before = None if options.before is None else "".join(parse(options.before))
        answers = "".join(_ask(number, question) for number, question in enumerate(questions, start=1))
    except BadAnswers as bad:
        print(bad, file=sys.stderr)
        return 1
    except (EOFError, KeyboardInterrupt):
        print("\nBroken off: nothing was scored.", file=sys.stderr)
        return 1
    print("\n" + _plain(as_score(answers, before)))
    print(f"\nYour answers: {answers}\nNothing is stored: keep this line.")
    return 0


def _ask(number, question):
    """The letter that somebody types for one question; asks again until it is one."""
    print(_plain(f"\n{number}. {question.text}\n" + "\n".join(f"- {o.letter}  {o.text}" for o in question.options)))
    while True:
        try:
            return _letter(number, input(f"A letter, or {OPEN} to leave it open: "), question)
        except BadAnswers as bad:
            print(bad)


if __name__ == "__main__":
    sys.exit(main())
