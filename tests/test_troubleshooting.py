"""The page of messages: every message of a reader tells its remedy or has its row; every row is of a message."""

import ast
import re

from common.run.files import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
READERS = (
    "common/run/text.py", "common/run/config.py", "common/run/log.py", "common/run/files.py", "common/run/weights.py",
    "common/data/**/*.py", "common/score/options.py", "common/pipeline/stages.py", "common/pipeline/table.py",
    "common/masks/from_seeds.py", "common/nets/load.py", "common/nets/pretrained.py",
)  # fmt: skip
GAP = "…"  # for what is filled in
# Ways to say what to do: a verb at the beginning of a clause, a key or flag with its value, a command; or a last
# sentence that is filled in.
VERBS = (
    "add", "ask", "choose", "copy", "correct", "count", "delete", "download", "fetch", "get", "give", "join", "keep",
    "leave out", "make", "move", "name", "put", "remove", "rename", "run", "save", "set", "take", "unpack", "use",
    "write", "needed is",
)  # fmt: skip
REMEDY = re.compile(
    rf"(?:[.:;,(?]|\bor|\band|{GAP}) (?:{'|'.join(VERBS)})\b|\b\w+\.\w+=|--\w[\w-]+|"
    r"python scripts/|is it (?:another file|the label file)|"
    rf"{GAP} writes it|[.;] {GAP}$",
    re.IGNORECASE,
)


def text_of(node: ast.expr) -> str:
    """The text of an expression, with `GAP` for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else GAP for part in node.values)
    return GAP


def messages(patterns: tuple[str, ...]) -> list[tuple[str, str]]:
    """Place and text of every `UserError` in the files; texts that are made elsewhere are left out."""
    found = []
    for path in dict.fromkeys(path for pattern in patterns for path in sorted(ROOT.glob(pattern))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "UserError" and node.args:
                text = text_of(node.args[0])
                if re.sub(rf"[{GAP}\W]", "", text):
                    found.append((f"{path.relative_to(ROOT)}:{node.lineno}", text))
    return found


def rows() -> list[str]:
    """The first cells of the page's tables."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [re.split(r" (?<!\\)\| ", line.strip("| "))[0].replace("\\|", "|").strip() for line in lines]
    return [cell for cell in cells if cell != "message"]


def fits(row: str, text: str) -> bool:
    """Whether a message has the words of a row, in their order."""
    return re.search(".*?".join(re.escape(part.strip()) for part in row.split(GAP)), text) is not None


def test_every_message_of_a_reader_has_a_remedy() -> None:
    known = rows()
    found = messages(READERS)
    assert len(found) > 100
    lacking = [f"{place}: {text}" for place, text in found if not REMEDY.search(text)]
    assert not [message for message in lacking if not any(fits(row, message) for row in known)]


def test_every_row_is_of_a_message() -> None:
    texts = [text for _, text in messages(("common/**/*.py",))]
    assert not [row for row in rows() if not any(fits(row, text) for text in texts)]


def test_a_message_without_a_remedy_is_found() -> None:
    """The check itself: verbs count at the beginning of a clause alone."""
    assert REMEDY.search("the list … is UTF-16 text: save it as UTF-8") and REMEDY.search("… is damaged. Get it again")
    for text in ("the list … is damaged", "the names in … are saved twice", "… has a name"):
        assert not REMEDY.search(text), text
    assert fits("has … labels", "x has 3 labels") and not fits("has … labels", "x has names")
