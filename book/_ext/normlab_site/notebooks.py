"""Chapters as notebooks, with their results, and all notebooks as one archive.

A page is written in MyST, of which Jupyter knows the Markdown alone. What the page says with roles and directives is
said here in plain Markdown, numbers that the text takes from the code among it. Solutions stay at home.
"""

import ast
import copy
import json
import re
import zipfile
from pathlib import Path

import nbformat
from jupyter_cache import get_cache

# Chapters that read the solutions: without these they do not run.
NEED_SOLUTIONS = ("book/capstone", "book/instructors")
FOLDER = "notebooks"
ARCHIVE = "sum-to-zero-sum-to-one.zip"
# What chapters import and read, what exercises are checked with, and what pip needs to install that.
BESIDE = ("book/*.py", "book/*.json", "book/cuda_cpp/*.*", "exercises/*/*.ipynb", "normlab/**/*.py", "normlab/*.toml")
PROJECT = ("pyproject.toml", "README.md", "LICENSE")
# Dates of files in the archive: the same text gives the same bytes.
EPOCH = (1980, 1, 1, 0, 0, 0)

HOW = """\
Sum to Zero, Sum to One: all notebooks

book/       the chapters, with the results they had when the site was built
exercises/  the exercises: a specification, a hole, and checks that say what is wrong
normlab/    the package that checks

With Python 3.11 or newer, in this folder:

    python3 -m venv .venv
    . .venv/bin/activate
    pip install ".[learn]" scipy scikit-learn
    jupyter lab

The chapters about kernels need more: pip install ".[cpu]", on Linux with an NVIDIA GPU ".[cuda]".
"""
NEEDS = """\
*A chapter of {title}, as a notebook. To run it, keep it in the folder `book` of the archive of all notebooks, beside \
`figures.py`; the archive says what to install.*
"""

GLUE_IMPORT = "from myst_nb import glue"
GLUE = """\
def glue(name, value, display=False):
    'Keeps a value for the text of the page, where it stands filled in.'"""

ROLE = re.compile(r"\{([a-z:-]+)\}`([^`]+)`")
EXPLICIT = re.compile(r"(.*?)\s*<([^<>]+)>", re.DOTALL)
FENCE = re.compile(r"^(?P<fence>`{3,}|:{3,})\{(?P<name>[a-z:-]+)\} *(?P<argument>.*)$")
OPTION = re.compile(r"^:[a-z-]+:")
LABEL = re.compile(r"^\([\w-]+\)=\s*$")


class Plain:
    """MyST of one page to Markdown; `values` are the page's glued ones, `title_of` maps a page to its title."""

    def __init__(self, stem, values, title_of):
        self.stem, self.values, self.title_of = stem, values, title_of

    def markdown(self, text):
        return ROLE.sub(self.role, "\n".join(self.blocks(text.splitlines())))

    def role(self, found):
        kind, content = found.groups()
        explicit = EXPLICIT.fullmatch(content)
        words, target = explicit.groups() if explicit else (None, content)
        if kind == "glue:text":
            return self.value(content)
        if kind == "doc":
            return f"[{words or self.title_of(target)}]({target}.ipynb)"
        if kind.startswith("cite"):
            return f"[{target}]"
        if kind == "eq":
            return f"(*{target}*)"
        return words or target

    def value(self, asked):
        """A glued value in the format that is asked for, as myst-nb shows it."""
        name, _, form = asked.partition(":")
        shown = self.values[name]
        try:
            return format(ast.literal_eval(shown), form)
        except (ValueError, SyntaxError):
            return shown

    def blocks(self, lines):
        """The lines, directives among them said in Markdown."""
        lines = iter(lines)
        for line in lines:
            opening = FENCE.match(line)
            if LABEL.match(line):
                continue
            if not opening:
                yield line
                continue
            inside = []
            for line in lines:
                if line.rstrip() == opening["fence"]:
                    break
                inside.append(line)
            while inside and OPTION.match(inside[0]):
                inside.pop(0)
            yield from self.directive(opening["name"], opening["argument"].strip(), inside)

    def directive(self, name, argument, inside):
        if name == "predict":
            split = inside.index("---")
            yield f"**Predict.** {argument}"
            yield ""
            yield from (line.removesuffix("(*)").rstrip() for line in inside[:split])
            yield from ("", "<details><summary>What happens</summary>", "")
            yield from self.blocks(inside[split + 1 :])
            yield from ("", "</details>")
        elif name == "math":
            yield from ("$$", *inside, "$$")
        elif name == "exercise":
            path = f"../exercises/{self.stem}/{self.stem}.ipynb"
            yield f"**Exercise** `{argument}`: [exercises/{self.stem}/{self.stem}.ipynb]({path})"
        elif name == "inventory":
            path = "exercises/inventory/inventory.ipynb"
            yield f"The questions stand in [{path}](../{path})."
        elif name == "dropdown":
            yield from (f"<details><summary>{argument}</summary>", "", *self.blocks(inside), "", "</details>")
        elif name == "button-ref":
            yield f"**[{' '.join(inside)}]({argument}.ipynb)**"
        elif name in ("literalinclude", "image"):
            yield f"See `{argument}`."
        elif name != "bibliography":
            # A box or a column: its title, then what it holds.
            if argument and name != "container" and not argument[0].isdigit():
                yield from (f"**{argument}**", "")
            yield from self.blocks(inside)


def with_results(app, docname):
    """The page as a notebook with the results of its cells; None where it has no cells."""
    path = Path(app.outdir).parent / "jupyter_execute" / f"{docname}.ipynb"
    if not path.is_file():
        return None
    notebook = nbformat.read(path, as_version=4)
    if app.config.nb_execution_mode == "cache" and not any(cell.get("outputs") for cell in notebook.cells):
        cache = get_cache(app.config.nb_execution_cache_path)
        try:
            _, notebook = cache.merge_match_into_notebook(notebook)
        except KeyError:
            return None
    return notebook


def plain(app, docname, notebook):
    """What a reader downloads of the page."""
    notebook = copy.deepcopy(notebook)
    path = Path(app.outdir).parent / "jupyter_execute" / f"{docname}.glue.json"
    glued = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    values = {name: output["data"].get("text/plain", "") for name, output in glued.items()}
    stem = Path(docname).name
    folder = docname.removesuffix(stem)

    def title_of(target):
        return app.env.titles[folder + target].astext()

    says = Plain(stem, values, title_of)
    notebook.metadata = nbformat.from_dict({"kernelspec": notebook.metadata["kernelspec"]})
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = says.markdown(cell.source)
        elif cell.cell_type == "code":
            cell.source = cell.source.replace(GLUE_IMPORT, GLUE)
            # A value that was kept for the text has no place of its own.
            cell.outputs = [output for output in cell.outputs if "scrapbook" not in output.get("metadata", {})]
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell(NEEDS.format(title=app.config.project)))
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{stem}-{number}"
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return nbformat.writes(notebook) + "\n"


def offered(app):
    """The pages that can be had as notebooks."""
    folder = Path(app.outdir).parent / "jupyter_execute"
    names = (name for name in sorted(app.env.found_docs) if name not in NEED_SOLUTIONS)
    return [name for name in names if (folder / f"{name}.ipynb").is_file()]


def write(app, exception):
    """Write the chapters and the archive to the site."""
    if exception or app.builder.name not in ("html", "dirhtml"):
        return
    root, folder = Path(app.srcdir), Path(app.outdir) / FOLDER
    folder.mkdir(exist_ok=True)
    chapters = {}
    for docname in offered(app):
        notebook = with_results(app, docname)
        if notebook is not None:
            chapters[f"{docname}.ipynb"] = plain(app, docname, notebook).encode()
    for name, content in chapters.items():
        (folder / Path(name).name).write_bytes(content)

    beside = sorted(path for pattern in BESIDE for path in root.glob(pattern))
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in beside}
    files |= {name: (root / name).read_bytes() for name in PROJECT if (root / name).is_file()}
    files |= {**chapters, "START-HERE.txt": HOW.encode()}
    with zipfile.ZipFile(folder / ARCHIVE, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(
                zipfile.ZipInfo(f"{ARCHIVE.removesuffix('.zip')}/{name}", EPOCH), files[name], zipfile.ZIP_DEFLATED
            )


def setup(app):
    app.connect("build-finished", write)
