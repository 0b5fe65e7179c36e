"""The directive `inventory`: the questions of normlab/inventory.toml, their answers folded below.

Without JavaScript, and on paper, it is a list of questions and, after the last, the answers. inventory.js makes radio
buttons of the options and keeps the answers folded until the questions have been answered twice.
"""

from pathlib import Path

from docutils import nodes
from sphinx import addnodes

from normlab import inventory

from .blocks import Block
from .elements import element

NOTEBOOK = "exercises/inventory/inventory.ipynb"


class InventoryBlock(Block):
    """All questions of the inventory. It takes no argument and no content; a page has it once."""

    def run(self):
        self.env.note_dependency(str(inventory.FILE))
        self.env.note_dependency(NOTEBOOK)
        if self.state.document.ids.get("inventory") is not None:
            raise self.error("inventory: the page has it twice")
        found = inventory.read()
        numbered = list(enumerate(found.questions, start=1))
        block = element(
            "div",
            *(self.item(number, question) for number, question in numbered),
            element(
                "details",
                element("summary", nodes.Text("The answers: for after the course")),
                *(self.answer(number, question, found) for number, question in numbered),
                classes=["inventory-answers"],
            ),
            ids=["inventory"],
            classes=["inventory"],
            **{"data-version": found.version},
        )
        self.state.document.note_explicit_target(block)
        return [block, *self.notebook()]

    def item(self, number, question):
        """One question and its options; a letter stands before each option, so that it can be written down."""
        options = (
            element(
                "li",
                element(
                    "span",
                    element("span", nodes.Text(f"{option.letter} "), classes=["inventory-letter"]),
                    *self.inline(option.text),
                    classes=["inventory-words"],
                ),
                **{"data-letter": option.letter},
            )
            for option in question.options
        )
        return element(
            "div",
            element(
                "p",
                element("span", nodes.Text(f"{number}. "), classes=["inventory-number"]),
                *self.inline(question.text),
                classes=["inventory-question"],
            ),
            element("ul", *options, classes=["inventory-options"]),
            ids=[f"inventory-{question.id}"],
            classes=["inventory-item"],
            **{"data-right": question.right, "data-chapter": question.chapter},
        )

    def answer(self, number, question, found):
        """What is right, then the belief behind each other option, then where to read."""
        right = question.option(question.right)
        others = (
            element(
                "li",
                element("span", nodes.Text(f"{option.letter} "), classes=["inventory-letter"]),
                element("q", *self.inline(found.beliefs[option.belief]), classes=["inventory-belief"]),
                nodes.Text(" "),
                *self.inline(option.because),
                **{"data-letter": option.letter, "data-belief": option.belief},
            )
            for option in question.options
            if option is not right
        )
        return element(
            "div",
            element(
                "p",
                nodes.strong("", f"{number}. {right.letter} "),
                *self.inline(right.because),
                classes=["inventory-why"],
            ),
            element("ul", *others, classes=["inventory-others"]),
            element("p", nodes.Text("Where to read: "), *self.place(question, found), nodes.Text(".")),
            classes=["inventory-answer"],
            **{"data-question": question.id},
        )

    def place(self, question, found):
        """The chapter, and the section that treats the question, as links; as words while there is no such page."""
        title = found.chapters[question.chapter]
        page = f"{Path(self.env.docname).parent.as_posix()}/{question.chapter}".removeprefix("./")
        if page not in self.env.found_docs:
            return [nodes.inline("", title, classes=["inventory-chapter"])]
        address = self.env.app.builder.get_relative_uri(self.env.docname, page)
        links = [self.link(title, address, classes=["inventory-chapter"])]
        if question.section:
            anchor = nodes.make_id(question.section)
            links += [nodes.Text(", section "), self.link(question.section, f"{address}#{anchor}")]
        return links

    def link(self, words, address, **attributes):
        # Docutils wants a link inside inline text.
        return nodes.inline("", "", nodes.reference("", words, internal=True, refuri=address), **attributes)

    def notebook(self):
        """A line that offers the same questions as a notebook, if there is one."""
        if not (Path(self.env.srcdir) / NOTEBOOK).is_file():
            return []
        target = {"refdoc": self.env.docname, "reftarget": f"/{NOTEBOOK}", "refexplicit": True}
        link = addnodes.download_reference("", "", nodes.literal("", Path(NOTEBOOK).name), **target)
        return [element("p", nodes.Text("The same questions as a notebook: "), link)]


def setup(app):
    app.add_directive("inventory", InventoryBlock)
