"""Reads YAML strictly: plain data alone, every key once, and no value that YAML 1.1 reads as something unexpected.

Refused are a key that is there twice, keys that are no text, dates, tags (``!!python/...``), numbers in octal or
sexagesimal form (``010`` is 8, ``1:30`` is 90), aliases that multiply, and deep nesting.
"""

import re
from collections.abc import Collection
from typing import Any

import yaml

from common.run.errors import first_line

LIMIT = 1 << 20  # bytes of a YAML file
_DEPTH = 32
_NODES = 10_000  # with every alias replaced by its content
_DIGITS = 40
_TEXT = "tag:yaml.org,2002:str"
_NULL = "tag:yaml.org,2002:null"
_MERGE = "tag:yaml.org,2002:merge"


class _StrictLoader(yaml.SafeLoader):
    """`yaml.SafeLoader` with further conditions."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """A mapping whose keys are texts, each there once."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag not in (_TEXT, _MERGE):
                shown = getattr(key, "value", "of several values")
                raise _refusal(key, f"the key {shown!r} is no text; put it in quotes")
            if key.value in seen:
                raise _refusal(key, f"the key {key.value!r} is there twice; remove one of them")
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """A whole number, decimal or with the prefix 0x or 0b."""
        if ":" in node.value or re.fullmatch(r"[-+]?0[0-7_]+", node.value):
            raise _refusal(node, f"{node.value} is octal or sexagesimal in YAML; write a decimal number, or a text")
        if len(node.value) > _DIGITS:
            raise _refusal(node, f"the number {node.value[:10]}... has {len(node.value)} digits")
        return super().construct_yaml_int(node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        """A decimal number."""
        if ":" in node.value:
            raise _refusal(node, f"{node.value} is sexagesimal in YAML; write a decimal number, or a text")
        return super().construct_yaml_float(node)

    def refuse_date(self, node: yaml.ScalarNode) -> None:
        """A date is no value of any key."""
        raise _refusal(node, f"{node.value} is a date in YAML; put it in quotes")


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.construct_yaml_int)
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _StrictLoader.construct_yaml_float)
_StrictLoader.add_constructor("tag:yaml.org,2002:timestamp", _StrictLoader.refuse_date)


def parse_yaml(text: str, texts: Collection[str] = ()) -> Any:
    """The content of a YAML document; None if it is empty.

    Args:
        texts: keys, with dots between their parts, whose values are taken as they are written: ``2024-05-01``, ``007``
            and ``no`` stay texts there.

    Raises:
        ValueError: it is no YAML, or is refused; the message is one line, with the number of the line in the text.
    """
    try:
        _check_events(text)
        loader = _StrictLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _count_nodes(node, {})
            for key in texts:
                _keep_text(node, key.split("."))
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(place + first_line(ValueError(error.problem or error.context))) from error
    except yaml.YAMLError as error:  # characters that YAML does not admit
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refusal(node: yaml.Node | yaml.Event, problem: str) -> yaml.constructor.ConstructorError:
    mark: Any = node.start_mark
    return yaml.constructor.ConstructorError(None, None, problem, mark)


def _check_events(text: str) -> None:
    """Refuses tags and deep nesting before anything is built."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        tag = getattr(event, "tag", None)
        if tag:
            raise _refusal(event, f"the tag {tag} is not read; leave it out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEPTH:
                raise _refusal(event, f"it is nested more than {_DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _count_nodes(node: yaml.Node, known: dict[int, int]) -> int:
    """The nodes of a tree in which aliases are replaced by their contents.

    Args:
        known: counts by identity of the node; 0 for a node that is being counted.
    """
    if id(node) not in known:
        known[id(node)] = 0
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_count_nodes(child, known) for child in children)
    if not known[id(node)]:
        raise _refusal(node, "an alias refers to a value that holds it")
    if known[id(node)] > _NODES:
        raise _refusal(node, f"it has more than {_NODES} values, aliases included")
    return known[id(node)]


def _keep_text(node: yaml.Node, key: list[str]) -> None:
    """Makes the value of a key, or the values of its list, a text as it is written; null stays null."""
    for part in key:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = [value for name, value in pairs if name.value == part]
        if not found:
            return
        node = found[0]
    for value in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        if isinstance(value, yaml.ScalarNode) and value.tag != _NULL:
            value.tag = _TEXT
