"""How Sphinx makes a site of docs/*.md: run tools/docs."""

from __future__ import annotations

import os
import re
import sys
from functools import partialmethod, reduce
from pathlib import Path
from typing import Any, get_args, get_origin

from docutils import nodes
from sphinx.domains.python import PyObject, PythonDomain
from sphinx.ext.napoleon.docstring import GoogleDocstring

DOCS = Path(__file__).resolve().parent
PROJECT = DOCS.parent
GITHUB = "https://github.com/muxframe/muxframe/blob/main"

# The reference is made from the Python twin: it is the specification, and the home of docstrings and types.
os.environ["MUXFRAME_BACKEND"] = "python"
sys.path.insert(0, str(PROJECT / "src"))
import muxframe  # noqa: E402

project = "muxframe"
author = copyright = "muxframe maintainers"
release = version = muxframe.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3  # as GitHub makes them
suppress_warnings = ["autodoc.mocked_object"]  # of other packages
highlight_language = "none"
smartquotes = False  # it makes a dash of --option

default_role = "py:obj"  # `name` in a docstring: a link where the reference has it
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_mock_imports = ["dask", "fsspec", "grpc", "pandas", "pyarrow", "websockets"]
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"muxframe {release}"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]

#: What lies outside docs and is a page of the site, by the page that includes it.
INCLUDED = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}


def lead_into_the_site(text: str, directory: Path) -> str:
    """Change links from GitHub's: to a page of the site, by its title if they name a file; else to GitHub."""

    def change(link: re.Match[str]) -> str:
        path = (directory / link[2]).resolve()
        if not path.exists():
            return link[0]  # for Sphinx to complain of
        name = path.relative_to(PROJECT).as_posix()
        page = path.name if path.parent == DOCS else INCLUDED.get(name)
        return f"{link[1] or ''}]({GITHUB}/{name}" if page is None else f"[]({page}" if link[1] else f"]({page}"

    return re.sub(r"(\[[\w./-]+\.md)?\]\(([^)#:\s]+)", change, text)


def change_links(app: Any, *event: Any) -> None:
    """Do so in a page (page, source), or in what a page includes (path, page, source)."""
    source = event[-1]
    directory = (DOCS / event[0]).parent if len(event) == 3 else DOCS
    source[0] = lead_into_the_site(source[0], directory)


def change_signature(app: Any, what: str, name: str, thing: Any, options: Any, given: str, result: str) -> Any:
    """Show no arguments where nobody is to pass them; show what a method of a generic base returns here."""
    if given and what in ("class", "exception") and "Args:\n" not in (thing.__doc__ or ""):
        return "", None
    if what == "method":
        owner = reduce(getattr, name.split(".")[1:-1], muxframe)
        for base in getattr(owner, "__orig_bases__", ()):
            for variable, meant in zip(getattr(get_origin(base), "__parameters__", ()), get_args(base)):
                text = getattr(meant, "__forward_arg__", None) or getattr(meant, "__name__", str(meant))
                result = re.sub(rf"\b{variable.__name__}\b", text, result or "")
    return given, result


def change_docstring(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Leave out what Python itself says of a tuple's fields."""
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()


class NearestPythonDomain(PythonDomain):
    """Of several things with the name that a type mentions, take that of the same package; of asyncio, for asyncio."""

    def find_obj(self, env: Any, modname: str | None, *rest: Any) -> list[tuple[str, Any]]:
        def distance(found: tuple[str, Any]) -> Any:
            name, module = found[0], modname or ""
            return (".aio" in name) != (".aio" in module), name.split(".")[1] not in module.split("."), len(name)

        return sorted(super().find_obj(env, modname, *rest), key=distance)[:1]


def sentences(docstring: GoogleDocstring) -> list[str]:
    """Read what says nothing of types."""
    return GoogleDocstring(docstring._consume_to_end(), docstring._config).lines()


def returned(docstring: GoogleDocstring, preprocess_types: bool = False) -> list[tuple[str, str, list[str]]]:
    """Read a section "Returns" likewise."""
    return [("", "", docstring._dedent(docstring._consume_to_next_section()))]


# Types are in signatures alone: a colon in a sentence is just that. And attributes may share a line, as arguments do.
GoogleDocstring._parse_attribute_docstring = sentences
GoogleDocstring._consume_returns_section = returned
GoogleDocstring._consume_fields = partialmethod(GoogleDocstring._consume_fields, multiple=True)

for field in PyObject.doc_field_types:
    if field.name == "variable":
        field.label = "Attributes"


def set_dashes(app: Any, page: nodes.document) -> None:
    """Set what stands between an argument's name and its description."""
    for text in page.findall(lambda node: isinstance(node, nodes.Text) and node == " -- "):
        text.parent.replace(text, nodes.Text(" \N{EN DASH} "))


def setup(app: Any) -> None:
    app.add_domain(NearestPythonDomain, override=True)
    app.connect("source-read", change_links)
    app.connect("include-read", change_links)
    app.connect("autodoc-process-signature", change_signature)
    app.connect("autodoc-process-docstring", change_docstring)
    app.connect("doctree-read", set_dashes)
