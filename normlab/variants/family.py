"""What a family of variants is, and what follows from its switches: names, known mistakes, the text of the exercise.

A family belongs to one exercise of the course. It has a few switches, each a convention that could have been another
one; the first choice of each is the course's own. A variant makes another choice for two switches at least, so that an
answer copied from the course fails for a reason that can be named.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from normlab.drive import found
from normlab.frame import Exercise, Mistake, in_float64, with_switches

FEWEST_CHANGES = 2
STEM = "variants"
POINTS = {"values": 12, "numerics": 5, "edges": 3}


@dataclass(frozen=True)
class Choice:
    """One convention. `slug` names it in a variant's name; `words` ("eps under the root") complete "with ..."; `does`
    ("adds eps under the root") completes "yours ..."; `rule` is a clause that can stand alone. `parts` are the pieces
    of formulas and of code that the family's text asks for."""

    slug: str
    words: str
    does: str
    rule: str
    parts: dict = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Switch:
    """`name` is the keyword by which the family's functions take the slug of a choice; `choices[0]` is the course's."""

    name: str
    choices: tuple


@dataclass(frozen=True)
class Fault:
    """A mistake that has nothing to do with the conventions: the right function with `switches` thrown; each of `more`
    makes the same mistake in another way. `wrap` changes the whole function instead."""

    slug: str
    sentence: str
    switches: dict = field(default_factory=dict)
    more: tuple = ()
    wrap: Callable | None = None
    noisy: bool = False
    trace: Callable | None = None


@dataclass(frozen=True)
class Family:
    """The variants of the exercise `original`. `conventions` below is {name of a switch: slug of a choice}.

    right(*args, **conventions, **faults)        NumPy, in the dtype of its arrays
    torch_truth(torch, *args, **conventions)     the same from PyTorch's own pieces
    signature_of(conventions)                    a function with the signature to write
    cases(conventions)                           made of the original's where they still tell
    faults(conventions)                          yields Fault
    expect                                       completes "On {kind of input}, ..."; the conventions are added to it
    text(parts)                                  of {name of a switch: its choice}, as `Variant.parts` is: {"task", "table", "formula", "details", "docstring", "code", "hints",
                                                 "after"}
    example(conventions)                         (args, kwargs, why): a call small enough to check by head
    returns(conventions)                         as of Exercise
    """

    original: Exercise
    switches: tuple
    right: Callable
    torch_truth: Callable
    signature_of: Callable
    cases: Callable
    faults: Callable
    expect: str
    text: Callable
    example: Callable
    returns: Callable = lambda conventions: "array"

    @property
    def name(self):
        return self.original.name

    @property
    def function(self):
        return f"{self.name}_variant"

    @cached_property
    def variants(self):
        """{slug: Variant} of all choices that differ from the course's in FEWEST_CHANGES switches or more."""
        chosen = itertools.product(*(switch.choices for switch in self.switches))
        made = [Variant(self, choices) for choices in chosen]
        return {v.slug: v for v in made if len(v.changed) >= FEWEST_CHANGES}


def _listed(phrases):
    """ "a, b and c"."""
    *first, last = phrases
    return f"{', '.join(first)} and {last}" if first else last


def cells(text, **markers):
    """One cell of a source in the percent format."""
    marks = " ".join(
        f'{name}="{value}"' if isinstance(value, str) else f"{name}={value}" for name, value in markers.items()
    )
    return f"# %% {marks}".rstrip() + f"\n{text}\n"


def markdown(text, **markers):
    lines = "\n".join(f"# {line}".rstrip() for line in text.strip().split("\n"))
    return cells(lines, **markers).replace("# %%", "# %% [markdown]", 1)


def shown(value):
    """A value as the text shows it: arrays as lists, numbers with three decimals at most."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, tuple):  # of numbers, where 2 and 2.0 are not the same, or of arrays
        inside = [repr(round(v, 3)) if isinstance(v, float) else shown(v) for v in value]
        return f"({', '.join(inside)}{',' if len(value) == 1 else ''})"
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, float):
        return f"{round(value, 3) + 0.0:g}"  # + 0.0: no minus zero
    return repr(value)


@dataclass(frozen=True)
class Variant:
    """One variant: a choice for each switch of its family."""

    family: Family
    choices: tuple

    @cached_property
    def changed(self):
        """(the switch, the course's choice, this variant's) where the two differ."""
        pairs = zip(self.family.switches, self.choices, strict=True)
        return [(switch, switch.choices[0], choice) for switch, choice in pairs if choice is not switch.choices[0]]

    @property
    def slug(self):
        return "-".join(choice.slug for _, _, choice in self.changed)

    @property
    def name(self):
        return f"{self.family.function}:{self.slug}"

    @property
    def conventions(self):
        return {switch.name: choice.slug for switch, choice in zip(self.family.switches, self.choices, strict=True)}

    @property
    def parts(self):
        """{name of a switch: its choice}, for texts."""
        return {switch.name: choice for switch, choice in zip(self.family.switches, self.choices, strict=True)}

    @property
    def statement(self):
        """What is asked for, in one sentence."""
        return f"{self.family.name} with {self.words}"

    @property
    def words(self):
        return _listed([choice.words for _, _, choice in self.changed])

    @cached_property
    def exercise(self):
        family, conventions = self.family, self.conventions
        return Exercise(
            name=self.name,
            stem=STEM,
            expect=f"{family.expect}, with {self.words}",
            signature_of=family.signature_of(conventions),
            torch_truth=with_switches(family.torch_truth, **conventions),
            numpy_truth=with_switches(family.right, **conventions),
            # Which conventions are asked for is said in every refusal.
            cases=tuple(
                replace(case, expect=case.expect and f"{case.expect} (with {self.words})")
                for case in family.cases(conventions)
            ),
            returns=family.returns(conventions),
            mistakes=tuple(self._mistakes()),
        )

    # ---- known mistakes ----------------------------------------------------------------------------------------------

    def _mistakes(self):
        family, conventions = self.family, self.conventions
        own = {switch.name: switch.choices[0].slug for switch in family.switches}
        yield Mistake(
            "public-answer",
            f"is the course's own {family.name}, with {_listed([before.words for _, before, _ in self.changed])}",
            with_switches(family.right, **own),
        )
        for switch, chosen in zip(family.switches, self.choices, strict=True):
            for choice in switch.choices:
                if choice is chosen:
                    continue
                as_there = f", as the course's own {family.name} does" if choice is switch.choices[0] else ""
                yield Mistake(
                    choice.slug,
                    f"{choice.does}{as_there}: here {chosen.rule}",
                    with_switches(family.right, **(conventions | {switch.name: choice.slug})),
                )
        right = with_switches(family.right, **conventions)
        for fault in family.faults(conventions):
            wrongs = [with_switches(family.right, **(conventions | s)) for s in (fault.switches, *fault.more)]
            if fault.wrap:
                wrongs = [fault.wrap(right)]
            yield Mistake(fault.slug, fault.sentence, wrongs[0], tuple(wrongs[1:]), fault.noisy, fault.trace)

    # ---- the text ----------------------------------------------------------------------------------------------------

    @property
    def example(self):
        """(call, answer, why) of the worked example, as text."""
        args, kwargs, why = self.family.example(self.conventions)
        answer = self.exercise.numpy_truth(*args, **kwargs)
        given = [shown(arg) for arg in args] + [f"{name}={shown(value)}" for name, value in kwargs.items()]
        if isinstance(answer, np.generic):
            answer = answer.item()
        return f"{self.family.function}({', '.join(given)})", shown(answer), why

    @property
    def source(self):
        """The exercise's cells in the percent format, as those of solutions/<stem>/<stem>.py."""
        family, name, text = self.family, self.family.function, self.family.text(self.parts)
        call, answer, why = self.example
        same = [
            choice.rule for _, choice in self.parts.items() if choice not in [after for _, _, after in self.changed]
        ]
        rules = ";\n".join(
            f"- **{after.rule}**, where the course has {before.words}" for _, before, after in self.changed
        )
        about = [
            f"## {name}",
            text["task"],
            f"This is `{family.name}` with other conventions than the course's own:",
            f"{rules}.",
            f"Everything else is as you know it{': ' + _listed(same) if same else ''}. {text['details']}".strip(),
            f"`{self.exercise.signature}`",
            text["table"].strip(),
            text["formula"],
            f"An example to check by head: `{call}` gives `{answer}`. {why}",
        ]
        nested = "\n\n".join(
            f"<details><summary>Hint {number}</summary>\n\n{hint.strip()}"
            for number, hint in enumerate(text["hints"], 1)
        )
        signature = self.exercise.signature.removeprefix(name)
        body = "\n".join(f"    {line}".rstrip() for line in text["code"].strip("\n").split("\n"))
        solution = (
            f'def {name}{signature}:\n    """{text["docstring"]}"""\n'
            f"    ### BEGIN SOLUTION\n{body}\n    ### END SOLUTION\n"
        )
        return "\n".join(
            [
                markdown("\n\n".join(piece for piece in about if piece), about=name),
                cells(solution, solution=name),
                *(
                    cells(f'check({name}, "{self.name}", part="{part}")', check=name, part=part, points=points)
                    for part, points in POINTS.items()
                ),
                markdown(f"{nested}\n\n</details></details></details>", hints=name),
                markdown(text["after"], after=name),
            ]
        )


# ---- what families share ---------------------------------------------------------------------------------------------


def mutating(right):
    """`right`, writing into its first array before it returns."""

    def wrong(*args, **kwargs):
        answer = right(*args, **kwargs)
        first = found(args, np.ndarray)[0]
        if first.size:
            first[...] = first + first.dtype.type(1) if first.dtype.kind != "f" else np.where(first == 0, 1, -first)
        return answer

    return wrong


HALF_SQUARES = Fault(
    "half-statistics",
    "computes in float16, where squares overflow: compute in float32 and cast once at the end",
    {"dtypes": {"half": True}},
    noisy=True,
)
NARROW = Fault(
    "float32-arithmetic",
    "computes float64 input in float32: keep the arithmetic as wide as the input",
    {"dtypes": {"narrow": True}},
    noisy=True,
)
MUTATES = Fault("mutates-input", "changes its input: work on a copy", wrap=mutating)
ALWAYS_FLOAT64 = Fault(
    "always-float64", "returns float64 always: the answer keeps the dtype of the input", wrap=in_float64
)


def narrow_trace(*answers):
    """Whether float64 answers went through float32."""
    with np.errstate(all="ignore"):
        return all(np.array_equal(a, np.asarray(a).astype(np.float32), equal_nan=True) for a in answers)
