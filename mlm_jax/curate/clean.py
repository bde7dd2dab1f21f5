# SPDX-License-Identifier: Apache-2.0
"""Text of the web, mended: text that was decoded wrongly, composed characters, lines that are no text, and, on request, private numbers.

Lines are told by their form, in any language, as far as that goes: no letters, separators between a few short words, arrows, their place at a
page's begin or end. The words that "read more" or "comments" are in some languages are few and listed.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata

# What characters are no text: controls but line ends, half surrogate pairs, byte order marks, soft hyphens.
NO_TEXT = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\xad\ufeff\ufff9-\ufffb\ud800-\udfff]")
LINE_ENDS = re.compile("[\r\x85\u2028\u2029]")
SPACES = re.compile(r"[^\S\n ][^\S\n]*| [^\S\n]+")

# What UTF-8 looks like, decoded as a single-byte encoding: the first of a character's bytes as a letter, and the next as no letter or a rare
# one. Only what has this is looked at by ftfy, which takes its time.
SUSPECT = re.compile(
    "[\xc2-\xf4ĂĹŇ√‚├┬ΓРСГВв](?:(?<=[\xc2-\xf4ĂĹŇ])(?:[^\x00-\x7f\\w]|[ŒœŠšŽžŸƒªµºĽľŚśŞşŤťŹźŻżĄąŁł])|(?<=[√‚├┬Γ])[^\x00-\x7f]"
    "|(?<=[РСГВ])[^\x00-\x7f\u0410-\u044f]|(?<=[ÐÑ])[\x80-\xbf]|(?<=в)Ђ)"
)
# Such a character whose second or third byte was U+0085 or U+00A0, and became the line's end or the space that some take these for.
CUT = re.compile(rb"([\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]|[\xe0-\xef](?=[\n ][\x80-\xbf]))([\n ])")

# Whole lines, folded, without arrows and punctuation at their ends.
_BUTTONS = """
read more|more|continue reading|learn more|see more|show more|view more|view all|see all|click here|details|home|menu|search|share|print
|login|log in|sign in|sign up|register|subscribe|next|previous|prev|back|back to top|top|skip to content|skip to main content|skip navigation
|reply|comment|comments|contact|contact us|about us|privacy policy|terms of use|terms of service|sitemap|site map|share this|tweet|follow us
|all rights reserved|advertisement|loading|accept|accept all|close|cancel|edit|report|download|toggle navigation|table of contents
|weiterlesen|mehr|mehr lesen|mehr erfahren|mehr anzeigen|startseite|suche|suchen|anmelden|registrieren|drucken|teilen|zurück|weiter|nach oben
|zum inhalt springen|impressum|datenschutz|kontakt|kommentare|antworten|anzeige|alle rechte vorbehalten|schließen
|lire la suite|lire plus|en savoir plus|voir plus|voir tout|accueil|rechercher|recherche|connexion|s'inscrire|imprimer|partager|suivant
|précédent|retour|haut de page|aller au contenu|mentions légales|répondre|commentaires|tous droits réservés|fermer
|leer más|seguir leyendo|ver más|saber más|más información|inicio|buscar|iniciar sesión|registrarse|imprimir|compartir|siguiente|anterior
|volver|volver arriba|saltar al contenido|aviso legal|responder|comentarios|todos los derechos reservados|cerrar
|leia mais|ler mais|saiba mais|ver mais|início|entrar|partilhar|compartilhar|próximo|seguinte|voltar|comentários|todos os direitos reservados
|leggi tutto|leggi di più|continua a leggere|continua|scopri di più|cerca|accedi|registrati|stampa|condividi|avanti|indietro|torna su|commenti
|tutti i diritti riservati|lees meer|lees verder|meer|zoeken|inloggen|delen|volgende|vorige|terug|reacties|alle rechten voorbehouden
|czytaj więcej|czytaj dalej|więcej|strona główna|szukaj|zaloguj się|drukuj|udostępnij|następny|poprzedni|komentarze
|číst dál|číst více|více|domů|hledat|přihlásit|tisk|sdílet|další|předchozí|läs mer|lue lisää|etusivu|haku|kirjaudu|jaa|seuraava|edellinen
|läs vidare|les mer|læs mere|devamını oku|devamı|ana sayfa|anasayfa|ara|giriş|paylaş|yazdır|sonraki|önceki|yorumlar
|citește mai mult|mai mult|acasă|bővebben|tovább|kezdőlap|keresés|irakurri gehiago|hasiera|bilatu|gehiago|llegir més|més|inici|cerca
|читать далее|читать дальше|подробнее|далее|главная|поиск|войти|регистрация|поделиться|печать|назад|вперёд|вперед|наверх|комментарии|ответить
|читати далі|детальніше|головна|пошук|увійти|прочети още|още|начало|περισσότερα|διαβάστε περισσότερα|αρχική|αναζήτηση
|اقرأ المزيد|المزيد|الرئيسية|بحث|تسجيل الدخول|مشاركة|طباعة|التالي|السابق|ادامه مطلب|بیشتر|خانه|جستجو|ورود|מידע נוסף|קרא עוד|עוד|דף הבית|חיפוש
|और पढ़ें|आगे पढ़ें|अधिक|मुख्य पृष्ठ|खोजें|लॉग इन|साझा करें|আরও পড়ুন|আরও|মূল পাতা|மேலும்|மேலும் படிக்க|మరింత|อ่านต่อ|อ่านเพิ่มเติม|เพิ่มเติม|หน้าแรก|ค้นหา|แชร์
|xem thêm|đọc tiếp|đọc thêm|trang chủ|tìm kiếm|đăng nhập|đăng ký|chia sẻ|bình luận|អានបន្ត|អានបន្ថែម|ទំព័រដើម|ស្វែងរក
|selengkapnya|baca selengkapnya|baca juga|beranda|cari|masuk|bagikan|soma zaidi|zaidi|nyumbani|tafuta
|続きを読む|もっと見る|詳細|詳しくはこちら|ホーム|検索|ログイン|シェア|印刷|次へ|前へ|戻る|トップへ戻る|コメント
|阅读更多|阅读全文|更多|查看更多|首页|搜索|登录|注册|分享|打印|下一页|上一页|返回|返回顶部|评论|閱讀更多|首頁|搜尋|登入|分享|더 보기|더보기|자세히|홈|검색|로그인|공유|다음|이전
"""
BUTTONS = frozenset(_BUTTONS.replace("\n", "").split("|"))
# What is counted below a page: a line of a number and one of these goes.
_COUNTED = """
views view comments comment likes like shares share replies reply reads downloads votes followers min minutes aufrufe kommentare kommentar
antworten vues commentaires commentaire visitas comentarios comentario vistas visualizações comentários visualizzazioni commenti reacties
weergaven wyświetleń komentarzy komentarze komentářů visningar kommentarer kommenttia katselukertaa görüntüleme yorum просмотров просмотра
комментариев комментария комментарий переглядів коментарів مشاهدة تعليق תגובות צפיות टिप्पणियाँ lượt ครั้ง
"""
COUNTED = frozenset(_COUNTED.split())
ARROWS, BACK_ARROWS = "»›→⟶▶►▸⇒", "‹←◀◄"
QUOTED = re.compile("«[^»]+»|‹[^›]+›")
EDGES = f"{ARROWS}{BACK_ARROWS}«<>…⟨⟩ \t.:·•|-–—*#+()[]✕×↑↓"
SEPARATORS = frozenset(">»›→|•·/⟩")
BREADCRUMBS = re.compile(r"\s+[>»›→|•·/⟩]\s+")
COUNTER = re.compile(r"\(?\d[\d.,\s]{0,12}[kKmM]?\)?\s*(\w{2,20})|(\w{2,20}):?\s*\(?\d[\d.,]{0,12}\)?")
COPYRIGHT = re.compile(r"(?:copyright\b\s*)?(?:©|\(c\)|copyright\b)[^\n]{0,20}\b(?:19|20)\d\d|©", re.IGNORECASE)
COOKIES = ("cookie", "куки", "クッキー", "쿠키", "çerez", "eväste", "كوكي", "کوکی")
SENTENCE_ENDS = tuple(".!?…。！？｡।॥։؟۔។၊။:;：；\"”»')）」』")
# Scripts without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, Tai's, Javanese, Balinese, kana, Han, Yi.
UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u1b00-\u1b7f\u3040-\u30ff\u3400-\u9fff\ua000-\ua4cf\ua980-\ua9ff\uaa60-\uaadf\uf900-\ufaff]"
)
LONGEST_WORD = 60  # characters, on average, of a line that is text
EDGE = 5  # lines at a page's begin and end where notices stand
MENU_RUN = 6  # short lines in a row, at the begin or the end, that are a menu

EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[a-zA-Z]{2,24}(?![\w-])")
IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
IPV6 = re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){3,7}[0-9a-fA-F]{0,4}(?![\w:])")
# Told from other numbers by how they begin: +, a code in brackets, 0; or as North America writes them.
PHONE = re.compile(
    r"(?<![\w.,/+-])(?<!\d )(?:(?:\+|00)[1-9]\d{0,2}(?:[ .\-]?\(?\d{1,8}\)?){2,6}|\(\d{2,5}\)(?:[ .\-]?\d{2,5}){2,4}"
    r"|0\d{1,4}(?:[ .\-/]\d{2,5}){2,4}|0\d{1,4}[/-]\d{5,9}|[2-9]\d{2}[-.][2-9]\d{2}[-.]\d{4})(?![\w]|[.,/-]\d)"
)
PLACEHOLDERS = {"email": "email@example.com", "ip": "192.0.2.1", "phone": "555-0100"}


def clean(text: str, lines: bool = True, mojibake: bool = True, private: bool = False) -> tuple[str, dict[str, int]]:
    """A text, mended, in NFC, and how often each thing was done; nothing is in the counts that was not done.

    Args:
      lines: leave out lines that are no text ("lines" counts them).
      mojibake: decode lines again that were decoded wrongly, by ftfy ("mojibake").
      private: put placeholders for e-mail addresses, telephone and IP numbers ("email", "phone", "ip").

    Returns:
      The text, without white space at the begin and end of its lines and without empty lines, and counts. Others are "controls": characters
      that are no text, taken out, and "nfc": 1 where characters were composed.
    """
    counts: dict[str, int] = {}
    if (
        mojibake and not text.isascii()
    ):  # before line ends are: U+0085 is a part of characters that were decoded wrongly
        text, counts["mojibake"] = _repaired(text)
    text = LINE_ENDS.sub("\n", text)
    text, counts["controls"] = NO_TEXT.subn("", text)
    if not unicodedata.is_normalized("NFC", text):
        text, counts["nfc"] = unicodedata.normalize("NFC", text), 1
    kept = [line for line in map(str.strip, SPACES.sub(" ", text).split("\n")) if line]
    if lines:
        left = without_noise(kept)
        counts["lines"] = len(kept) - len(left)
        kept = left
    text = "\n".join(kept)
    if private:
        text, replaced = without_private(text)
        counts |= replaced
    return text, {name: count for name, count in counts.items() if count}


def _repaired(text: str) -> tuple[str, int]:
    """A text whose lines are decoded again where ftfy sees that they were decoded wrongly, and how many were."""
    if not SUSPECT.search(text):
        return text, 0
    from ftfy import fix_encoding
    from ftfy.badness import is_bad

    if (whole := _as_latin1(text)) is not None:
        return whole, text.count("\n") + 1
    lines = text.split("\n")
    mended = [fix_encoding(line) if SUSPECT.search(line) and is_bad(line) else line for line in lines]
    return "\n".join(mended), sum(new != line for new, line in zip(mended, lines, strict=True))


def _as_latin1(text: str) -> str | None:
    """A text that is UTF-8 read as Latin-1 from its begin to its end, decoded again; None where it is not.

    ftfy goes line by line, and leaves lines that were cut within a character.
    """
    try:
        data = text.encode("latin-1")
        found = CUT.sub(_uncut, data).decode(errors="replace")
    except UnicodeEncodeError:
        return None
    beyond = len(found) - len(found.encode("ascii", "ignore"))
    return found if found.count("\N{REPLACEMENT CHARACTER}") * 50 <= beyond else None


def _uncut(found: re.Match[bytes]) -> bytes:
    if found[2] == b"\n":
        return found[1] + b"\x85"
    return found[1] + (
        b"\xa0 " if found[1] == b"\xc3" else b"\xa0"
    )  # "à" is often a word's end, and its space went with it


def without_noise(lines: list[str]) -> list[str]:
    """The lines that are text: no navigation, buttons, counters, notices about cookies or rights."""
    kept = [line for line in lines if not _is_noise(line)]
    cookies = []
    if any(map("\n".join(kept).casefold().__contains__, COOKIES)):
        cookies = [i for i, line in enumerate(kept) if any(map(line[:500].casefold().__contains__, COOKIES))]
    edge = {*range(EDGE), *range(len(kept) - EDGE, len(kept))}
    if cookies and len(cookies) <= 3 and len(kept) > len(cookies):  # more of them: what the page is about
        notices = {i for i in cookies if i in edge and len(kept[i]) <= 500}
        kept = [line for i, line in enumerate(kept) if i not in notices]
    before = next((i for i, line in enumerate(kept) if not _is_short(line)), None)
    if before is None:
        return kept if len(kept) < MENU_RUN else []
    after = next(i for i, line in enumerate(reversed(kept)) if not _is_short(line))
    first = before - 1 if before > MENU_RUN else 0  # the last line before the text is its title
    return kept[first : len(kept) - after if after >= MENU_RUN else None]


def _is_noise(line: str) -> bool:
    """Whether a line, without white space around it, is none of a text, wherever it stands."""
    if len(line) > LONGEST_WORD and len(line) > LONGEST_WORD * (line.count(" ") + 1) and UNSPACED.search(line) is None:
        return True  # what menus are where their links stand without space, and data
    if len(line) > 200 or (len(line) > 80 and line.endswith(SENTENCE_ENDS)):
        return False
    if not line[0].isalpha() and not any(map(str.isalpha, line)):
        return True
    if len(line) <= 60:
        core = line.strip(EDGES)
        if core.casefold() in BUTTONS:
            return True
        if (line[-1] in ARROWS or line[0] in BACK_ARROWS) and len(core.split()) <= 4 and QUOTED.search(line) is None:
            return True
        if any(map(str.isdigit, core)) and (found := COUNTER.fullmatch(core)):
            return (found[1] or found[2]).casefold() in COUNTED
    if line[0] in "©(cC" and COPYRIGHT.match(line):
        return True
    if SEPARATORS.isdisjoint(line) or line.endswith(SENTENCE_ENDS):
        return False
    pieces = BREADCRUMBS.split(line)
    return len(pieces) >= 3 and all(len(piece) <= 30 and len(piece.split()) <= 4 for piece in pieces)


def _is_short(line: str) -> bool:
    """Whether a line may be an item of a menu."""
    if line.endswith(SENTENCE_ENDS):
        return False
    return len(line) <= (10 if UNSPACED.search(line) else 25) and line.count(" ") <= 2


def without_private(text: str) -> tuple[str, dict[str, int]]:
    """A text with placeholders for e-mail addresses, public IP numbers and telephone numbers, and how many of each there were.

    The placeholders are those that are reserved for examples (RFC 2606, RFC 5737, and the telephone numbers of fiction).
    """
    counts = dict.fromkeys(PLACEHOLDERS, 0)

    def put(name: str, found: re.Match[str], is_one: bool) -> str:
        if not is_one or found[0] == PLACEHOLDERS[name]:
            return found[0]
        counts[name] += 1
        return PLACEHOLDERS[name]

    if "@" in text:
        text = EMAIL.sub(lambda found: put("email", found, True), text)
    for pattern in (IPV4, IPV6):
        text = pattern.sub(lambda found: put("ip", found, _is_public(found[0])), text)
    text = PHONE.sub(lambda found: put("phone", found, 8 <= sum(map(str.isdigit, found[0])) <= 15), text)
    return text, {name: count for name, count in counts.items() if count}


def _is_public(number: str) -> bool:
    try:
        return ipaddress.ip_address(number).is_global
    except ValueError:
        return False
