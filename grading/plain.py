"""Which statements of a learner's are plain: arithmetic, functions and classes on what mathematics needs.

Some exercises ask for more than right numbers: little memory, a compiled loop, a kernel of Triton, a module. What is
looked at for that stands in the process of the code that is looked at, which could change it: with sys, gc or getattr.
Where such an exercise is judged, statements run that cannot. The rest, pictures and magics among it, is left out.
"""

import ast
import functools
import importlib
import types

MODULES = (
    "numpy",
    "numpy.linalg",
    "numpy.random",
    "numpy.fft",
    "torch",
    "torch.nn",
    "torch.nn.functional",
    "torch.nn.parameter",
    "torch.nn.init",
    "torch.autograd",
    "numba",
    "triton",
    "triton.language",
    "math",
    "cmath",
    "itertools",
    "functools",
    "collections",
    "collections.abc",
    "numbers",
    "typing",
    "statistics",
    "fractions",
    "copy",
    "warnings",
    "dataclasses",
    "normlab.check",
    "normlab.predict",
)
# Names that lead to everything else, or out of the process.
NAMES = {
    *("eval", "exec", "compile", "open", "input", "globals", "locals", "vars", "dir", "getattr", "setattr", "delattr"),
    *("breakpoint", "get_ipython", "memoryview", "help", "exit", "quit"),
}
ATTRIBUTES = {
    *("gi_frame", "gi_code", "cr_frame", "cr_code", "ag_frame", "ag_code", "tb_frame", "tb_next", "func_globals"),
    *("f_back", "f_builtins", "f_code", "f_globals", "f_locals", "f_trace", "ctypes", "tofile", "dump", "dumps"),
}
# Of modules: what reads and writes files, runs text, or reaches any address.
FUNCTIONS = {
    *("load", "save", "savez", "savez_compressed", "fromfile", "memmap", "loadtxt", "savetxt", "genfromtxt", "compile"),
    *("get_type_hints", "ForwardRef", "singledispatch", "singledispatchmethod", "make_dataclass"),  # eval of text
    *("DataSource", "carray", "farray", "objmode", "cfunc", "from_dlpack", "from_file", "frombuffer"),
}
_SIGNS = "add sub mul truediv floordiv mod divmod pow matmul and or xor lshift rshift".split()
METHODS = {
    *("__init__", "__call__", "__repr__", "__str__", "__iter__", "__next__", "__len__", "__getitem__", "__setitem__"),
    *("__enter__", "__exit__", "__getstate__", "__setstate__", "__deepcopy__", "__copy__", "__post_init__", "__hash__"),
    *("__neg__", "__pos__", "__abs__", "__invert__", "__float__", "__int__", "__index__", "__bool__", "__contains__"),
    *(f"__{name}__" for name in "lt le eq ne gt ge".split()),
    *(f"__{side}{name}__" for name in _SIGNS for side in ("", "r", "i")),
}


class NotPlain(Exception):
    """What a statement does that no plain one does, as a verb phrase."""


def _is_special(name):
    return name.startswith("__") and name.endswith("__")


@functools.cache
def _module(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


class _Reader(ast.NodeVisitor):
    """Errors: NotPlain."""

    def __init__(self, modules):
        self.modules = modules  # {name in the notebook: name of the module that it stands for}

    def visit_Import(self, node):
        for alias in node.names:
            if alias.name not in MODULES:
                raise NotPlain(f"imports {alias.name}")
            self.modules[alias.asname or alias.name.partition(".")[0]] = (
                alias.name if alias.asname else alias.name.partition(".")[0]
            )

    def visit_ImportFrom(self, node):
        if node.module == "__future__":
            return
        if node.level or node.module not in MODULES:
            raise NotPlain(f"imports from {node.module}")
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            if alias.name == "*" or alias.name in ATTRIBUTES | FUNCTIONS or alias.name.startswith("_"):
                raise NotPlain(f"imports {whole}")
            if isinstance(getattr(_module(node.module), alias.name, None), types.ModuleType):
                if whole not in MODULES:
                    raise NotPlain(f"imports {whole}")
                self.modules[alias.asname or alias.name] = whole

    def visit_Name(self, node):
        if node.id in NAMES or (_is_special(node.id) and node.id != "__name__"):
            raise NotPlain(f"uses {node.id}")
        if node.id in self.modules:
            # As a value it could be kept under another name.
            raise NotPlain(f"uses {node.id} as a value" if isinstance(node.ctx, ast.Load) else f"gives {node.id} away")

    def visit_Attribute(self, node):
        if node.attr in ATTRIBUTES or (_is_special(node.attr) and node.attr not in METHODS):
            raise NotPlain(f"uses .{node.attr}")
        chain = [node.attr]
        inner = node.value
        while isinstance(inner, ast.Attribute):
            chain.append(inner.attr)
            inner = inner.value
        if not (isinstance(inner, ast.Name) and inner.id in self.modules):
            self.visit(node.value)
            return
        if not isinstance(node.ctx, ast.Load):
            raise NotPlain(f"changes {inner.id}.{node.attr}")
        path = self.modules[inner.id]
        if path not in MODULES:
            raise NotPlain(f"uses {path}")
        for name in reversed(chain):
            reaches = name in FUNCTIONS and not path.startswith("triton")
            if reaches or name in ATTRIBUTES or (name.startswith("_") and name not in METHODS):
                raise NotPlain(f"uses {path}.{name}")
            value = getattr(_module(path), name, None) if path in MODULES else None
            path = f"{path}.{name}"
            if isinstance(value, types.ModuleType) and path not in MODULES:
                raise NotPlain(f"uses {path}")
        if isinstance(value, types.ModuleType):
            raise NotPlain(f"uses {path} as a value")

    def visit_FunctionDef(self, node):
        if _is_special(node.name) and node.name not in METHODS:
            raise NotPlain(f"defines {node.name}")
        if node.name in self.modules:
            raise NotPlain(f"gives {node.name} away")
        self.generic_visit(node)

    visit_ClassDef = visit_FunctionDef

    def visit_arg(self, node):
        if node.arg in self.modules:  # inside, that name is no module
            raise NotPlain(f"gives {node.arg} away")
        self.generic_visit(node)

    def visit_MatchClass(self, node):
        raise NotPlain("takes attributes by matching a class")  # of any name, in any class that claims the value

    def visit_keyword(self, node):
        if node.arg == "metaclass":
            raise NotPlain("uses a metaclass")
        self.generic_visit(node)


def imported(source):
    """{name: the module that it stands for} of an instructor's cell."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if isinstance(getattr(_module(node.module), alias.name, None), types.ModuleType):
                    found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def _bound(statement):
    """Names that a statement gives a value where it stands, and not inside of functions and classes."""
    found, waiting = set(), [statement]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif not isinstance(node, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            waiting += ast.iter_child_nodes(node)
    return found


def plain(source, modules):
    """(the plain statements of a cell, as source; {name: why the statement that gives it its value was left out, or
    None if that is plain: of several the last}).

    `modules`: the modules that names stand for; those of this cell are added.
    """
    from IPython.core.inputtransformer2 import TransformerManager

    from grading.rebuild import names_stored

    try:
        with_calls = TransformerManager().transform_cell(source)
        tree = ast.parse(with_calls)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return source, {}  # it does not run either
    kept, why_not, all_plain = [], {}, True
    for node in tree.body:
        known = dict(modules)
        try:
            _Reader(known).visit(node)
            names, reason = _bound(node), None
        except NotPlain as why:
            names, reason = _bound(node), str(why)
        except RecursionError:
            names, reason = names_stored(source), "is nested too deeply"
        why_not |= dict.fromkeys(names, reason)
        if reason is None:
            modules.update(known)
            kept.append(node)
        else:
            all_plain = False
    return (source if all_plain else "\n\n".join(ast.unparse(node) for node in kept)), why_not
