"""The shape of the source: directions of imports, sizes, names. What it says is in CONTRIBUTING.md."""

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "shmq": ROOT / "shmq",
    "shmq_daemon": ROOT / "daemon/shmq_daemon",
    "shmq_clients": ROOT / "clients/shmq_clients",
}
MAY_IMPORT = {"shmq": {"shmq"}, "shmq_daemon": {"shmq_daemon", "shmq"}, "shmq_clients": {"shmq_clients", "shmq"}}
FOLDERS = ("shmq", "daemon", "clients", "tests", "examples", "benchmarks")
FRONT_DOOR = ROOT / "shmq/__init__.py"  # imports the client when first asked for it, and only so
EMPTY_NAMES = {"manager", "utils", "util", "helpers", "helper", "common", "handler", "handlers", "misc"}
FILE_LINES_MAX, FUNCTION_LINES_MAX = 500, 60
C_FILE_LINES_MAX, C_FUNCTION_LINES_MAX = 450, 70


def module_name(path: Path) -> str:
    """Return the import name of a file of one of the packages."""
    package = next(name for name, folder in PACKAGES.items() if path.is_relative_to(folder))
    parts = [package, *path.relative_to(PACKAGES[package]).with_suffix("").parts]
    return ".".join(parts).removesuffix(".__init__")


MODULES = {module_name(path): path for folder in PACKAGES.values() for path in sorted(folder.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
PYTHON = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
C = sorted(path for folder in ("shmq/core", "tests/c") for path in (ROOT / folder).glob("*.[ch]"))


def imported_by(name: str, tree: ast.AST, without: set[ast.AST] | frozenset[ast.AST] = frozenset()) -> Iterator[str]:
    """Yield the full names that a module imports; `from a import b` is a.b where that is a module, else a."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in set(ast.walk(tree)) - without:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                yield f"{source}.{alias.name}" if f"{source}.{alias.name}" in MODULES else source


def for_types_alone(tree: ast.AST) -> set[ast.AST]:
    """Return the nodes under `if TYPE_CHECKING:`, which never run."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {inner for block in blocks for inner in ast.walk(block)}


IMPORTS = {name: set(imported_by(name, tree)) for name, tree in TREES.items()}


def test_the_shared_package_knows_neither_side_and_the_sides_do_not_know_each_other() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        if MODULES[name] != FRONT_DOOR
        for other in others
        if (top := other.partition(".")[0]) in PACKAGES and top not in MAY_IMPORT[name.partition(".")[0]]
    ]

    assert wrong == []


def test_no_module_imports_its_package_root() -> None:
    wrong = [name for name, others in IMPORTS.items() if name != (top := name.partition(".")[0]) and top in others]

    assert wrong == []


def test_imports_that_run_make_no_cycle() -> None:
    ours = {
        name: set(imported_by(name, tree, for_types_alone(tree))) & set(MODULES)
        for name, tree in TREES.items()
        if MODULES[name] != FRONT_DOOR
    }

    graphlib.TopologicalSorter(ours).prepare()


def test_imports_stand_at_the_top_of_the_file() -> None:
    functions = [
        (name, node)
        for name, tree in TREES.items()
        if MODULES[name] != FRONT_DOOR
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    wrong = [
        f"{name}:{node.lineno}"
        for name, function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]

    assert wrong == []


def test_each_module_opens_with_what_it_owns() -> None:
    assert [name for name, tree in TREES.items() if not ast.get_docstring(tree)] == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [str(path.relative_to(ROOT)) for path in [*PYTHON, *C] if path.stem in EMPTY_NAMES] == []


def test_files_can_be_read_in_one_go() -> None:
    limits = [(path, FILE_LINES_MAX) for path in PYTHON] + [(path, C_FILE_LINES_MAX) for path in C]
    lines = {path: len(path.read_text().splitlines()) for path, _ in limits}

    assert [f"{path.relative_to(ROOT)}: {lines[path]} lines" for path, limit in limits if lines[path] > limit] == []


def test_python_functions_can_be_read_in_one_go() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines"
        for path in PYTHON
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]

    assert wrong == []


def test_c_functions_can_be_read_in_one_go() -> None:
    bodies = re.compile(r"^\{$.*?^\}$", re.MULTILINE | re.DOTALL)
    wrong = [
        f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, body.start())}: {length} lines"
        for path in C
        for text in [path.read_text()]
        for body in bodies.finditer(text)
        if (length := body[0].count("\n") + 1) > C_FUNCTION_LINES_MAX
    ]

    assert wrong == []


def test_every_module_of_the_daemon_is_in_the_table_of_its_readme() -> None:
    text = (ROOT / "daemon/README.md").read_text().partition("| modules | own |")[2]
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    table = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    modules = {path.stem for path in PACKAGES["shmq_daemon"].glob("*.py")} - {"__init__"}

    assert modules == table
