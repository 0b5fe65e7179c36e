"""The directives `predict`, `exercise` and `explanation`."""

import hashlib
import re
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

from . import elements, runtime, source
from .elements import element

FOLD = re.compile(r"(<details>|</details>|<summary>.*?</summary>)", re.DOTALL)
RIGHT = "(*)"


class Block(SphinxDirective):
    """A directive that parses pieces of MyST in the place where it stands."""

    def parse(self, text, offset=0):
        """The nodes of the MyST `text`, which begins `offset` lines below the directive's own content."""
        holder = nodes.Element()
        self.state.nested_parse(StringList(text.splitlines(), self.env.doc2path(self.env.docname)), offset, holder)
        return holder.children

    def inline(self, text):
        """The nodes of one line of MyST."""
        found, messages = self.state.inline_text(text, self.lineno)
        return found + messages

    def parse_folds(self, text):
        """As `parse`, but <details> and <summary> in `text` become elements around parsed MyST.

        Markdown inside an HTML block would otherwise need blank lines in the right places, and mathematics in a
        summary would stay unparsed.
        """
        stack = [nodes.Element()]
        for piece in FOLD.split(text):
            if piece == "<details>":
                stack.append(element("details"))
            elif piece == "</details>":
                if len(stack) == 1:
                    raise self.error("</details> without <details>")
                fold = stack.pop()
                stack[-1] += fold
            elif piece.startswith("<summary>"):
                words = piece.removeprefix("<summary>").removesuffix("</summary>").strip()
                stack[-1] += element("summary", *self.inline(words))
            elif piece.strip():
                stack[-1] += self.parse(piece)
        if len(stack) > 1:
            raise self.error("<details> without </details>")
        for rubric in list(stack[0].findall(nodes.rubric)):
            rubric.replace_self(element("heading+2", *rubric.children, ids=rubric["ids"]))
        for head in list(stack[0].findall(nodes.thead)):
            # Markdown has no table without a head: an empty one is none.
            if not head.astext().strip():
                head.parent.remove(head)
        return stack[0].children


class Predict(Block):
    """A question with options, one of them marked (*), a line `---`, and the answer."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self):
        lines = list(self.content)
        if "---" not in lines:
            raise self.error("predict: no line `---` between the options and the answer")
        split = lines.index("---")
        options = self.options_of(lines[:split])
        right = [number for number, option in enumerate(options) if option.endswith(RIGHT)]
        if len(options) < 2 or len(right) != 1:
            raise self.error(f"predict: needs at least two options, one of them marked {RIGHT}")
        answer = "\n".join(lines[split + 1 :])
        if not answer.strip():
            raise self.error("predict: no answer below the line `---`")

        question = self.arguments[0]
        anchor = "predict-" + nodes.make_id(question)[:48].rstrip("-")
        if anchor in self.state.document.ids:
            raise self.error(f"predict: the page asks twice: {question}")
        # A choice is remembered for as long as the question and its options stay as they were.
        wording = "\n".join([question, *options])
        key = f"{self.env.docname}#{hashlib.sha256(wording.encode()).hexdigest()[:12]}"

        words = [self.inline(option.removesuffix(RIGHT).strip()) for option in options]
        block = element(
            "div",
            element("p", *self.inline(question), classes=["predict-question"]),
            element(
                "ul",
                *(element("li", element("span", *w, classes=["predict-words"])) for w in words),
                classes=["predict-options"],
            ),
            element(
                "details",
                element("summary", nodes.Text("What happens")),
                element("div", *self.parse(answer, split + 1), classes=["predict-text"]),
                classes=["predict-answer"],
            ),
            ids=[anchor],
            classes=["predict"],
            **{"data-key": key, "data-right": str(right[0])},
        )
        self.state.document.note_explicit_target(block)
        return [block]

    def options_of(self, lines):
        """The texts of a Markdown list; a line that begins no item goes on with the one before."""
        options = []
        for line in lines:
            if line.startswith("- "):
                options.append(line[2:].strip())
            elif line.strip() and options:
                options[-1] += " " + line.strip()
            elif line.strip():
                raise self.error(f"predict: expected a list of options, found: {line}")
        return options


class ExerciseBlock(Block):
    """One exercise of the page's own solutions file: everything but the solution."""

    required_arguments = 1

    def run(self):
        name = self.arguments[0]
        stem = Path(self.env.docname).name
        path = f"solutions/{stem}/{stem}.py"
        notebook = f"exercises/{stem}/{stem}.ipynb"
        for dependency in (path, notebook, "nbgrader_config.py"):
            self.env.note_dependency(dependency)

        root = Path(self.env.srcdir)
        if not (root / path).is_file():
            raise self.error(f"exercise {name}: there is no {path}")
        try:
            exercises = source.read_exercises(root / path, source.code_stub(root))
        except ValueError as error:
            raise self.error(str(error)) from error
        if name not in exercises:
            raise self.error(f"exercise {name}: {path} has no such exercise; it has {', '.join(exercises)}")
        exercise = exercises[name]

        block = element(
            "section",
            self.title(exercise),
            *self.parse_folds(exercise.about),
            self.code(exercise.stub),
            self.how_to_check(exercise, path, notebook if (root / notebook).is_file() else None),
            *self.parse_folds(exercise.hints),
            element(
                "details",
                element("summary", nodes.Text("After you have passed")),
                *self.parse_folds(exercise.after),
                classes=["exercise-after"],
            ),
            ids=[f"exercise-{name}"],
            classes=["exercise"],
            **{"aria-labelledby": f"exercise-{name}-title"},
            **runtime.attributes(name, stem, exercise.parts),
        )
        self.note_label(block, exercise)
        runtime.note(self.env, exercise, stem)
        return [block]

    def title(self, exercise):
        points = sum(points for _, points in exercise.parts)
        heading = element(
            "heading+1",
            element("span", nodes.Text("Exercise"), classes=["exercise-kind"]),
            nodes.Text(" "),
            *self.inline(exercise.title),
            ids=[f"exercise-{exercise.name}-title"],
        )
        shares = ", ".join(f"{part} {points}" for part, points in exercise.parts)
        worth = element("p", nodes.Text(f"{points} points: {shares}"), classes=["exercise-points"])
        return element("div", heading, worth, classes=["exercise-head"])

    def code(self, text, language="python"):
        return nodes.literal_block(text, text, language=language)

    def how_to_check(self, exercise, path, notebook):
        """Where to write the function, and the two ways to have it checked."""
        name, file = exercise.name, Path(path).name
        where = [nodes.Text("the exercise notebook")]
        if notebook is not None:
            target = {"refdoc": self.env.docname, "reftarget": f"/{notebook}", "refexplicit": True}
            link = addnodes.download_reference("", "", nodes.literal("", Path(notebook).name), **target)
            where += [nodes.Text(" "), link]
        return element(
            "div",
            element("p", nodes.Text("Run the check cells in "), *where, nodes.Text(", or in any notebook of yours:")),
            self.code(f'from normlab.check import check\ncheck({name}, "{name}")'),
            element("p", nodes.Text("From a terminal, with the function in a file of your own:")),
            self.code(f"python -m normlab.check {name} {file}", "shell"),
            classes=["exercise-check"],
        )

    def note_label(self, block, exercise):
        """Make `exercise-<name>` a target of {ref}, and refuse a second exercise of that name."""
        label = f"exercise-{exercise.name}"
        domain = self.env.get_domain("std")
        if label in domain.labels:
            raise self.error(f"exercise {exercise.name} stands already on the page {domain.labels[label][0]}")
        self.state.document.note_explicit_target(block)
        domain.anonlabels[label] = self.env.docname, label
        domain.labels[label] = self.env.docname, label, exercise.title


class ExplanationBlock(Block):
    """The explanation that the notebook of a chapter asks for: question, model answer, rubric."""

    required_arguments = 1

    def run(self):
        path = f"solutions/{self.arguments[0]}/{self.arguments[0]}.py"
        self.env.note_dependency(path)
        if not (Path(self.env.srcdir) / path).is_file():
            raise self.error(f"explanation {self.arguments[0]}: there is no {path}")
        try:
            explanation = source.read_explanation(Path(self.env.srcdir) / path)
        except ValueError as error:
            raise self.error(str(error)) from error
        folds = (("A model answer", explanation.answer), (f"Rubric, {explanation.points} points", explanation.rubric))
        return [
            element(
                "div",
                nodes.paragraph("", "", *self.inline(f"{{doc}}`{self.arguments[0]}`"), classes=["explanation-of"]),
                *self.parse(explanation.question),
                *(
                    element("details", element("summary", nodes.Text(summary)), *self.parse(text))
                    for summary, text in folds
                ),
                classes=["explanation"],
            )
        ]


def setup(app):
    elements.setup(app)
    app.add_directive("predict", Predict)
    app.add_directive("exercise", ExerciseBlock)
    app.add_directive("explanation", ExplanationBlock)
