"The kinds of element on pages of a site, pages that have them all between them, and links that lead nowhere."

from collections.abc import Iterable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

EMPTY = set("area base br col embed hr img input link meta source track wbr".split())
PASSED = "passed"  # what axe does not look at either
NAMING = ("alt", "title", "aria-label", "role", "tabindex", "scope", "for", "type")


class Page(HTMLParser):
    "What a page has: kinds of element, places to link to, addresses that it needs."

    def __init__(self, text: str):
        super().__init__()
        self.open: list[tuple[str, str]] = []  # tag and kind of the elements that are open
        self.kinds, self.places, self.addresses = set(), set(), []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        known = dict(attributes)
        self.places |= {known[name] for name in ("id", "name") if known.get(name)}
        self.addresses += [known[name] for name in ("href", "src") if known.get(name)]
        above, kind = self.open[-1][1] if self.open else "", kind_of(tag, known)
        if tag in ("head", "pre") or ".math" in kind or above == PASSED:
            kind = PASSED
        else:
            self.kinds.add((above, kind))
        if tag not in EMPTY:
            self.open.append((tag, kind))

    def handle_endtag(self, tag: str) -> None:
        at = next((i for i in range(len(self.open) - 1, -1, -1) if self.open[i][0] == tag), None)
        if at is not None:
            del self.open[at:]


def kind_of(tag: str, known: Mapping[str, str | None]) -> str:
    "What colours and names hang on: tag, classes, style, and which attributes there are, or are empty."
    classes = ".".join(sorted((known.get("class") or "").split()))
    naming = [f"{name}{'' if known[name] else '='}" for name in NAMING if name in known]
    return f"{tag}.{classes} {known.get('style') or ''} {' '.join(naming)}"


def read_site(site: Path) -> dict[Path, Page]:
    "Every page, the listings of whole modules and the theme's own templates apart."
    found = [p for p in sorted(site.rglob("*.html")) if p.relative_to(site).parts[0][0] != "_"]
    return {path: Page(path.read_text(encoding="utf-8")) for path in found}


def chosen(pages: Mapping[str, set], always: Iterable[str]) -> set[str]:
    "`always`, and as few other pages as it takes to have every kind that is on any page."
    found = set(always)
    missing = set().union(*pages.values()) - set().union(*(pages[name] for name in found))
    while missing:
        best = max(pages, key=lambda name: len(pages[name] & missing))
        found.add(best)
        missing -= pages[best]
    return found


def dead_ends(pages: Mapping[Path, Page]) -> list[str]:
    "Every address within the site that is not there, with the page that has it."
    return [
        f"{path.name}: {address}"
        for path, page in pages.items()
        for address in dict.fromkeys(page.addresses)
        if not leads_somewhere(path, address, pages)
    ]


def leads_somewhere(path: Path, address: str, pages: Mapping[Path, Page]) -> bool:
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return True
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target not in pages:
        return target.exists()
    return not parts.fragment or unquote(parts.fragment) in pages[target].places
