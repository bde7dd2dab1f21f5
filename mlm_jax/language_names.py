# SPDX-License-Identifier: Apache-2.0
"""What languages are called: English names of ISO 639 codes, with the script or the region that follows them."""

from __future__ import annotations

import re
import unicodedata

# Two letters (ISO 639-1), three (639-3, or what corpora write), name.
_BOTH = """
aa aar Afar|ab abk Abkhaz|af afr Afrikaans|ak aka Akan|am amh Amharic|an arg Aragonese|ar ara Arabic|as asm Assamese|av ava Avar
ay aym Aymara|az aze Azerbaijani|ba bak Bashkir|be bel Belarusian|bg bul Bulgarian|bi bis Bislama|bm bam Bambara|bn ben Bengali
bo bod Tibetan|br bre Breton|bs bos Bosnian|ca cat Catalan|ce che Chechen|ch cha Chamorro|co cos Corsican|cr cre Cree|cs ces Czech
cu chu Church Slavonic|cv chv Chuvash|cy cym Welsh|da dan Danish|de deu German|dv div Dhivehi|dz dzo Dzongkha|ee ewe Ewe
el ell Greek|en eng English|eo epo Esperanto|es spa Spanish|et est Estonian|eu eus Basque|fa fas Persian|ff ful Fula|fi fin Finnish
fj fij Fijian|fo fao Faroese|fr fra French|fy fry West Frisian|ga gle Irish|gd gla Scottish Gaelic|gl glg Galician|gn grn Guarani
gu guj Gujarati|gv glv Manx|ha hau Hausa|he heb Hebrew|hi hin Hindi|ho hmo Hiri Motu|hr hrv Croatian|ht hat Haitian Creole
hu hun Hungarian|hy hye Armenian|hz her Herero|ia ina Interlingua|id ind Indonesian|ie ile Interlingue|ig ibo Igbo|ii iii Nuosu
ik ipk Inupiaq|io ido Ido|is isl Icelandic|it ita Italian|iu iku Inuktitut|ja jpn Japanese|jv jav Javanese|ka kat Georgian
kg kon Kongo|ki kik Kikuyu|kj kua Kwanyama|kk kaz Kazakh|kl kal Greenlandic|km khm Khmer|kn kan Kannada|ko kor Korean
kr kau Kanuri|ks kas Kashmiri|ku kur Kurdish|kv kom Komi|kw cor Cornish|ky kir Kyrgyz|la lat Latin|lb ltz Luxembourgish
lg lug Ganda|li lim Limburgish|ln lin Lingala|lo lao Lao|lt lit Lithuanian|lu lub Luba-Katanga|lv lav Latvian|mg mlg Malagasy
mh mah Marshallese|mi mri Māori|mk mkd Macedonian|ml mal Malayalam|mn mon Mongolian|mr mar Marathi|ms msa Malay|mt mlt Maltese
my mya Burmese|na nau Nauruan|nb nob Norwegian Bokmål|nd nde North Ndebele|ne nep Nepali|ng ndo Ndonga|nl nld Dutch
nn nno Norwegian Nynorsk|no nor Norwegian|nr nbl South Ndebele|nv nav Navajo|ny nya Chichewa|oc oci Occitan|oj oji Ojibwe
om orm Oromo|or ori Odia|os oss Ossetian|pa pan Punjabi|pi pli Pali|pl pol Polish|ps pus Pashto|pt por Portuguese|qu que Quechua
rm roh Romansh|rn run Rundi|ro ron Romanian|ru rus Russian|rw kin Kinyarwanda|sa san Sanskrit|sc srd Sardinian|sd snd Sindhi
se sme Northern Sámi|sg sag Sango|sh hbs Serbo-Croatian|si sin Sinhala|sk slk Slovak|sl slv Slovenian|sm smo Samoan|sn sna Shona
so som Somali|sq sqi Albanian|sr srp Serbian|ss ssw Swazi|st sot Southern Sotho|su sun Sundanese|sv swe Swedish|sw swa Swahili
ta tam Tamil|te tel Telugu|tg tgk Tajik|th tha Thai|ti tir Tigrinya|tk tuk Turkmen|tl tgl Tagalog|tn tsn Tswana|to ton Tongan
tr tur Turkish|ts tso Tsonga|tt tat Tatar|tw twi Twi|ty tah Tahitian|ug uig Uyghur|uk ukr Ukrainian|ur urd Urdu|uz uzb Uzbek
ve ven Venda|vi vie Vietnamese|vo vol Volapük|wa wln Walloon|wo wol Wolof|xh xho Xhosa|yi yid Yiddish|yo yor Yoruba|za zha Zhuang
zh zho Chinese|zu zul Zulu
"""

# Names of codes that have three letters only, or are another code of a language above.
_THREE = """
ace Acehnese|acm Mesopotamian Arabic|acq Ta'izzi-Adeni Arabic|aeb Tunisian Arabic|ajp South Levantine Arabic|alb Albanian
als Tosk Albanian|ang Old English|apc Levantine Arabic|arb Standard Arabic|arc Aramaic|arm Armenian|ars Najdi Arabic
ary Moroccan Arabic|arz Egyptian Arabic|ast Asturian|awa Awadhi|ayr Central Aymara|azb South Azerbaijani|azj North Azerbaijani
ban Balinese|baq Basque|bar Bavarian|bcl Central Bikol|bem Bemba|bho Bhojpuri|bjn Banjar|bpy Bishnupriya|brx Bodo|bug Buginese
bur Burmese|bxr Buryat|cbk Chavacano|ceb Cebuano|chi Chinese|chr Cherokee|cjk Chokwe|ckb Central Kurdish|cmn Mandarin|cop Coptic
crh Crimean Tatar|csb Kashubian|cze Czech|dik Dinka|diq Zazaki|doi Dogri|dsb Lower Sorbian|dut Dutch|dyu Dyula|ekk Estonian
eml Emilian-Romagnol|fil Filipino|fon Fon|fre French|frp Franco-Provençal|frr North Frisian|fur Friulian|fuv Nigerian Fulfulde
gan Gan Chinese|gaz West Central Oromo|geo Georgian|ger German|gom Goan Konkani|got Gothic|grc Ancient Greek|gre Greek
gsw Swiss German|hak Hakka Chinese|haw Hawaiian|hif Fiji Hindi|hne Chhattisgarhi|hsb Upper Sorbian|ice Icelandic|ilo Ilocano
jam Jamaican Creole|kab Kabyle|kac Jingpho|kam Kamba|kbd Kabardian|kbp Kabiyè|kea Kabuverdianu|khk Halh Mongolian|kmb Kimbundu
kmr Northern Kurdish|knc Central Kanuri|koi Komi-Permyak|kok Konkani|kpv Komi-Zyrian|krc Karachay-Balkar|ksh Colognian
lez Lezgian|lij Ligurian|lmo Lombard|ltg Latgalian|lua Luba-Kasai|luo Luo|lus Mizo|lvs Latvian|lzh Literary Chinese|mac Macedonian
mag Magahi|mai Maithili|mao Māori|may Malay|mdf Moksha|mhr Meadow Mari|min Minangkabau|mni Manipuri|mos Mossi|mrj Hill Mari
mwl Mirandese|myv Erzya|mzn Mazanderani|nah Nahuatl|nan Min Nan Chinese|nap Neapolitan|nds Low German|new Newar|npi Nepali
nrm Norman|nso Northern Sotho|nus Nuer|ory Odia|pag Pangasinan|pam Kapampangan|pap Papiamento|pbt Southern Pashto|pcd Picard
pcm Nigerian Pidgin|per Persian|pes Iranian Persian|plt Plateau Malagasy|pms Piedmontese|pnb Western Punjabi|prs Dari
quy Ayacucho Quechua|rom Romani|rue Rusyn|rum Romanian|rup Aromanian|sah Sakha|sat Santali|scn Sicilian|sco Scots|shn Shan
slo Slovak|sma Southern Sámi|smj Lule Sámi|smn Inari Sámi|sms Skolt Sámi|srn Sranan Tongo|stq Saterland Frisian|swh Swahili
szl Silesian|taq Tamasheq|tcy Tulu|tet Tetum|tib Tibetan|tpi Tok Pisin|tum Tumbuka|tyv Tuvan|tzm Central Atlas Tamazight
udm Udmurt|umb Umbundu|uzn Northern Uzbek|vec Venetian|vep Veps|vls West Flemish|vro Võro|war Waray|wel Welsh|wuu Wu Chinese
xal Kalmyk|xmf Mingrelian|ydd Eastern Yiddish|yue Cantonese|zea Zeelandic|zsm Standard Malay
"""

_SCRIPTS = """
Arab Arabic|Armn Armenian|Beng Bengali|Cyrl Cyrillic|Deva Devanagari|Ethi Ethiopic|Geor Georgian|Grek Greek|Gujr Gujarati
Guru Gurmukhi|Hang Hangul|Hans simplified|Hant traditional|Hebr Hebrew|Jpan Japanese|Khmr Khmer|Knda Kannada|Kore Korean
Laoo Lao|Latn Latin|Mlym Malayalam|Mong Mongolian|Mtei Meitei|Mymr Myanmar|Olck Ol Chiki|Orya Odia|Sinh Sinhala|Syrc Syriac
Taml Tamil|Telu Telugu|Tfng Tifinagh|Thaa Thaana|Thai Thai|Tibt Tibetan
"""

# Codes, some of Wikipedia's editions, that mean something else read by their parts.
_EDITIONS = """
bat-smg Samogitian|pt-br Portuguese (BR)|zh-tw Chinese (TW)|be-tarask Belarusian (Taraškievica)|cbk-zam Chavacano
fiu-vro Võro|map-bms Banyumasan|nds-nl Dutch Low Saxon|roa-rup Aromanian|roa-tara Tarantino|simple Simple English
zh-classical Literary Chinese|zh-min-nan Min Nan Chinese|zh-yue Cantonese
"""


def _entries(table: str) -> list[str]:
    return [entry for entry in re.split(r"[|\n]", table) if entry]


NAMES: dict[str, str] = {}
SAME: dict[str, str] = {}  # two letters → three of the same language, and back
for _entry in _entries(_BOTH):
    _two, _three, _name = _entry.split(" ", 2)
    NAMES |= {_two: _name, _three: _name}
    SAME |= {_two: _three, _three: _two}
NAMES |= dict(_entry.split(" ", 1) for _entry in _entries(_THREE))
_CODES = {_name.casefold(): _code for _code, _name in reversed(NAMES.items())}  # name → the first of its codes
EDITIONS = dict(_entry.split(" ", 1) for _entry in _entries(_EDITIONS))
SCRIPTS = dict(_entry.split(" ", 1) for _entry in _entries(_SCRIPTS))


def language_name(code: str) -> str:
    """A language's name in English; of a pair, of both; empty where the code is not known.

    Args:
      code: ISO 639-1 or 639-3, a script or a region after it: `de`, `zho_Hant`, `pt-BR`, `sr_Latn`; of a pair `de-fra`.
    """
    if code.replace("_", "-") in EDITIONS:
        return EDITIONS[code.replace("_", "-")]
    base, *more = re.split(r"[-_]", code)
    if base not in NAMES:
        return ""
    if not more:
        return NAMES[base]
    first, second = _pair(code)
    if second:
        names = [language_name(first), language_name(second)]
        return " – ".join(names) if all(names) and not _pair(second)[1] else ""
    said = []
    for part in more:
        if part.title() in SCRIPTS:
            said.append(SCRIPTS[part.title()])
        elif part == "XX":  # mBART's: no region in particular
            continue
        elif re.fullmatch(r"[A-Z]{2}|[a-z]{2}|\d{3}", part):
            said.append(part.upper())
        else:
            return ""
    return f"{NAMES[base]} ({', '.join(said)})" if said else NAMES[base]


def same_language(code: str, other: str) -> bool:
    """Whether two codes, or a code and an English name, say one language, whatever script or region they add: de, deu, de_DE, German."""
    return _base(code) == _base(other)


def folded(code: str) -> str:
    """A code in the one spelling of those that differ in case and in - or _ alone."""
    return code.strip().casefold().replace("_", "-")


def _base(code: str) -> str:
    """A code's language, with two letters where it has such a code."""
    plain = folded(code)
    if plain in EDITIONS:
        return plain
    first = _CODES.get(plain, plain.split("-")[0])
    return SAME[first] if len(first) == 3 and first in SAME else first


def _pair(code: str) -> tuple[str, str]:
    """The codes of the two languages of a pair, `zh-TW-eng`; the second is empty: it is none."""
    parts = code.split("-")
    for i in range(1, len(parts)):
        if re.fullmatch(r"[a-z]{2,3}", parts[i].split("_")[0]) and parts[i].split("_")[0] in NAMES:
            return "-".join(parts[:i]), "-".join(parts[i:])
    return code, ""


def label(code: str, most: int = 22) -> str:
    """A language as a figure names it: name and code, as far as there is room; otherwise the code, cut where it is very long.

    Args:
      most: letters.
    """
    code = code.replace("\u2068", "").replace(
        "\u2069", ""
    )  # of a page; within too, where what is cut off would have ended one
    code = "".join(
        c if c.isprintable() or unicodedata.category(c) == "Cf" else "\N{REPLACEMENT CHARACTER}" for c in code
    )
    if len(code) > 2 * most:
        code = f"{code[: 2 * most - 1]}…"
    name = language_name(code)
    return f"{name}, {code}" if name and len(name) + len(code) + 2 <= most else code
