# SPDX-License-Identifier: Apache-2.0
"""How much of a page's body the main text keeps, and how much of its menus, on the HTML of documentation generators; trafilatura's beside it.

    python benchmarks/main_text.py FOLDER [PAGES]        # of a generator (60)

FOLDER has a folder per Debian package of `PACKAGES` that is there: `apt-get download NAME && dpkg-deb -x NAME_*.deb FOLDER/NAME`. What the body of
a page is, is said by selectors that were written by looking at each generator's pages; nothing in the extraction knows them. Words
are counted as often as they occur: those of the body that are kept, and those of the rest that are kept beyond what the body has. A page
counts whose body has 50 words at least.
"""

from __future__ import annotations

import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlm_jax.curate.encodings import decode
from mlm_jax.curate.main_text import main_text

# Generator, package → its pages, the elements that are the body, and what in them is none of it.
PACKAGES = {
    ("Sphinx", "python3.11-doc"): ("library/*.html", "[role=main]", ".headerlink, .toctree-wrapper"),
    ("Sphinx, older", "debian-policy"): ("policy.html/*.html", "[role=main]", ".headerlink, .toctree-wrapper"),
    ("MkDocs", "mkdocs-doc"): ("html/*/*.html", "[role=main]", ".headerlink, .toctree-wrapper"),
    ("mdBook", "rust-doc"): ("html/book/*.html html/rustc/*.html html/cargo/*/*.html html/reference/*.html", "main", ".buttons"),
    ("rustdoc", "rust-doc"): ("html/std/*/*.html", "main", "nav, .src, .srclink, .collapse-toggle, .out-of-band, #copy-path"),
    ("Doxygen", "libeigen3-doc"): ("html/*.html", ".contents, .header", ".toc, .summary"),
    ("Doxygen, C++ classes", "libjsoncpp-doc"): ("*.html", ".contents, .header", ".toc, .summary"),
    ("Javadoc", "libcommons-lang3-java-doc"): ("api/org/*/*/*/*.html", "main", "nav"),
    ("DocBook", "postgresql-doc-15"): ("html/*.html", "body > div:not(.navheader):not(.navfooter)", ".toc"),
    ("DocBook in Japanese", "debian-reference-ja"): ("debian-reference/*.ja.html", "body > div:not(.navheader):not(.navfooter)", ".toc"),
    ("DocBook in German (Publican)", "debian-handbook"): ("html/de-DE/*.html", "body > div:not(#banner)", ".toc, .docnav"),
    ("DocBook in Hindi (Publican)", "debian-handbook"): ("html/hi-IN/*.html", "body > div:not(#banner)", ".toc, .docnav"),
    ("gtk-doc", "libglib2.0-doc"): ("html/glib/*.html", ".refentry, .chapter", ".toc"),
    ("gi-docgen", "fwupd-doc"): ("libfwupd/*.html", "#main", ".anchor"),
    ("Asciidoctor", "git-doc"): ("git-doc/*.html", "#content, #header", "#toc"),
    ("Texinfo", "diffutils-doc"): ("diffutils/*.html", "body", ".header, .nav-panel, .menu, .contents, .shortcontents"),
    ("Texinfo, one page", "r-doc-html"): ("manual/*.html", "body", ".header, .nav-panel, .menu, .contents, .shortcontents, .Contents_element"),
    ("Texinfo in German", "lilypond-doc-html-de"): ("Documentation/notation/*.de.html", "#main", ".header, .nav_table, #footer, .toc, .menu, .contents"),
    ("MediaWiki", "cppreference-doc-en-html"): ("html/en/*/*/*.html", "#content", ".printfooter, .catlinks, .t-navbar, .editsection, #siteSub, #contentSub, .toc"),
    ("Erlang's", "erlang-doc"): ("doc/*/*.html", "#content", ".footer, .title_link, .tocbutton"),
    ("Haddock", "libghc-html-doc"): ("html/*.html", "#content", "#table-of-contents, .link, .selflink"),
    ("RDoc", "asciidoctor-doc"): ("html/Asciidoctor/*.html html/Asciidoctor/*/*.html", "main", ".toggle-source, .method-click-advice"),
}  # fmt: skip
SHORTEST = 50  # words of a body


def words(text: str) -> Counter[str]:
    """Words, and letters of scripts that put no spaces between them."""
    unspaced = r"\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
    return Counter(re.findall(rf"[{unspaced}]|[^\W{unspaced}]+", text))


def body_and_all(page: str, body: str, without: str) -> tuple[Counter[str], Counter[str]]:
    """The words of a page's body, and of all of it."""
    from resiliparse.parse.html import HTMLTree

    # What browsers show as one word is one here: an element within a line parts nothing, others do.
    page = re.sub(
        r"</?(?:span|b|em|i|strong|code|tt|var|a|samp|font|u|kbd|sup|sub)(?:\s[^>]*)?>", lambda m: keep(m[0]), page
    )
    tree = HTMLTree.parse(re.sub(r"(?=<(?!/?x-))", " ", page))
    if tree.body is None:
        return Counter(), Counter()
    for element in tree.body.query_selector_all("script, style, noscript, template"):
        element.decompose()
    everything = words(tree.body.text)
    if without:
        for element in outermost(tree.body.query_selector_all(without)):
            element.decompose()
    return words(" ".join(element.text for element in outermost(tree.body.query_selector_all(body)))), everything


def keep(tag: str) -> str:
    """A tag within a line: a name that is not parted from its text, with the attributes that selectors ask for."""
    return re.sub(r"^<(/?)", r"<\1x-", tag)


def outermost(elements: Any) -> list[Any]:
    """Elements that are in no other of them."""
    found: list[Any] = []
    for element in elements:
        up = element.parent
        while up is not None and not any(up == other for other in found):
            up = up.parent
        if up is None:
            found.append(element)
    return found


def trafilatura(page: str) -> str:
    import trafilatura as peer

    return peer.extract(page) or ""


def main() -> None:
    """Print the table."""
    folder, most = Path(sys.argv[1]), int((sys.argv[2:] or ["60"])[0])
    sides: dict[str, Callable[[str], str]] = {"ours": main_text}
    try:
        trafilatura("<p>x")
        sides["trafilatura"] = trafilatura
    except ImportError:
        pass
    print("| generator | pages | " + " | ".join(f"{side}: body | menus | MB/s" for side in sides) + " |")
    print("| --- | --- " + "| --- | --- | --- " * len(sides) + "|")
    totals = {side: [0.0, 0.0] for side in sides}
    count = 0
    for (generator, package), (globs, body, without) in PACKAGES.items():
        paths = sorted({path for glob in globs.split() for path in (folder / package).rglob(glob)})
        random.Random(0).shuffle(paths)
        sums = {side: [0, 0, 0, 0, 0.0, 0] for side in sides}
        pages = 0
        for path in paths:
            page = decode(path.read_bytes())
            wanted, everything = body_and_all(page, body, without)
            if wanted.total() < SHORTEST:
                continue
            pages += 1
            rest = everything - wanted
            for side, function in sides.items():
                began = time.process_time()
                got = words(function(page))
                s = sums[side]
                s[4] += time.process_time() - began
                s[0] += (got & wanted).total()
                s[1] += wanted.total()
                s[2] += ((got - wanted) & rest).total()
                s[3] += rest.total()
                s[5] += len(page.encode())
            if pages == most:
                break
        if not pages:
            continue
        count += 1
        cells = []
        for side, (kept, whole, menus_kept, menus, seconds, size) in sums.items():
            share, more = kept / whole, menus_kept / max(menus, 1)
            totals[side][0] += share
            totals[side][1] += more
            cells.append(f"{share:.1%} | {more:.1%} | {size / 1e6 / seconds:.1f}")
        print(f"| {generator} | {pages} | " + " | ".join(cells) + " |", flush=True)
    print("| mean | | " + " | ".join(f"{a / count:.1%} | {b / count:.1%} | " for a, b in totals.values()) + " |")


if __name__ == "__main__":
    main()
