"""What every page carries: style and scripts from the site itself, and a cache that knows the code."""

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution
from myst_nb.core.read import create_nb_reader

EXT = Path(__file__).parent.parent
# Pages whose tables are made from other pages; they are executed each time they are read (mystnb in their first lines).
COUNTING = ("book/instructors",)
# What pages import, results that they read, and kernels that they compile.
IMPORTED = ("book/*.py", "book/*.json", "book/cuda_cpp/*.*", "normlab/**/*.py", "normlab/*.toml")
# A folded cell has its words for a name. A list of sources does not hold what that role asks for, and the role of a
# source was withdrawn. A corner of a table that says nothing heads nothing.
MENDED = {
    ' aria-label="Toggle hidden content"': "",
    ' role="list"': "",
    ' role="doc-biblioentry"': "",
    '<th class="head"><p></p></th>': "<td></td>",
}


def configure(app, config):
    """Add the extension's own files, and name the execution cache after the code."""
    config.html_static_path.append(str(EXT / "static"))
    # Before the theme's, which would win over ours.
    config.templates_path.insert(0, str(EXT / "templates"))
    config.nb_execution_cache_path = str(execution_cache(Path(app.srcdir)))


def execution_cache(root):
    """The folder of executed pages that were made by the present code.

    Pages import what IMPORTED names; the notebook cache looks at a page's own cells alone and would go on showing
    results of code that has changed.
    """
    digest = hashlib.sha256()
    for path in sorted(p for pattern in IMPORTED for p in root.glob(pattern)):
        digest.update(path.read_bytes())
    for package in ("matplotlib", "numpy", "torch"):
        digest.update(version(package).encode())
    current = root / "_build" / ".jupyter_cache" / digest.hexdigest()[:16]
    for old in current.parent.glob("*"):
        if old != current:
            shutil.rmtree(old)
    return current


def mend_roles(app, pagename, templatename, context, doctree):
    """Take out what tells a screen reader something else than what is there."""
    if "body" in context:
        for wrong, right in MENDED.items():
            context["body"] = context["body"].replace(wrong, right)


def execute_together(app, env, docnames):
    """Execute the pages that are about to be read and not in the cache yet, as many at once as there are cores.

    One page keeps one core busy, much of the time with imports. A page that fails is not kept: it is executed again
    when it is read, and that reports it.
    """
    if app.config.nb_execution_mode != "cache":
        return
    cache = get_cache(app.config.nb_execution_cache_path)
    # Long pages compute the most. They go first: at the end all cores have something to do.
    paths = sorted((Path(env.doc2path(name)) for name in docnames), key=lambda path: path.stat().st_size, reverse=True)
    waiting = [(path, notebook) for path in paths if (notebook := read(env, path)) and not kept(cache, notebook)]

    def execute(page):
        path, notebook = page
        # In order, a kernel takes a second and a half to end, and has nothing to save.
        return single_nb_execution(
            notebook, str(path.parent), env.mystnb_config.execution_timeout, False, shutdown_kernel="immediate"
        )

    # Two on a single core as well: a kernel that starts is waited for.
    with ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool:
        for (path, notebook), result in zip(waiting, pool.map(execute, waiting), strict=True):
            if result.err is None:
                bundle = CacheBundleIn(notebook, str(path), data={"execution_seconds": result.time})
                cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def read(env, path):
    """The page as a notebook, as myst-nb will read it; None where it is plain text or says how it is executed."""
    text = path.read_text(encoding="utf-8")
    reader = create_nb_reader(str(path), env.myst_config, env.mystnb_config, text)
    notebook = reader and reader.read(text)
    return None if notebook and env.mystnb_config.metadata_key in notebook.metadata else notebook


def kept(cache, notebook):
    """Whether the cache holds the results of these cells."""
    try:
        return bool(cache.match_cache_notebook(notebook))
    except KeyError:
        return False


def reread(app, env, added, changed, removed):
    """Read the pages that count what stands in other pages again, whenever any page is read."""
    if not (added or changed or removed):
        return []
    return [page for page in COUNTING if page in env.found_docs]


def setup(app):
    app.add_css_file("site.css", priority=900)
    # Before the scripts that use it.
    app.add_js_file("dom.js", defer="defer", priority=450)
    for script in ("predict.js", "scroll.js", "inventory.js", "pictures.js"):
        app.add_js_file(script, defer="defer")
    # Late, so that what other extensions set by default does not come after.
    app.connect("config-inited", configure, priority=900)
    app.connect("env-get-outdated", reread)
    app.connect("env-before-read-docs", execute_together)
    app.connect("html-page-context", mend_roles)
