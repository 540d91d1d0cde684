"""A pool's table as spreadsheets and people write it: read rightly, or one line with the file and the row."""

import logging

import pytest

from mcpipe.bench.face_table import face_attributes
from mcpipe.bench.portraits import portraits

IMAGES = ["a.png", "b.PNG", "sub/c.jpg", "J\u00fcrg.png"]
PLAIN = "file,skin,hair\na.png,tan,grau\nb.PNG,brown,wei\u00df\n"
READ = {"a.png": {"skin": "tan", "hair": "grau"}, "b.PNG": {"skin": "brown", "hair": "wei\u00df"}}


def attributes(folder, content):
    table = folder / "faces.csv"
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    return face_attributes(table, IMAGES)


def test_tables_of_any_spreadsheet_are_read(tmp_path, caplog):
    for content in (
        PLAIN,
        PLAIN.rstrip("\n"),
        "\ufeff" + PLAIN,
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", "|"),
        "sep=;\n" + PLAIN.replace(",", ";"),
        PLAIN.replace(",", ", "),
        PLAIN.replace(",", " ; "),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.replace("\n", "\n\n"),
        PLAIN.replace("\n", "\n,,\n"),
        PLAIN.replace("\n", ",\n"),
        PLAIN + "a.png,tan,grau\n",
        PLAIN.replace("file", "File"),
        PLAIN.replace("b.PNG", "b.png").replace("a.png", "a.PNG"),
        '"file", "skin", "hair"\n"a.png", "tan", "grau"\n"b.PNG","brown","wei\u00df"\n',
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-16-le"),
        PLAIN.encode("utf-16-be"),
        PLAIN.encode("utf-32"),
    ):
        assert attributes(tmp_path, content) == READ, content
    assert not caplog.messages
    with caplog.at_level(logging.WARNING):
        assert attributes(tmp_path, PLAIN.encode("cp1252")) == READ
    assert "is not UTF-8 and is read as Windows-1252" in caplog.text


def test_names_are_those_of_other_systems_and_values_may_hold_separators(tmp_path):
    assert attributes(tmp_path, 'file;note\nsub\\c.jpg;"long; ""fair"", bobbed"\n') == {
        "sub/c.jpg": {"note": 'long; "fair", bobbed'}
    }
    assert attributes(tmp_path, "file\nJu\u0308rg.png\n") == {"J\u00fcrg.png": {}}, "decomposed, as macOS writes it"
    assert attributes(tmp_path, "note,file\nx,a.png\n") == {"a.png": {"note": "x"}}
    assert attributes(tmp_path, "file,note\na.png,\n") == {"a.png": {"note": ""}}
    assert attributes(tmp_path, "file,note\n") == {}


def test_whatever_cannot_be_read_for_sure_is_one_line_with_the_row(tmp_path):
    for content, row, fault in (
        (PLAIN + "a.png,tan\n", 4, "2 fields, but the header has 3"),
        (PLAIN + "\na.png,tan,grey,extra\n", 5, "4 fields, but the header has 3"),
        (PLAIN + "gone.png,tan,grey\n", 4, "there is no image 'gone.png' in .*; mend the name or remove the row"),
        (PLAIN + ",tan,grey\n", 4, "there is no image ''"),
        (PLAIN + "a.png,pale,grau\n", 4, "says something else of a.png than row 2"),
        (PLAIN + 'a.png,"tan,grau\n', 4, "unexpected end of data"),
        (PLAIN.replace("brown", "bro\0wn"), 3, "a NUL character"),
        ("name,skin\na.png,tan\n", 1, "the header has no column called file"),
        ("\n\nname,skin\na.png,tan\n", 3, "the header has no column called file"),
        ("file,skin,skin\na.png,tan,tan\n", 1, "two columns are called skin"),
        ("file,,skin\na.png,x,tan\n", 2, "a field stands in a column without a name"),
        (PLAIN.encode("cp1252").replace(b"tan", b"t\x81n"), 2, "no cp1252 text"),
        (PLAIN.encode("utf-16")[:-1], 3, "no utf-16-le text"),
        (bytes(64), 1, "a NUL character"),
    ):
        with pytest.raises(ValueError, match=rf"faces\.csv, row {row}: {fault}") as refusal:
            attributes(tmp_path, content)
        assert "\n" not in str(refusal.value)
    for content in ("", "\n \r\n", "\ufeff"):
        with pytest.raises(ValueError, match=r"faces\.csv is empty"):
            attributes(tmp_path, content)
    (tmp_path / "faces.csv").write_text("file,skin\nd.png,tan\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"row 2: 'd\.png' is any of"):
        face_attributes(tmp_path / "faces.csv", ["d.PNG", "d.Png"])
    assert face_attributes(tmp_path / "faces.csv", ["d.PNG", "d.png"]) == {"d.png": {"skin": "tan"}}


def test_every_file_below_a_folder_is_a_portrait_but_the_table(tmp_path):
    (tmp_path / "pool" / "sub").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in (
        "pool/b.png",
        "pool/a.png",
        "pool/a.jpg",
        "pool/a",
        "pool/sub/a.png",
        "pool/sub/faces.csv",
        "elsewhere/c.png",
    ):
        (tmp_path / name).touch()
    (tmp_path / "pool" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "pool" / "loop").symlink_to(tmp_path / "pool")
    (tmp_path / "pool" / "FACES.CSV").write_text("file,hair\nsub/a.PNG,red\n", encoding="utf-8")
    pool = portraits(tmp_path / "pool")
    assert [(portrait.key, portrait.name) for portrait in pool] == [
        ("a", "a"), ("a", "a.jpg"), ("a", "a.png"), ("b", "b.png"), ("linked%2Fc", "linked/c.png"),
        ("sub%2Fa", "sub/a.png"), ("sub%2Ffaces", "sub/faces.csv"),
    ]  # fmt: skip
    assert {portrait.name: portrait.attributes for portrait in pool if portrait.attributes} == {
        "sub/a.png": {"hair": "red"}
    }
    (tmp_path / "pool" / "faces.csv").touch()
    with pytest.raises(ValueError, match=r"holds several tables \(FACES\.CSV, faces\.csv\); leave one of them"):
        portraits(tmp_path / "pool")
    (tmp_path / "empty").mkdir()
    for folder, fault in (("empty", "no picture in"), ("absent", "no folder of faces")):
        with pytest.raises(FileNotFoundError, match=fault):
            portraits(tmp_path / folder)
