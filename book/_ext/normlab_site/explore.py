"""The directive `explore`: a picture that the reader changes, and a table for those who cannot.

    ```{explore} eps
    :title: Where normalizing stops

    Make the input smaller. What does the output's variance do?
    ```

The argument names a picture: static/explore-<name>.js draws it, stills.py holds the data that the page hands over and
computes the table. The table stands on the page until the script has drawn the picture; without JavaScript and in EPUB
it is what there is. finish.py leaves scripts and style on the pages that have a picture.
"""

from docutils import nodes
from docutils.parsers.rst import directives

from . import stills
from .blocks import Block
from .elements import element

# Said where the picture does not live.
STANDS_STILL = "The picture moves on the course\u2019s site, in a browser with JavaScript. Here are some of its states."
# With the class `measured`, a picture is covered together with the measurement until a prediction is made.
OPTIONS = {"title": directives.unchanged_required, "class": directives.class_option}


class Explore(Block):
    """A picture by name; the content says, in MyST, what to try and what to look for."""

    required_arguments = 1
    has_content = True
    option_spec = OPTIONS

    def run(self):
        name = self.arguments[0]
        if name not in stills.STILLS:
            raise self.error(f"explore: there is no picture {name}; there are {', '.join(stills.STILLS)}")
        if "title" not in self.options or not self.content:
            raise self.error(f"explore {name}: it needs a :title: and a text that says what to try")
        anchor = f"explore-{name}"
        if anchor in self.state.document.ids:
            raise self.error(f"explore: the page has the picture {name} twice")
        still = stills.STILLS[name]()
        block = element(
            "figure",
            element(
                "figcaption",
                element("p", *self.inline(self.options["title"]), classes=["explore-title"]),
                *self.parse("\n".join(self.content), self.content_offset - self.lineno + 1),
            ),
            element(
                "div",
                element("p", nodes.Text(STANDS_STILL)),
                element("div", table(still), classes=["numbers"]),
                classes=["explore-still"],
            ),
            ids=[anchor],
            classes=["explore", *self.options.get("class", ())],
            **{"data-explore": name, "data-given": still.given},
        )
        self.state.document.note_explicit_target(block)
        return [block]


def table(still):
    """The table of a Still, with heads for rows and columns."""

    def words(value):
        return nodes.Text(stills.words(value))

    heads = (
        element("th", words(head), scope="col", classes=["number"] if column else [])
        if head
        else element("td", classes=[])
        for column, head in enumerate(still.head)
    )
    rows = (
        element(
            "tr",
            element("th", words(first), scope="row"),
            *(element("td", words(value), classes=["number"]) for value in rest),
        )
        for first, *rest in still.rows
    )
    return element(
        "table",
        element("caption", nodes.Text(still.caption)),
        element("thead", element("tr", *heads)),
        element("tbody", *rows),
    )


def setup(app):
    app.add_directive("explore", Explore)
    app.add_css_file("explore.css", priority=910)
    # The first brings what the others use.
    for number, name in enumerate(("", *(f"-{name}" for name in stills.STILLS))):
        app.add_js_file(f"explore{name}.js", defer="defer", priority=600 + number)
