"""Just enough C++ to judge layout: text without comments and literals, include lines, functions, classes."""

import re

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.M)
_RAW_STRING = re.compile(r'(?:u8|[uUL])?R"([^()\\ \t\n]{0,16})\(')


def _blank(text):
    return re.sub(r"[^\n]", " ", text)


def _end_of_quoted(text, at):
    """The position after the literal whose opening quote is at `at`."""
    quote = text[at]
    at += 1
    while at < len(text) and text[at] not in (quote, "\n"):
        at += 2 if text[at] == "\\" else 1
    return min(at + 1, len(text))


def strip(text):
    """`text` with comments and the insides of literals blanked; line and column of everything else stay."""
    out, at = [], 0
    while at < len(text):
        if text.startswith("//", at):
            end = text.find("\n", at)
        elif text.startswith("/*", at):
            end = text.find("*/", at + 2)
            end = end + 2 if end >= 0 else end
        elif text[at] in "uULR" and not (at and (text[at - 1].isalnum() or text[at - 1] == "_")) and (
                raw := _RAW_STRING.match(text, at)):
            close = ")" + raw.group(1) + '"'
            end = text.find(close, raw.end())
            end = end + len(close) if end >= 0 else end
        elif text[at] == '"' or (text[at] == "'" and not (at and text[at - 1].isalnum())):
            end = _end_of_quoted(text, at)
            out.append(text[at] + _blank(text[at + 1:end - 1]) + text[end - 1])
            at = end
            continue
        else:
            out.append(text[at])
            at += 1
            continue
        end = end if end >= 0 else len(text)
        out.append(_blank(text[at:end]))
        at = end
    return "".join(out)


def without_directives(stripped):
    """Preprocessor lines and their continuations blanked: the braces of macros need not match."""
    return re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: _blank(m.group()), stripped, flags=re.M)


def includes(text):
    """(line, path) of each include line, outside of comments."""
    stripped = strip(text)
    for match in _INCLUDE.finditer(text):
        hash_at = text.index("#", match.start())
        if stripped[hash_at] == "#":
            yield line_of(text, hash_at), match.group(2)


def line_of(text, at):
    return text.count("\n", 0, at) + 1


class Scope:
    """What a `{` opens: kind is namespace, class, function or other; header is the text in front of it."""

    def __init__(self, kind, header, start, end, outer):
        self.kind, self.header, self.start, self.end, self.outer = kind, header, start, end, outer


def _closing(code, at):
    """The position of the bracket that closes the one at `at`."""
    depth = 0
    for here in range(at, len(code)):
        if code[here] in "{(":
            depth += 1
        elif code[here] in "})":
            depth -= 1
            if depth == 0:
                return here
    return len(code) - 1


def _kind(header):
    if re.search(r"\bnamespace\b", header) or re.match(r'\s*extern\s*"', header):
        return "namespace"
    while "operator" not in header and (plain := re.sub(r"<[^<>]*>", "", header)) != header:
        header = plain  # parentheses in template arguments are no parameters
    before_parameters = header.split("(", 1)[0]
    if "(" in header and "=" not in before_parameters.replace("operator", "\0").split("\0")[0]:
        if not re.search(r"\b(class|struct|union|enum)\s+(\[\[|alignas|\w+\s*(:|$))", header):
            return "function"
    if re.search(r"\b(class|struct|union)\b", header):
        return "class"
    return "other"


def scopes(code):
    """Namespaces, classes and functions in `code` (stripped, without directives); functions are not entered."""
    found, outer, header_at, at = [], [], 0, 0
    while at < len(code):
        char = code[at]
        if char == ";":
            header_at = at + 1
        elif char == "(":
            at = _closing(code, at)
        elif char == "}":
            if outer:
                outer.pop()
            header_at = at + 1
        elif char == "{":
            header = re.sub(r"^\s*(?:(?:public|private|protected)\s*:(?!:)\s*)+", "", code[header_at:at])
            end = _closing(code, at)
            kind = _kind(header)
            start = at - len(header.lstrip())
            scope = Scope(kind, header.strip(), start, end, tuple(outer))
            if kind in ("namespace", "class"):
                found.append(scope)
                outer.append(scope)
                header_at = at + 1
            else:
                following = code[end + 1:].lstrip()[:1]
                initializes_member = kind == "function" and following in (",", "{")
                if kind == "function" and not initializes_member:
                    found.append(scope)
                at = end
                if not initializes_member:
                    header_at = end + 1
        at += 1
    return found
