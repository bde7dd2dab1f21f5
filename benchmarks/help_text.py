# SPDX-License-Identifier: Apache-2.0
"""The paragraphs of an unpacked Debian package of the LibreOffice help (libreoffice-help-LANG), a line each, each once.

    apt-get download libreoffice-help-dz && dpkg-deb -x libreoffice-help-dz_*.deb dz
    python benchmarks/help_text.py dz > dz.txt

Paragraphs that are mostly of ASCII letters are left out where --own is given: those that were left in English, of a language of another script.
"""

import argparse
import html
import re
from pathlib import Path

PARAGRAPH = re.compile(r"<(p|h[1-6]|td|li)\b[^>]*>(.*?)</\1>", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--own", action="store_true")
    given = parser.parse_args()
    seen: dict[str, None] = {}
    for path in sorted(given.folder.glob("**/*.html")):
        for _, inside in PARAGRAPH.findall(path.read_text(errors="replace")):
            text = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", inside)).split())
            letters = [c for c in text if c.isalpha()]
            foreign = sum(not c.isascii() for c in letters)
            if len(text) >= 20 and not (given.own and foreign < len(letters) / 2):
                seen[text] = None
    print("\n".join(seen))


if __name__ == "__main__":
    main()
