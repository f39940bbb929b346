"""Whether a built site is whole: each link leads to a page and an anchor of it, and nothing is loaded from elsewhere.

python docs/check_site.py DIRECTORY
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a page links to, what it loads, and the anchors it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors = {"", "top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.anchors.add(given.get("id", ""))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in ("iframe", "img", "object", "script", "source"):
            self.loads.append(given.get("src", given.get("data", "")))
        elif tag == "link" and given.get("rel") not in ("author", "canonical", "index", "next", "prev", "search"):
            self.loads.append(given.get("href", ""))


def faults(site: Path) -> list[str]:
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    found = []
    for path, page in pages.items():
        for url in page.links + page.loads:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                if parts.scheme in ("http", "https") and not parts.netloc:
                    found.append(f"{path.name} leads to {url}, which is no address")
                if url in page.loads:
                    found.append(f"{path.name} loads {url}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                found.append(f"{path.name} leads to {url}, which is not there")
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{path.name} leads to {url}, which has no such anchor")
    for path in site.rglob("*.css"):
        if "url(http" in path.read_text(encoding="utf-8").replace('"', "").replace("'", ""):
            found.append(f"{path.name} loads something from elsewhere")
    return found if pages else [f"there are no pages in {site}"]


if __name__ == "__main__":
    sys.exit("\n".join(faults(Path(sys.argv[1]))) or 0)
