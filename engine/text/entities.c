#include "text/entities.h"

#include <string.h>
#include <utf8proc.h>

/* What the codes 0x80 to 0x9f stand for in Windows-1252, which is what their writers meant. */
static const uint16_t windows[32] = {
    0x20ac, 0x0081, 0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160,
    0x2039, 0x0152, 0x008d, 0x017d, 0x008f, 0x0090, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
    0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0x009d, 0x017e, 0x0178,
};

/* The names of U+00A0 to U+00FF. */
static const char *const latin[96] = {
    "nbsp",   "iexcl",  "cent",   "pound",  "curren", "yen",    "brvbar", "sect",   "uml",    "copy",   "ordf",
    "laquo",  "not",    "shy",    "reg",    "macr",   "deg",    "plusmn", "sup2",   "sup3",   "acute",  "micro",
    "para",   "middot", "cedil",  "sup1",   "ordm",   "raquo",  "frac14", "frac12", "frac34", "iquest", "Agrave",
    "Aacute", "Acirc",  "Atilde", "Auml",   "Aring",  "AElig",  "Ccedil", "Egrave", "Eacute", "Ecirc",  "Euml",
    "Igrave", "Iacute", "Icirc",  "Iuml",   "ETH",    "Ntilde", "Ograve", "Oacute", "Ocirc",  "Otilde", "Ouml",
    "times",  "Oslash", "Ugrave", "Uacute", "Ucirc",  "Uuml",   "Yacute", "THORN",  "szlig",  "agrave", "aacute",
    "acirc",  "atilde", "auml",   "aring",  "aelig",  "ccedil", "egrave", "eacute", "ecirc",  "euml",   "igrave",
    "iacute", "icirc",  "iuml",   "eth",    "ntilde", "ograve", "oacute", "ocirc",  "otilde", "ouml",   "divide",
    "oslash", "ugrave", "uacute", "ucirc",  "uuml",   "yacute", "thorn",  "yuml",
};

/* HTML 4's other names, with the meanings of HTML 5, which adds &apos; and some in capitals. */
static const struct {
    const char *name;
    int32_t code;
} others[] = {
    {"AMP", 0x26},       {"Alpha", 0x391},   {"Beta", 0x392},    {"COPY", 0xa9},     {"Chi", 0x3a7},
    {"Dagger", 0x2021},  {"Delta", 0x394},   {"Epsilon", 0x395}, {"Eta", 0x397},     {"GT", 0x3e},
    {"Gamma", 0x393},    {"Iota", 0x399},    {"Kappa", 0x39a},   {"LT", 0x3c},       {"Lambda", 0x39b},
    {"Mu", 0x39c},       {"Nu", 0x39d},      {"OElig", 0x152},   {"Omega", 0x3a9},   {"Omicron", 0x39f},
    {"Phi", 0x3a6},      {"Pi", 0x3a0},      {"Prime", 0x2033},  {"Psi", 0x3a8},     {"QUOT", 0x22},
    {"REG", 0xae},       {"Rho", 0x3a1},     {"Scaron", 0x160},  {"Sigma", 0x3a3},   {"Tau", 0x3a4},
    {"Theta", 0x398},    {"Upsilon", 0x3a5}, {"Xi", 0x39e},      {"Yuml", 0x178},    {"Zeta", 0x396},
    {"alefsym", 0x2135}, {"alpha", 0x3b1},   {"amp", 0x26},      {"and", 0x2227},    {"ang", 0x2220},
    {"apos", 0x27},      {"asymp", 0x2248},  {"bdquo", 0x201e},  {"beta", 0x3b2},    {"bull", 0x2022},
    {"cap", 0x2229},     {"chi", 0x3c7},     {"circ", 0x2c6},    {"clubs", 0x2663},  {"cong", 0x2245},
    {"crarr", 0x21b5},   {"cup", 0x222a},    {"dArr", 0x21d3},   {"dagger", 0x2020}, {"darr", 0x2193},
    {"delta", 0x3b4},    {"diams", 0x2666},  {"empty", 0x2205},  {"emsp", 0x2003},   {"ensp", 0x2002},
    {"epsilon", 0x3b5},  {"equiv", 0x2261},  {"eta", 0x3b7},     {"euro", 0x20ac},   {"exist", 0x2203},
    {"fnof", 0x192},     {"forall", 0x2200}, {"frasl", 0x2044},  {"gamma", 0x3b3},   {"ge", 0x2265},
    {"gt", 0x3e},        {"hArr", 0x21d4},   {"harr", 0x2194},   {"hearts", 0x2665}, {"hellip", 0x2026},
    {"image", 0x2111},   {"infin", 0x221e},  {"int", 0x222b},    {"iota", 0x3b9},    {"isin", 0x2208},
    {"kappa", 0x3ba},    {"lArr", 0x21d0},   {"lambda", 0x3bb},  {"lang", 0x27e8},   {"larr", 0x2190},
    {"lceil", 0x2308},   {"ldquo", 0x201c},  {"le", 0x2264},     {"lfloor", 0x230a}, {"lowast", 0x2217},
    {"loz", 0x25ca},     {"lrm", 0x200e},    {"lsaquo", 0x2039}, {"lsquo", 0x2018},  {"lt", 0x3c},
    {"mdash", 0x2014},   {"minus", 0x2212},  {"mu", 0x3bc},      {"nabla", 0x2207},  {"ndash", 0x2013},
    {"ne", 0x2260},      {"ni", 0x220b},     {"notin", 0x2209},  {"nsub", 0x2284},   {"nu", 0x3bd},
    {"oelig", 0x153},    {"oline", 0x203e},  {"omega", 0x3c9},   {"omicron", 0x3bf}, {"oplus", 0x2295},
    {"or", 0x2228},      {"otimes", 0x2297}, {"part", 0x2202},   {"permil", 0x2030}, {"perp", 0x22a5},
    {"phi", 0x3c6},      {"pi", 0x3c0},      {"piv", 0x3d6},     {"prime", 0x2032},  {"prod", 0x220f},
    {"prop", 0x221d},    {"psi", 0x3c8},     {"quot", 0x22},     {"rArr", 0x21d2},   {"radic", 0x221a},
    {"rang", 0x27e9},    {"rarr", 0x2192},   {"rceil", 0x2309},  {"rdquo", 0x201d},  {"real", 0x211c},
    {"rfloor", 0x230b},  {"rho", 0x3c1},     {"rlm", 0x200f},    {"rsaquo", 0x203a}, {"rsquo", 0x2019},
    {"sbquo", 0x201a},   {"scaron", 0x161},  {"sdot", 0x22c5},   {"sigma", 0x3c3},   {"sigmaf", 0x3c2},
    {"sim", 0x223c},     {"spades", 0x2660}, {"sub", 0x2282},    {"sube", 0x2286},   {"sum", 0x2211},
    {"sup", 0x2283},     {"supe", 0x2287},   {"tau", 0x3c4},     {"there4", 0x2234}, {"theta", 0x3b8},
    {"thetasym", 0x3d1}, {"thinsp", 0x2009}, {"tilde", 0x2dc},   {"trade", 0x2122},  {"uArr", 0x21d1},
    {"uarr", 0x2191},    {"upsih", 0x3d2},   {"upsilon", 0x3c5}, {"weierp", 0x2118}, {"xi", 0x3be},
    {"zeta", 0x3b6},     {"zwj", 0x200d},    {"zwnj", 0x200c},
};

int32_t syz_windows_code(int32_t c) {
    return c >= 0x80 && c < 0xa0 ? windows[c - 0x80] : c;
}

/* The code of a name, 0 if there is none. `bare`: only names that need no semicolon. */
static int32_t find_name(const char *name, size_t n, bool bare) {
    static const char *const no_semicolon[] = {"amp", "lt", "gt", "quot", "AMP", "LT", "GT", "QUOT", "COPY", "REG"};
    for (int i = 0; i < 96; i++)
        if (strlen(latin[i]) == n && memcmp(latin[i], name, n) == 0) return 0xa0 + i;
    bool found = !bare;
    for (size_t i = 0; i < sizeof no_semicolon / sizeof *no_semicolon && !found; i++)
        found = strlen(no_semicolon[i]) == n && memcmp(no_semicolon[i], name, n) == 0;
    for (size_t i = 0; i < sizeof others / sizeof *others && found; i++)
        if (strlen(others[i].name) == n && memcmp(others[i].name, name, n) == 0) return others[i].code;
    return 0;
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

static int digit(char c, int base) {
    int value = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : 99;
    return value < base ? value : -1;
}

/* What a numeric reference means; -1: nothing at all. */
static int32_t read_number(int32_t code) {
    if (code == 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return 0xfffd;
    if (code == 0x0d || (code >= 0x80 && code < 0xa0)) return syz_windows_code(code);
    if ((code < 0x20 && code != '\t' && code != '\n' && code != '\f') || code == 0x7f) return -1;
    return (code >= 0xfdd0 && code <= 0xfdef) || (code & 0xfffe) == 0xfffe ? -1 : code;
}

/* Reads "&#233;" or "&#xe9" at `at`: its length, 0 if it is none. */
static size_t numeric(const char *text, size_t n, int32_t *code) {
    if (n < 3 || text[1] != '#') return 0;
    int base = (text[2] | 32) == 'x' ? 16 : 10;
    size_t begin = base == 16 ? 3 : 2, at = begin;
    for (*code = 0; at < n && digit(text[at], base) >= 0; at++)
        if (*code <= 0x10ffff) *code = *code * base + digit(text[at], base);
    if (at == begin) return 0;
    *code = read_number(*code);
    return at < n && text[at] == ';' ? at + 1 : at;
}

/* ---- the two ways of reading ------------------------------------------------------------------------------------- */

/* html.unescape: names of up to 32 characters; without a semicolon, or where the whole is no name, the longest
 * beginning that needs none. */
static size_t lenient(const char *text, size_t n, int32_t *code) {
    size_t name = 1;
    while (name < n && name <= 32 && !strchr("\t\n\f <&#;", text[name]))
        name++;
    if (name < n && text[name] == ';' && (*code = find_name(text + 1, name - 1, false))) return name + 1;
    for (; name > 2; name--)
        if ((*code = find_name(text + 1, name - 1, true))) return name;
    return 0;
}

/* ftfy: letters and digits, up to 24, and a semicolon; also names in capitals, for a capital. */
static size_t strict(const char *text, size_t n, int32_t *code) {
    char lower[25] = {0};
    size_t name = 1, ignored;
    bool capitals = true;
    for (; name < n && name <= 24 &&
           (digit(text[name], 10) >= 0 || ((text[name] | 32) >= 'a' && (text[name] | 32) <= 'z'));
         name++) {
        capitals = capitals && !(text[name] >= 'a');
        lower[name - 1] = (char)(text[name] >= 'A' ? text[name] | 32 : text[name]);
    }
    if (name < 2 || name >= n || text[name] != ';') return 0;
    if ((*code = find_name(text + 1, name - 1, false))) return name + 1;
    ignored = lenient(text, name + 1, code);
    if (!capitals || ignored > 0 || !(*code = find_name(lower, name - 1, false))) return 0;
    *code = utf8proc_toupper(*code);
    return name + 1;
}

size_t syz_entity(const char *text, size_t n, bool leniently, int32_t *code) {
    size_t used = numeric(text, n, code);
    if (used > 0) return leniently || (text[used - 1] == ';' && used <= 27 && *code != ';') ? used : 0;
    if (n > 1 && text[1] == '#') return 0;
    return leniently ? lenient(text, n, code) : strict(text, n, code);
}
