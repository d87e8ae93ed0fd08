"""Text files as people have them: lists, classes, label tables, annotations, YAML, JSON give the right value, or one
line that names the file.
"""

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from common.data.classes import MOST_CLASSES, read_classes
from common.data.csv_labels import csv_classes, read_csv
from common.data.dataset import ImageSet, LabelledImages
from common.data.labels import read_label_table, read_labels, require_classes
from common.data.layout import DataConfig
from common.data.lists import read_list
from common.data.prepare.coco import Region, outline, paint_mask, read_instances
from common.run.config import load_config
from common.run.errors import UserError
from common.run.strict_yaml import parse_yaml
from common.run.text import read_json, read_json_object, read_lines, read_text
from methods.cti.config import CTIConfig
from tests.datasets import make_voc, write_image, write_lines

IDS = ["im_0", "im_1"]


def put(path: Path, content: str | bytes) -> Path:
    """A file with these bytes, or this text in UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# --- one reader of text


@pytest.mark.parametrize(
    "content",
    [b"cat\ndog\n", b"\xef\xbb\xbfcat\r\ndog\r\n", b"cat\rdog", b"cat\ndog", "cat\ndog\n".encode("utf-8-sig")],
)
def test_line_ends_and_marks_of_any_system(tmp_path: Path, content: bytes) -> None:
    assert read_lines(put(tmp_path / "x", content), "the list") == ["cat", "dog"]
    assert read_classes(tmp_path / "x") == ["cat", "dog"] and read_list(tmp_path / "x", "folder") == ["cat", "dog"]


def test_lines_end_at_line_ends_alone(tmp_path: Path) -> None:
    assert read_lines(put(tmp_path / "x", "a\x0bb\u2028c\x85d\n\n"), "the list") == ["a\x0bb\u2028c\x85d", ""]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cat\n".encode("utf-16"), "is UTF-16 text.*UTF-8"),
        ("cat\n".encode("utf-32"), "is UTF-32 text.*UTF-8"),
        ("a\ncat\n".encode("utf-16-le"), "NUL bytes.*UTF-8"),
        ("a\nKäse\n".encode("cp1252"), r"not UTF-8 text \(byte 0xe4 in line 2\): save it as UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0", "NUL bytes"),
    ],
)
def test_other_encodings_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    """By every reader of a text file."""
    path = put(tmp_path / "file.csv", content)
    readers = (
        lambda: read_text(path, "the file"), lambda: read_list(path, "voc12"), lambda: read_classes(path),
        lambda: csv_classes(path), lambda: read_json(path, "the file"), lambda: load_config(CTIConfig, path),
        lambda: read_labels(path, [], ["cat"], "folder"),
    )  # fmt: skip
    for reader in readers:
        with pytest.raises(UserError, match=rf"file\.csv.*{message}"):
            reader()


def test_files_that_are_no_text_files(tmp_path: Path) -> None:
    """A folder, a pipe that nobody writes to, nothing at all, and a file above the size."""
    os.mkfifo(tmp_path / "pipe")
    put(tmp_path / "large", "x" * 11)
    for name, message in (
        ("", "a folder"),
        ("pipe", "no regular file"),
        ("none", "No such file"),
        ("large", "11 bytes"),
    ):
        with pytest.raises(UserError, match=f"the list .* cannot be read: .*{message}"):
            read_text(tmp_path / name, "the list", limit=10)
    with pytest.raises(UserError, match="the list a\0b cannot be read"):
        read_text("a\0b", "the list")


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "1" * 5000, "{'a': 1}", '{"a": \x01}'])
def test_damaged_json(tmp_path: Path, content: str) -> None:
    with pytest.raises(UserError, match=r"the record .*x\.json is no JSON"):
        read_json_object(put(tmp_path / "x.json", content), "the record")


def test_json_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.json holds list"):
        read_json_object(put(tmp_path / "x.json", "[1]"), "the record")


# --- YAML


LAUGHS = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  epochs: 5\ntrain:\n  batch_size: 8\n", "line 3: the key 'train' is there twice"),
        ("train: {epochs: 5, epochs: 6}", "line 1: the key 'epochs' is there twice"),
        ("train: {epochs: 2024-05-01}", "2024-05-01 is a date"),
        ("2024-05-01: 3", "the key '2024-05-01' is no text"),
        ("1: 3", "the key '1' is no text"),
        ("[1]: 3", "no text"),
        ("train: !!python/object/apply:os.system [touch x]", "line 1: the tag .*os.system is not read"),
        ("train: !!set {a, b}", "the tag"),
        ("train: !own 3", "the tag"),
        ("train: !!binary aGk=", "the tag"),
        (LAUGHS, "more than 10000 values"),
        ("a: &a [*a]", "an alias refers to a value that holds it"),
        ("a: " + "[" * 10_000, "nested more than 32"),
        ("a: " + "{a: " * 40 + "1" + "}" * 40, "nested more than 32"),
        ("a: 010", "octal"),
        ("a: 1:30", "sexagesimal"),
        ("a: 1:30.5", "sexagesimal"),
        ("a: " + "9" * 5000, "5000 digits"),
        ("a: *b", "line 1: found undefined alias"),
        ("a: 1\n---\nb: 2", "but found another document"),
        ("a: [", "line 1"),
        ("a: \x01", "not allowed"),
    ],
)
def test_yaml_that_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """In one line, by the file's and by the command line's reader."""
    with pytest.raises(UserError, match=rf"x\.yaml is not a readable YAML file: .*{message}") as caught:
        load_config(CTIConfig, put(tmp_path / "x.yaml", text))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=message):
        parse_yaml(text)


def test_yaml_that_is_plain_data() -> None:
    """Aliases and merged sections are no harm, nor are numbers of the usual forms."""
    text = "a: &a {x: 1, y: [2, 0x10, 0b11, 1_000, -3, 0]}\nb: {<<: *a, x: 5}\nc: [1.5, 2.0e-3, .5, true, ~, no]"
    same = [2, 16, 3, 1000, -3, 0]
    expected = {"a": {"x": 1, "y": same}, "b": {"x": 5, "y": same}, "c": [1.5, 0.002, 0.5, True, None, False]}
    assert parse_yaml(text) == expected and parse_yaml("") is None


@pytest.mark.parametrize("value", ["2024-05-01", "007", "no", "1e3", "12:30", "0x10", "1.50", "'~'"])
def test_texts_in_a_yaml_are_taken_as_they_are(tmp_path: Path, value: str) -> None:
    """As on the command line; ``data.root: 007`` was 7, ``no`` was False."""
    path = put(tmp_path / "x.yaml", f"data: {{root: {value}}}")
    assert load_config(CTIConfig, path).data.root == value.strip("'")


# --- lists


@pytest.mark.parametrize(
    "line",
    [
        "im_0 \t ", "im_0  # good", "im_0 # good", "im_0.jpg 0 1", "JPEGImages/im_0.jpg,SegmentationClass/mask_0.png",
        "C:\\data\\JPEGImages\\im_0.jpg", "Annotations/im_0.xml", "im_0.npy", "dict/im_0.npz", "cls/im_0.mat", '"im_0"',
        "'im_0.jpg'", "im_0.JPG", "im_0\u00a0",
    ],
)  # fmt: skip
def test_entries_as_people_have_them(tmp_path: Path, line: str) -> None:
    assert read_list(put(tmp_path / "x.txt", f"# all\n{line}\n#x\n  # y\n"), "folder") == ["im_0"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("im_0 -1", "flag of a class, as ImageSets/Main"), ("im_0  1 -1 0", "flag"), ("im_0\u200b", r"'im_0\\u200b'"),
        ("\x1a", r"'\\x1a'"), ("٣٣", "no COCO image number"), ("9.0", "no COCO image number"),
    ],
)  # fmt: skip
def test_entries_that_are_refused(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=f"line 2: .*{message}"):
        read_list(put(tmp_path / "x.txt", f"9\n{line}\n"), "coco14")


def test_names_with_spaces_and_signs_stay(tmp_path: Path) -> None:
    names = ["my picture 1", "photo #1", "a-1", "x,y"]
    assert read_list(write_lines(tmp_path / "x.txt", names), "folder") == names


@pytest.mark.parametrize(
    ("entry", "reason"),
    [("im_0 0 1", "hold spaces"), ("IM_0", r"im_0\.jpg, which differs in case"), ("e\u0301", "form of its accents")],
)
def test_reason_of_a_missing_image(tmp_path: Path, entry: str, reason: str) -> None:
    for name in ("im_0", "\u00e9"):
        write_image(tmp_path / "images" / f"{name}.jpg")
    config = DataConfig("folder", str(tmp_path), image="images/{id}.jpg")
    with pytest.raises(UserError, match=f"1 of the 1 images .*{reason}"):
        ImageSet(config, str(write_lines(tmp_path / "x.txt", [entry])))


# --- classes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "names no class"), (["# cat"], "names no class"), (["cat", "dog", "cat"], "more than once: cat"),
        (["background", "cat"], "background is no class"), (["cat", "_Background_"], "background is no class"),
        (["cat\u200b"], "cannot be shown"), ([str(i) for i in range(MOST_CLASSES + 1)], "255 classes; .* 254"),
    ],
)  # fmt: skip
def test_class_files_that_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=f"data.classes: .*{message}"):
        read_classes(write_lines(tmp_path / "classes.txt", names))


def test_class_files(tmp_path: Path) -> None:
    assert read_classes(put(tmp_path / "x", "# mine\n cat \n\nhot dog\n")) == ["cat", "hot dog"]
    assert len(read_classes(write_lines(tmp_path / "y", list(range(MOST_CLASSES))))) == MOST_CLASSES


# --- the label table


@pytest.mark.parametrize(
    "text",
    [
        "filename,label\na.jpg,cat\nb.png, dog ;cat\nc,\n", "id,cat,dog,\na,1,0,\nb,1,1,\nc,0,0,\n",
        "id,cat,dog\na,1.0,0.0\nb,1.0,1.0\nc,0.0,0.0\n", "id,cat,dog\na,True,False\nb,true,TRUE\nc,0,false\n",
        'id,label\n"a","cat"\nb,"dog;cat"\nc,""\n', "\ufeffID,Labels\r\na,cat\r\nb,dog;cat;\r\nc\r\n\r\n",
        "id,label,,\na,cat,,\nb,dog;cat,,\nc,,,\n",
    ],
)  # fmt: skip
def test_tables_as_people_have_them(tmp_path: Path, text: str) -> None:
    path = put(tmp_path / "labels.csv", text)
    labels = read_csv(path, csv_classes(path))
    assert {key: row.tolist() for key, row in labels.items()} == {"a": [1, 0], "b": [1, 1], "c": [0, 0]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label\na,cat\nb,Cat\nc,cat\n", r"'Cat' in 1 row\(s\), 'cat' in 2 row\(s\).*data.classes"),
        ("id,label\na,hot dog\nb,hot_dog\n", "'hot dog' in 1 row.*'hot_dog'"),
        ("id,label\na,cat|dog\nb,cow\n", r"several in one: 'cat\|dog' in 1 row"),
        ('id,label\na,"cat,dog"\n', "'cat,dog' in 1 row"),
        ("id,label\na,cat dog\nb,cat\nc,dog\n", "'cat dog' in 1 row"),
        ("id,label\na,cat/dog\nb,cat;dog\n", "'cat/dog' in 1 row"),
        ("id,label\na,cat,dog\n", "row 2: more than an id and a label"),
        ("id;label\na;cat\n", "separated by ';': save it with commas"),
        ("id\tlabel\na\tcat\n", "separated by tabs"),
        (",id,label\n0,a,cat\n", "index of pandas.*index=False"),
        ("Unnamed: 0,id,label\n0,a,cat\n", "index of pandas"),
        ("id,Unnamed: 0,cat\na,0,1\n", "columns without a name: 2"),
        ("id,cat,\na,1,0\n", "columns without a name: 3"),
        ("id,cat,cat\na,1,0\n", "more than once: cat"),
        ("id,label\na,1\nb,2\n", r"no label 0: .*counted from 0 \('1' in 1 row\(s\), '2' in 1 row\(s\)\)"),
        ("id,label\na,background;cat\n", "background is no class"),
        ("id,label\na,\n", "names no class"),
        ('id,label\na,"cat\n', "cannot be read: line"),
        ("id,label\n", "must start with a header"),
        ("", "must start with a header"),
        ("id,label\na," + ";".join(f"c{i}" for i in range(300)), "300 classes"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"labels\.csv.*{message}"):
        csv_classes(put(tmp_path / "labels.csv", text))


@pytest.mark.parametrize("label", ["9" * 5000, "2999999999999", "²", "٣", "254", "-1", "1.0"])
def test_numbers_that_are_no_class_index(tmp_path: Path, label: str) -> None:
    """They are names, and no class; the table of 9s was read for minutes."""
    path = put(tmp_path / "labels.csv", f"id,label\na,0;{label}\n")
    assert csv_classes(path) == sorted(["0", label])
    with pytest.raises(UserError, match=r"row 2: .*is no class"):
        read_csv(path, ["cat", "dog"])


def test_table_against_classes_and_images(tmp_path: Path) -> None:
    path = put(tmp_path / "labels.csv", "id,label\n1,Cat\n2,dog\n")
    with pytest.raises(UserError, match=r"'Cat' is no class \(classes: cat, dog\)\. Did you mean 'cat'\?"):
        read_csv(path, ["cat", "dog"])
    with pytest.raises(UserError, match=r"no labels for 2 of 2 images: 0001, 0002\. It has 1, 2: spreadsheets remove"):
        read_labels(path, ["0001", "0002"], ["Cat", "dog"], "folder")


# --- annotations


def _annotation(text: str) -> str:
    return f"<annotation><object><name>{text}</name></object></annotation>"


DECLARED = '<?xml version="1.0" encoding="{}"?>'
PART = "<annotation><object><name>cat</name><part><name>dog</name></part><attributes><name>dog</name></attributes>"


@pytest.mark.parametrize(
    "content",
    [
        _annotation("cat"), _annotation("\n  cat \n"), _annotation("<![CDATA[cat]]>"), _annotation("c<!-- x -->at"),
        '<annotation xmlns="http://x.org"><object><name>cat</name></object></annotation>',
        '<v:annotation xmlns:v="http://x.org"><v:object><v:name>cat</v:name></v:object></v:annotation>',
        f"{PART}</object><owner><name>dog</name></owner><name>dog</name></annotation>",
        "<annotation><folder>dog</folder><object><pose>dog</pose><name>cat</name></object><object/></annotation>",
        "\ufeff" + _annotation("cat"), "<!DOCTYPE annotation>" + _annotation("cat"),
        (DECLARED.format("utf-16") + _annotation("cat")).encode("utf-16"),
        *((DECLARED.format(c) + _annotation("cat") + "<!-- 狗 -->").encode(c) for c in ("gb2312", "gbk", "big5")),
        (DECLARED.format("ISO-8859-1") + "<annotation><folder>Bücher</folder>"
         "<object><name>cat</name></object></annotation>").encode("latin-1"),
    ],
)  # fmt: skip
def test_names_of_objects_alone(tmp_path: Path, content: str | bytes) -> None:
    put(tmp_path / "a.xml", content)
    table = read_label_table(tmp_path, ["a"], ["cat", "dog"], "voc12")
    assert table.labels["a"].tolist() == [1, 0] and not table.foreign


ENTITIES = "<!DOCTYPE a [{}]>" + _annotation("&e;")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "damaged"), ("<a>", "damaged"), (_annotation("&e;"), "damaged"), ("cat", "damaged"),
        (DECLARED.format("utf8mb4") + _annotation("cat"), "unknown encoding: utf8mb4.*UTF-8"),
        (DECLARED.format("hex") + _annotation("cat"), "encoding"),
        (DECLARED.format("punycode") + _annotation("cat"), "encoding that is unknown"),
        (DECLARED.format("utf-16") + _annotation("cat"), "not in the encoding|damaged"),
        (_annotation("Käse").encode("cp1252"), "not in the encoding that it names, or UTF-8: save it as UTF-8"),
        (ENTITIES.format('<!ENTITY e "cat">'), "it defines entities"),
        (ENTITIES.format('<!ENTITY e SYSTEM "file:///etc/hostname">'), "it defines entities"),
        (ENTITIES.format("".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(20))), "it defines entities"),
    ],
)  # fmt: skip
def test_annotations_that_are_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    put(tmp_path / "a.xml", content)
    with pytest.raises(UserError, match=rf"the annotation .*a\.xml .*{message}"):
        read_labels(tmp_path, ["a"], ["cat"], "voc12")


def test_names_that_are_no_class_are_counted(tmp_path: Path) -> None:
    put(tmp_path / "a.xml", _annotation("Cat"))
    put(tmp_path / "b.xml", _annotation("cow"))
    put(tmp_path / "c.xml", _annotation("cow"))
    table = read_label_table(tmp_path, "abc", ["cat"], "voc12")
    assert table.foreign == Counter({"cow": 2, "Cat": 1})
    with pytest.raises(UserError, match=r"any class of cat. .*'cow' in 2 image\(s\), 'Cat' in 1 image.*mean 'cat'"):
        require_classes(np.stack(list(table.labels.values())), ["cat"], "list 'x'", foreign=table.foreign)


# --- labels of a training


def test_training_needs_every_class(tmp_path: Path) -> None:
    make_voc(tmp_path)
    images = LabelledImages(DataConfig(root=str(tmp_path)), "train")
    with pytest.raises(UserError, match=r"list 'train' has the class aeroplane.*data\.absent_classes=allow"):
        images.require_labels()
    images.config.absent_classes = "allow"
    images.require_labels()
    images.labels[:] = 0
    for every in (True, False):
        with pytest.raises(UserError, match=r"has any class of .*'head' in 6 image.*check_data\.py"):
            images.require_labels(every)


# --- folders


def _folder(root: Path, *names: str) -> DataConfig:
    for name in names:
        write_image(root / "images" / name)
    return DataConfig("folder", str(root))


def test_files_of_other_systems_do_not_count(tmp_path: Path) -> None:
    config = _folder(tmp_path, "a.jpg", "b.JPG", ".hidden.jpg", ".thumbs/c.jpg")
    put(tmp_path / "images" / "._a.jpg", b"\0\5\x16\7")
    put(tmp_path / "images" / ".DS_Store", b"x")
    (tmp_path / "images" / "empty").mkdir()
    assert ImageSet(config, "all").ids == ["a", "b"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a.jpg", "a.png"), r"a\.jpg and a\.png share the id 'a'.*data\.image='images/\{id\}\.jpg'"),
        (("a.jpg", "x/b.jpg"), r"images/x: this sub-folder holds images.*data\.image='images/x/\{id\}\.\*'"),
        (("x/b.jpg",), "sub-folder holds images"),
        ((".a.jpg",), "'all' is empty"),
    ],
)  # fmt: skip
def test_twins_and_sub_folders_are_refused(tmp_path: Path, names: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ImageSet(_folder(tmp_path, *names), "all")


def test_remedies_of_twins_and_sub_folders(tmp_path: Path) -> None:
    config = _folder(tmp_path, "a.jpg", "a.png", "x/b.jpg")
    config.image = "images/x/{id}.*"
    assert ImageSet(config, "all").ids == ["b"]
    config.image = "images/{id}.jpg"
    images = ImageSet(config, str(write_lines(tmp_path / "x.txt", ["a"])))
    assert [path.name for path in images.images] == ["a.jpg"] and [path.name for path in images.left_out()[0]] == [
        "a.png"
    ]


# --- COCO


SQUARE = [10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]
NAN, INF = float("nan"), float("inf")


def _instances(**changes: object) -> dict:
    """Two images of 48 x 64, a cat and a dog; the first annotation changed (None: without that key)."""
    first = {"id": 1, "image_id": 1, "category_id": 3, "segmentation": [SQUARE], "iscrowd": 0, **changes}
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 48, "width": 64} for i in (1, 2)],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {key: value for key, value in first.items() if value is not None},
            {"id": 2, "image_id": 2, "category_id": 7, "segmentation": [SQUARE]},
        ],
    }


def _read(path: Path, content: dict) -> None:
    read_instances(put(path / "instances.json", json.dumps(content)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segmentation": SQUARE}, "one list of numbers"),
        ({"segmentation": [[*SQUARE, 3.0]]}, "9 numbers, which are no pairs"),
        ({"segmentation": [list(map(str, SQUARE))]}, "coordinate '10.0', which is no number"),
        ({"segmentation": [[True, *SQUARE[1:]]]}, "coordinate True"),
        *(({"segmentation": [[value, *SQUARE[1:]]]}, "which is no number") for value in (NAN, INF, -INF)),
        *(({"segmentation": [[value, *SQUARE[1:]]]}, "far outside") for value in (1e18, -1e9, 10**30, 1e7)),
        ({"segmentation": "abc"}, "its segmentation is str"),
        ({"segmentation": {"counts": [100, 20, 2440], "size": [40, 64]}}, r"of size \[40, 64\].*\[48, 64\]"),
        ({"segmentation": {"counts": [1]}}, "of size None"),
        ({"segmentation": {"counts": [1], "size": [10**6, 10**6]}}, "of size"),
        ({"segmentation": {"counts": [100, 20], "size": [48, 64]}}, "fill 120 pixels of 3072"),
        ({"segmentation": {"counts": [0, 10**6], "size": [48, 64]}}, "above the number of pixels"),
        ({"segmentation": {"counts": [0, -5, 3077], "size": [48, 64]}}, "below 0"),
        ({"segmentation": {"counts": [0, 3072.0], "size": [48, 64]}}, "neither a list of whole numbers"),
        ({"segmentation": {"size": [48, 64]}}, "neither a list of whole numbers"),
        ({"segmentation": {"counts": "X6", "size": [48, 64]}}, "fill|below 0"),
        ({"segmentation": {"counts": "~~~~~~~~~~", "size": [48, 64]}}, "characters that"),
        ({"segmentation": {"counts": "0ooooooooo", "size": [48, 64]}}, "damaged|cut short"),
        ({"segmentation": {"counts": "0o", "size": [48, 64]}}, "cut short"),
        ({"image_id": 99}, "image_id 99 is the id of no image"),
        ({"image_id": [1]}, "the id of no image"),
        ({"category_id": 99}, "category_id 99 is the id of no category"),
    ],
)  # fmt: skip
def test_annotations_of_coco_that_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    """Before the C library sees them; with the ids of annotation and image."""
    with pytest.raises(UserError, match=rf"instances\.json .*unusable entries: 1: annotation .*{message}"):
        _read(tmp_path, _instances(**changes))
    if "segmentation" in changes:
        with pytest.raises(UserError, match=f"annotation 5 cannot be painted: .*{message}"):
            paint_mask((48, 64), [Region(0, changes["segmentation"], False, 5)])


@pytest.mark.parametrize(
    ("key", "entry", "message"),
    [
        ("images", {"id": 1, "file_name": "x.jpg", "height": 4, "width": 4}, "image 1: 000000000001 is there more"),
        ("images", {"id": "img", "file_name": "x.jpg", "height": 4, "width": 4}, "'img' is no COCO image number"),
        ("images", {"id": 3, "file_name": "x.jpg"}, "image 3: height None and width None are no size"),
        ("images", {"id": 3, "file_name": "x.jpg", "height": 10**6, "width": 10**6}, "are no size"),
        ("images", {"id": 3, "file_name": "../x.jpg", "height": 4, "width": 4}, "no file below the folder"),
        ("images", {"id": 3, "file_name": "/x.jpg", "height": 4, "width": 4}, "no file below the folder"),
        ("images", {"id": 3, "height": 4, "width": 4}, "file_name None"),
        ("images", {}, "image None: its id is neither"),
        ("images", 3, "no list 'images'"),
        ("categories", {"id": 3, "name": "cow"}, "category 'cow': its id 3 is there more than once"),
        ("categories", {"id": "a", "name": "cow"}, "its id 'a' is no whole number"),
        ("categories", {"id": 9, "name": 3}, "its name 3 is no text"),
        ("categories", {"id": 9, "name": "cat"}, "more than once: cat"),
        ("categories", {"id": 0, "name": "background"}, "background is no class"),
        ("categories", {"id": 9}, "categories without a name"),
    ],
)
def test_images_and_categories_of_coco_that_are_refused(tmp_path: Path, key: str, entry: object, message: str) -> None:
    content = _instances()
    content[key].append(entry)
    with pytest.raises(UserError, match=rf"instances\.json .*{message}"):
        _read(tmp_path, content)


def test_lists_of_coco(tmp_path: Path) -> None:
    for key in ("images", "annotations", "categories"):
        content = _instances()
        del content[key]
        with pytest.raises(UserError, match=f"no list {key!r}.*Take an instances"):
            _read(tmp_path, content)


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        (None, "annotations without a segmentation"), ([], "annotations without a segmentation"),
        ({"counts": [3072], "size": [48, 64]}, "annotations without a segmentation"),
        ([[1.0, 1.0, 5.0, 5.0]], "polygons of fewer than three points"),
        ([[5.0] * 6], "annotations that cover no pixel"),
    ],
)  # fmt: skip
def test_regions_that_paint_nothing_are_counted(segmentation: object, reason: str) -> None:
    mask, unpainted = paint_mask((48, 64), [Region(0, segmentation, False, 1)])
    assert not mask.any() and unpainted == {reason: 1}


def test_regions_at_the_edge() -> None:
    """A polygon may reach over it; numbers may be written as floats, or ids as texts."""
    outer = [-20.0, -20.0, 200.0, -20.0, 200.0, 200.0, -20.0, 200.0]
    assert (paint_mask((48, 64), [Region(0, [outer], False, 1)])[0] == 1).all()
    full = {"counts": [0, 3072], "size": [48.0, 64.0]}
    assert (paint_mask((48, 64), [Region(0, full, False, 1)])[0] == 1).all()


def test_packed_run_lengths_are_pycocotools_own() -> None:
    from pycocotools import mask as rle_tools

    random = np.random.default_rng(0)
    for density in (0.0, 0.02, 0.5, 0.98, 1.0):
        mask = np.asfortranarray((random.random((37, 53)) < density).astype(np.uint8))
        mask[5:30, 7:9] = 1
        packed = rle_tools.encode(mask)
        checked = outline({"size": [37, 53], "counts": packed["counts"].decode()}, (37, 53))
        values = np.repeat(np.arange(len(checked.counts)) % 2, checked.counts).reshape((37, 53), order="F")
        np.testing.assert_array_equal(values, mask)


def test_labels_of_instances(tmp_path: Path) -> None:
    """By the categories' names; boxes alone suffice; other data sets know images by their files."""
    content = _instances(segmentation=None, image_id=1.0)
    path = put(tmp_path / "instances.json", "\ufeff" + json.dumps(content))
    labels = read_labels(path, ["000000000001"], ["dog", "cat"], "coco14")
    assert labels["000000000001"].tolist() == [0, 1]
    assert read_labels(path, ["2"], ["dog", "cat"], "folder")["2"].tolist() == [1, 0]
    with pytest.raises(UserError, match="not the classes of the data set; the two differ in cow, dog"):
        read_labels(path, [], ["cat", "cow"], "coco14")


def test_damaged_label_arrays(tmp_path: Path) -> None:
    """Conversions fail at the reader's boundary."""
    path = tmp_path / "cls_labels.npy"
    for table, message in (
        ({"im": np.array("x")}, "'im'"), ({"..": np.ones(2)}, "leads out"),
        ({3: np.ones(2), "3": np.zeros(2)}, "twice"),
    ):  # fmt: skip
        np.save(path, table, allow_pickle=True)
        with pytest.raises(UserError, match=rf"image labels in .*cls_labels\.npy: .*{message}"):
            read_labels(path, [], ["cat", "dog"], "folder")
    np.savez(tmp_path / "l.npz", names=np.array([1.5]), bits=np.zeros((1, 1), np.uint8), num_classes=np.int64(2))
    with pytest.raises(UserError, match=r"l\.npz is no label file"):
        read_labels(tmp_path / "l.npz", [], ["cat", "dog"], "folder")
