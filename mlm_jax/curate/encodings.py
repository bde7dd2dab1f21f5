# SPDX-License-Identifier: Apache-2.0
"""Bytes of the web → text, as browsers do: a byte order mark, the HTTP header, the page's own word, and then a guess.

Labels are those of the WHATWG's encoding standard, in which iso-8859-1 is windows-1252 and gb2312 is gb18030. Beyond browsers, two things that
those who label pages get wrong are seen: UTF-8 that is called a single-byte encoding, and a label under which much of the page is no text.
"""

from __future__ import annotations

import codecs
import functools
import re

HEAD = 8192  # bytes in which a page says its encoding; browsers read at least 1,024
SAMPLE = 65536  # bytes that are guessed from
BOMS = {b"\xef\xbb\xbf": "utf-8", b"\xfe\xff": "utf-16-be", b"\xff\xfe": "utf-16-le"}

# Python's codecs that hold what the standard's decoders of these names do.
AS_THE_WEB = {
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "iso8859-11": "cp874",
    "euc_jp": "euc_jis_2004",
}
# Labels that Resiliparse's table leaves out; the last three are refused by browsers, for what scripts could do with them.
OTHERS = {
    "x-mac-cyrillic": "mac_cyrillic",
    "x-mac-ukrainian": "mac_cyrillic",
    "x-user-defined": "cp1252",
    "hz-gb-2312": "hz",
    "iso-2022-kr": "iso2022_kr",
    "iso-2022-cn": "gb18030",
}

COMMENT = re.compile(rb"<!--.*?(?:-->|$)", re.DOTALL)
META = re.compile(rb"""<meta\s[^>]*?charset\s*=\s*["']?\s*([\w.:-]{2,40})""", re.IGNORECASE)
XML = re.compile(rb"""\s*<\?xml\s[^>]*?encoding\s*=\s*["']([\w.:-]{2,40})["']""")
MANY_BYTES = re.compile(rb"[\xc2-\xf4][\x80-\xbf]")  # the begin of a character of UTF-8
LEAST_UTF8 = 3  # characters of several bytes that, with none that is broken, make a page UTF-8 whatever it is called
# Of the characters that are not ASCII, the part that may be broken under the encoding that a page says.
MOST_BROKEN = 0.05


def decode(data: bytes, charset: str = "", html: bool = True) -> str:
    """The text of a page or a file; bytes that are no text in its encoding are U+FFFD. No byte order mark is left.

    Args:
      charset: what the HTTP header says, if it says one.
      html: look for the page's own word in `<meta>` or `<?xml ?>`.
    """
    return _decoded(data, encoding_of(data, charset, html))


def encoding_of(data: bytes, charset: str = "", html: bool = True) -> str:
    """The name, for Python, of the encoding that `decode` reads bytes by; arguments as there."""
    for bom, encoding in BOMS.items():
        if data.startswith(bom):
            return encoding
    said = codec(charset) or (_own_word(data) if html else "")
    if said and _fits(data, said):
        return said
    return _guess(data, html)


@functools.lru_cache(1024)
def codec(label: str) -> str:
    """Python's codec of a label, as the web means it; empty where it means none."""
    from resiliparse.parse.encoding import map_encoding_to_html5

    label = label.strip(" \t\r\n\f'\"").lower()
    if not label.isascii() or len(label) > 40:
        return ""
    name = OTHERS.get(label) or map_encoding_to_html5(label, fallback_utf8=False) or ""
    return AS_THE_WEB.get(name, name)


def _own_word(data: bytes) -> str:
    head = COMMENT.sub(b"", data[:HEAD])
    if not (found := META.search(head) or XML.match(head)):
        return ""
    name = codec(found[1].decode("ascii", "ignore"))
    return "utf-8" if name.startswith("utf-16") else name  # the word itself was read as ASCII


def _fits(data: bytes, encoding: str) -> bool:
    """Whether a page can be in the encoding that it says."""
    if data.isascii():
        return True
    if (
        encoding != "utf-8"
        and _single_byte(encoding)
        and _is_utf8(data)
        and len(MANY_BYTES.findall(data)) >= LEAST_UTF8
    ):
        return False
    return _broken(data, encoding) <= MOST_BROKEN


def _broken(data: bytes, encoding: str) -> float:
    """The part of a page's characters beyond ASCII that are none under an encoding."""
    text = _decoded(data[:SAMPLE], encoding)
    beyond = len(text) - len(text.encode("ascii", "ignore"))
    return text.count("\N{REPLACEMENT CHARACTER}") / max(beyond, 20)


def _single_byte(encoding: str) -> bool:
    return encoding.startswith(("cp125", "iso8859", "koi8", "mac", "cp866", "cp874"))


def _is_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8, the last character of which may be cut off."""
    try:
        codecs.utf_8_decode(data, "strict", False)
    except UnicodeDecodeError:
        return False
    return True


def _guess(data: bytes, html: bool) -> str:
    from resiliparse.parse.encoding import detect_encoding

    # UTF-8 with a broken byte here or there is UTF-8 still; another encoding would be broken everywhere.
    if _is_utf8(data) or _broken(data, "utf-8") <= MOST_BROKEN:
        return "utf-8"
    # The bytes beyond ASCII and their neighbours are what tells; of a page, without its tags.
    sample = re.sub(rb"<[^<>]{0,2000}>", b" ", data[: 4 * SAMPLE]) if html else data
    name = detect_encoding(sample[:SAMPLE], max_len=SAMPLE) or "utf-8"
    guessed = AS_THE_WEB.get(name, name)
    return guessed if guessed != "utf-8" else "cp1252"


def _decoded(data: bytes, encoding: str) -> str:
    text = data.decode(encoding, "replace")
    return text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
