"""mkdocs hook: what a page links to outside docs/ comes along, so that the built site is whole without a network.

Source files become pages that show them, Markdown outside docs/ becomes pages, all else (figures, boards' pages) is
copied. Only what is linked is taken; a link to a file that is not there stops the build (`mkdocs build --strict`).
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from infosteer_bench.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?(\))")
TEXTS = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".jsonl": "json", "": "text"}
BESIDE = "repository"
"""The site's folder for what lies outside docs/."""
ASIDE = "---\nsearch: {exclude: true}\nhide: [toc]\n---\n"
"""Before a page that comes along: it is for following a link, not for being searched."""


def targets(text: str, page: str, root: Path = ROOT) -> dict[str, str]:
    """Links of a page that leave docs/ -> the files they name, both as written: link -> path from the checkout.

    page: path from the checkout. Raises UserError for a file that is not there.
    """
    found: dict[str, str] = {}
    for match in LINK.finditer(_without_code(text)):
        link = match[2]
        if re.match(r"[a-z]+:", link):
            continue
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
        if not (root / path).is_file():
            raise UserError(f"{page}: the link {link} leads to no file", allowed="paths of files from that page")
        if not path.startswith("docs/"):
            found[link] = path
    return found


def _without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def place(path: str) -> str:
    """Where a file of the checkout stands in the site's sources."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if Path(path).suffix in TEXTS:
        return f"{BESIDE}/{path}.md"
    return f"{BESIDE}/{path}"


def rewritten(text: str, page: str, root: Path = ROOT) -> str:
    """The page with its links out of docs/ led to their places in the site, and those back into docs/ likewise."""
    leaving = targets(text, page, root)
    here = posixpath.dirname(place(page)) or "."

    def replace(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), match[2]))
        returning = not page.startswith("docs/") and path.startswith("docs/")
        if match[2] not in leaving and not returning:
            return match[0]
        return f"{match[1]}{posixpath.relpath(place(path), here)}{match[3] or ''}{match[4]}"

    return LINK.sub(replace, text)


def on_files(files: Any, *, config: Any) -> Any:
    """Add every linked file; those that are Markdown bring their own links along."""
    from mkdocs.structure.files import File, InclusionLevel

    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    seen: set[str] = set()
    while waiting:
        page = waiting.pop()
        for path in targets((ROOT / page).read_text(encoding="utf-8"), page).values():
            if path in seen:
                continue
            seen.add(path)
            suffix = Path(path).suffix
            if suffix == ".md":
                text = rewritten((ROOT / path).read_text(encoding="utf-8"), path)
                waiting.append(path)
            elif suffix in TEXTS:
                text = f"# {path}\n\n```{TEXTS[suffix]}\n{(ROOT / path).read_text(encoding='utf-8')}\n```\n"
            else:
                files.append(File.generated(config, place(path), abs_src_path=str(ROOT / path)))
                continue
            files.append(File.generated(config, place(path), content=ASIDE + text, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Lead the links of pages in docs/; those beside came with theirs led already."""
    if page.file.src_uri.startswith(f"{BESIDE}/"):
        return markdown
    return rewritten(markdown, f"docs/{page.file.src_uri}")


def on_post_build(*, config: Any) -> None:
    """Every link of the finished site leads to a file of it. Raises UserError for the first that does not."""
    site = Path(config["site_dir"])
    for page in sorted(site.rglob("*.html")):
        if page.name == "404.html" or _is_copied(page, site):
            continue
        for link in re.findall(r'(?:href|src)="([^"#]+)', page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", link) and not (page.parent / unquote(link)).exists():
                raise UserError(f"site: {page.relative_to(site)} links to {link}, which is not there")


def _is_copied(page: Path, site: Path) -> bool:
    """A page that somebody else's tool wrote, a board's say."""
    beside = page.relative_to(site)
    return beside.parts[0] == BESIDE and (ROOT / beside.relative_to(BESIDE)).is_file()
