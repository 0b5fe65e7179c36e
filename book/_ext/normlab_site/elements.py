"""One docutils node for every HTML element that docutils has no node for."""

from docutils import nodes


class html_element(nodes.General, nodes.Element):
    """An HTML element around parsed content; other formats show the content alone."""


def element(tag, *children, ids=(), classes=(), **attributes):
    """`element("details", summary, *answer, classes=["a"])` is a node drawn as <details class="a">.

    The tags "heading+1" and "heading+2" become h2 to h6, one and two levels below the section around the node.
    """
    return html_element("", *children, tag=tag, ids=list(ids), classes=list(classes), html=attributes)


def visit(translator, node):
    if node["tag"].startswith("heading+"):
        node["tag"] = f"h{min(translator.section_level + int(node['tag'][-1]), 6)}"
    translator.body.append(translator.starttag(node, node["tag"], "", **node["html"]))


def depart(translator, node):
    translator.body.append(f"</{node['tag']}>\n")


def ignore(translator, node):
    pass


def setup(app):
    other = (ignore, ignore)
    app.add_node(html_element, html=(visit, depart), latex=other, text=other, man=other, texinfo=other)
