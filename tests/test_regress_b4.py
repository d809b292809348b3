# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay regress --b4``: any mail gets an answer that b4 can read, and no mail can do anything but name a series."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from regressing import Plan, record

from replay.cli import main
from replay.regress import b4
from replay.regress.b4 import MAX_MAIL, Config, answer, default_config, find, read_config, read_mail
from traces.errors import BadInput

quick = settings(deadline=None, max_examples=300)
COVER = b"""From: A Developer <dev@example.org>
Subject: [PATCH v8 00/14] zswap IAA compress batching
Message-ID: <20250303084724.6490-1-dev@example.org>
Date: Mon, 3 Mar 2025 00:47:10 -0800

Hello.

change-id: 20250101-zswap-batching-0123456789ab
"""
PATCH = b"""Subject: [PATCH v8 14/14] mm: zswap: Compress batching with request
 chaining in zswap_store() of large folios.
Message-ID: <20250303084724.6490-15-dev@example.org>
In-Reply-To: <20250303084724.6490-1-dev@example.org>
References: <older@example.org> <20250303084724.6490-1-dev@example.org>

diff --git a/mm/zswap.c b/mm/zswap.c
"""


def never(base: list[str], patched: list[str], margin: float) -> Any:
    raise AssertionError(f"{base} and {patched} must not be looked at")


def checked(results: list[dict[str, str]]) -> list[dict[str, str]]:
    """What b4's src/b4/review/checks.py takes: objects of text, with a status that it knows."""
    loaded: list[dict[str, str]] = json.loads(json.dumps(results))
    for result in loaded:
        assert set(result) == {"tool", "status", "summary", "url", "details"}
        assert all(isinstance(value, str) for value in result.values())
        assert result["status"] in ("pass", "warn", "fail")
        assert "\n" not in result["summary"]
    return loaded


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of one series, whose patched kernel stores longer objects."""
    record(tmp_path / "base", Plan())
    record(tmp_path / "patched", Plan(longer=40, release="7.4"))
    path = tmp_path / "series.toml"
    path.write_text('[[series]]\nname = "batching"\nsubject = "zswap.*compress batching"\nrevision = 8\n'
                    'change-id = "20250101-zswap-batching-0123456789ab"\n'
                    'message-id = "<20250303084724.6490-1-dev@example.org>"\n'
                    'base = ["base"]\npatched = ["patched"]\nurl = "https://example.org/results"\n')
    return path


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mail: bytes, *words: str
        ) -> tuple[int, list[dict[str, str]], str]:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(mail)))
    status = main(["regress", "--b4", *words])
    out = capsys.readouterr()
    return status, checked(json.loads(out.out)), out.err


# ---- the whole of it -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mail", [COVER, PATCH])
def test_a_known_series_is_compared(mail: bytes, config: Path, monkeypatch: pytest.MonkeyPatch,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    status, (result,), err = run(monkeypatch, capsys, mail, "--config", str(config))
    assert (status, err) == (1, "")
    assert (result["tool"], result["status"], result["url"]) == ("zreplay-regress", "fail", "https://example.org/results")
    assert result["summary"].startswith("batching: worse (stored length, mean")
    assert "7.4 against 7.3" in result["summary"]
    assert "stored length, mean" in result["details"]
    assert max(map(len, result["details"].splitlines())) <= 75


def test_nothing_worse_passes_and_nothing_told_warns(config: Path, monkeypatch: pytest.MonkeyPatch,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    text = config.read_text()
    for name in ("base-2", "base-3", "new-1", "new-2", "new-3"):
        record(config.parent / name)
    config.write_text(text.replace('["base"]', '["base", "base-2", "base-3"]').replace('["patched"]', '["new-1", "new-2", "new-3"]'))
    status, (result,), _ = run(monkeypatch, capsys, COVER, "--config", str(config))
    assert (status, result["status"]) == (0, "pass"), result
    assert "checks are conclusive" in result["details"]
    # One run given as both says nothing.
    config.write_text(text.replace('["patched"]', '["base"]'))
    status, (result,), _ = run(monkeypatch, capsys, COVER, "--config", str(config))
    assert (status, result["status"]) == (2, "fail")
    assert "is given twice; give each run once" in result["summary"]
    record(config.parent / "lossy", Plan(losses=[{"cpu": 0, "lost": 1}]))
    config.write_text(text.replace('["patched"]', '["lossy"]'))
    status, (result,), _ = run(monkeypatch, capsys, COVER, "--config", str(config))
    assert (status, result["status"]) == (3, "warn")


def test_an_unknown_series_is_told_so(config: Path, monkeypatch: pytest.MonkeyPatch,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    other = COVER.replace(b"zswap IAA", b"zram").replace(b"6490", b"1").replace(b"change-id", b"other")
    status, (result,), err = run(monkeypatch, capsys, other, "--config", str(config))
    assert (status, result["status"], err) == (3, "warn", "")
    assert "nothing was compared: no series of" in result["summary"]
    assert "zram compress batching" in result["summary"]
    config.write_text('unknown = "none"\n' + config.read_text())
    assert run(monkeypatch, capsys, other, "--config", str(config)) == (3, [], "")


def test_another_revision_is_another_series(config: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    status, (result,), _ = run(monkeypatch, capsys, COVER.replace(b"v8", b"v9"), "--config", str(config))
    assert (status, result["status"]) == (3, "warn")


def test_without_a_configuration_no_series_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    status, (result,), _ = run(monkeypatch, capsys, COVER)
    assert (status, result["status"]) == (3, "warn")
    assert str(tmp_path / "zreplay" / "series.toml") in result["summary"]
    (tmp_path / "zreplay").mkdir()
    (tmp_path / "zreplay" / "series.toml").write_text(
        '[[series]]\nsubject = "batching"\nbase = ["a"]\npatched = ["b"]\n')
    status, (result,), err = run(monkeypatch, capsys, COVER)
    assert (status, result["status"]) == (2, "fail")
    assert "does not exist" in result["summary"]
    assert str(tmp_path / "zreplay" / "a") in err
    assert err.count("\n") == 1


def test_a_configuration_that_is_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    status, (result,), err = run(monkeypatch, capsys, COVER, "--config", str(tmp_path / "none.toml"))
    assert (status, result["status"]) == (2, "fail")
    assert "does not exist" in result["summary"]
    assert err.startswith("zreplay: ")


def test_a_huge_mail_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            assert size > 0
            self.given += size
            return b"Subject: [PATCH] x\n\n".ljust(size, b"x")

    stream = Endless()
    results, status = answer(stream, Config(Path("x")), 0.02, never)  # type: ignore[arg-type]
    assert stream.given == MAX_MAIL + 1
    assert (status, checked(results)[0]["status"]) == (3, "warn")
    assert "larger than" in results[0]["summary"]


# ---- mails -----------------------------------------------------------------------------------------------


def test_what_a_mail_says() -> None:
    cover, patch = read_mail(COVER), read_mail(PATCH)
    assert (cover.title, cover.revision, cover.place) == ("zswap IAA compress batching", 8, (0, 14))
    assert cover.change_id == "20250101-zswap-batching-0123456789ab"
    assert cover.ids == ("20250303084724.6490-1-dev@example.org",)
    assert patch.title.endswith("with request chaining in zswap_store() of large folios.")
    assert patch.ids == ("20250303084724.6490-15-dev@example.org", "20250303084724.6490-1-dev@example.org",
                         "older@example.org")


@pytest.mark.parametrize(("subject", "expected"), [
    (b"[PATCH] mm: x", ("mm: x", True, 1, None)), (b"[RFC PATCH v2 3/7] x", ("x", True, 2, (3, 7))),
    (b"[PATCH mm-unstable v14 26/26] x", ("x", True, 14, (26, 26))), (b"[mm?] [PATCH 1/2] x", ("x", True, 1, (1, 2))),
    (b"Re: [PATCH v2 1/2] x", ("Re: [PATCH v2 1/2] x", False, 1, None)), (b"hello", ("hello", False, 1, None)),
    (b"[PATCH v99999 1/2]", ("", True, 1, (1, 2))), (b"[PATCH a/b]x", ("x", True, 1, None)),
    (b"=?UTF-8?B?W1BBVENIIHYzIDEvMl0gbW06IMOk?=", ("mm: \xe4", True, 3, (1, 2))),
    (b"=?utf-8?q?=5BPATCH_v3_1/2=5D?= =?iso-8859-1?q?_mm:_=E4?=", ("mm: \xe4", True, 3, (1, 2))),
    (b"=?nosuch?q?=5BPATCH=5D_x?=", ("=?nosuch?q?=5BPATCH=5D_x?=", False, 1, None)),
    (b"=?utf-8?b?!!!?= [PATCH] x", None), (b"", ("", False, 1, None)), (b"[" * 5000, None),
    (b"[PATCH]\xff\xfe \x00x", None)])
def test_subjects(subject: bytes, expected: tuple[str, bool, int, tuple[int, int] | None] | None) -> None:
    mail = read_mail(b"Subject: " + subject + b"\n\nbody\n")
    if expected is not None:
        assert (mail.title, mail.patch, mail.revision, mail.place) == expected


def test_a_change_id_in_parts_and_encodings() -> None:
    parts = (b"Subject: [PATCH 0/2] x\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=zz\n\n--zz\n"
             b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: %s\n\n%s\n--zz\n"
             b"Content-Type: application/octet-stream\n\nchange-id: wrong\n--zz--\n")
    assert read_mail(parts % (b"8bit", b"change-id: 2025-a")).change_id == "2025-a"
    assert read_mail(parts % (b"quoted-printable", b"change-id:=202025=\n-a")).change_id == "2025-a"
    assert read_mail(parts % (b"quoted-printable", b"change-id:=202025-a")).change_id == "2025-a"
    assert read_mail(parts % (b"base64", b"Y2hhbmdlLWlkOiAyMDI1LWEK")).change_id == "2025-a"
    assert read_mail(parts % (b"base64", b"\xff\xff!")).change_id == ""
    assert read_mail(b"Subject: x\nX-Change-ID: 2025-b\n\nchange-id: c\n").change_id == "2025-b"


@pytest.mark.parametrize("mail", [
    b"", b"\n", b"\0" * 100, b"no header at all", b"Subject: [PATCH] x", b"From nobody\nSubject: [PATCH] x\n\n",
    b"Subject: [PATCH] x\nContent-Type: multipart/mixed\n\nno boundary",
    b"Subject: [PATCH] x\n" + b"".join(b'Content-Type: multipart/mixed; boundary="%d"\n\n--%d\n' % (n, n)
                                       for n in range(3000)),
    b"Subject: [PATCH] x\nContent-Type: message/rfc822\n\n" * 500, b"Content-Type: text/plain; charset*=''%\n\n",
    b"Subject: [PATCH] x\nContent-Transfer-Encoding: x-uuencode\n\nbegin 666 /etc/passwd\nM\n",
    b"Subject: [PATCH] x\nReferences: " + b"<a@b> " * 100_000 + b"\n\n"])
def test_malformed_mails_are_of_no_known_series(mail: bytes) -> None:
    results, status = answer(io.BytesIO(mail), Config(Path("x")), 0.02, never)
    assert (status, checked(results)[0]["status"]) == (3, "warn")


@quick
@given(st.one_of(st.binary(max_size=400), st.lists(st.sampled_from([
    b"Subject: ", b"[PATCH v3 1/2] ", b"=?utf-8?", b"b?", b"q?", b"?=", b"\n", b"\n\n", b" ", b"Message-ID: <", b"@>",
    b"Content-Type: multipart/mixed; boundary=", b"a", b"--a", b"--a--", b"Content-Transfer-Encoding: base64",
    b"change-id: ", b"\xff", b"\0", b"References: ", b"message/rfc822", b";charset=", b"\r\n", b"=", b"<", b">"]),
    max_size=60).map(b"".join)), st.booleans())
def test_any_bytes_get_an_answer(mail: bytes, silent: bool) -> None:
    results, status = answer(io.BytesIO(mail), Config(Path("x"), silent=silent), 0.02, never)
    assert status == 3
    assert len(checked(results)) == (not silent)


@pytest.mark.parametrize("name", ["/etc/passwd", "../../x", "$(touch x)", "`id`", "base"])
def test_a_mail_names_no_recordings(name: str, config: Path, monkeypatch: pytest.MonkeyPatch,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever stands in it, only what the configuration names is opened."""
    opened: list[str] = []
    monkeypatch.setattr("replay.cli.regress.Recording", lambda path: opened.append(path) or 1 / 0)
    mail = COVER.replace(b"Hello.", name.encode()).replace(b"IAA", name.encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(mail)))
    assert main(["regress", "--b4", "--config", str(config)]) == 70
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert opened == [str(config.parent / "base")]


# ---- configurations --------------------------------------------------------------------------------------

SERIES = '[[series]]\nsubject = "x"\nbase = ["a"]\npatched = ["b"]\n'


@pytest.mark.parametrize(("text", "what"), [
    ("a = ", "is not readable TOML"), ("\xff", None), ("x = 1\n", "key 'x': is not known"),
    ("series = 3\n", "is not a list of tables"), ("series = [3]\n", "is not a list of tables"),
    ('unknown = "pass"\n', "neither"), ("[[series]]\n", "names no recordings"),
    ('[[series]]\nbase = ["a"]\npatched = ["b"]\n', "has nothing that identifies its mails"),
    (SERIES + 'subjekt = "x"\n', "key 'subjekt' is not known"), (SERIES.replace('"x"', '"("'), "regular expression"),
    (SERIES.replace('["a"]', '"a"'), "key 'base' is of the wrong type"), (SERIES.replace('["a"]', "[1]"), "list of texts"),
    (SERIES + "revision = true\n", "wrong type"), (SERIES + "margin = 1000\n", "percent from 0 to 100"),
    (SERIES + "margin = nan\n", "percent from 0 to 100"), ("a = " + "[" * 5000, "is not readable TOML")])
def test_configurations_that_make_no_sense(text: str, what: str | None, tmp_path: Path) -> None:
    path = tmp_path / "series.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput, match=what and what.replace("(", r"\(")):
        read_config(path, needed=True)


def test_a_configuration_too_large(tmp_path: Path) -> None:
    path = tmp_path / "series.toml"
    path.write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(BadInput, match="too large"):
        read_config(path, needed=True)
    with pytest.raises(BadInput, match="cannot be read"):
        read_config(tmp_path, needed=True)


def test_recordings_are_looked_for_beside_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    path = tmp_path / "series.toml"
    path.write_text(SERIES.replace('["a"]', '["a", "/abs/b", "~/c"]') + "margin = 5\n")
    (series,) = read_config(path, needed=True).series
    assert series.base == [str(tmp_path / "a"), "/abs/b", "/home/somebody/c"]
    assert series.margin == 0.05
    assert default_config({"XDG_CONFIG_HOME": "/x"}) == Path("/x/zreplay/series.toml")
    assert default_config({"XDG_CONFIG_HOME": "relative"}) == default_config({}) \
        == Path("/home/somebody/.config/zreplay/series.toml")


def test_a_message_id_comes_before_a_change_id_before_a_subject(tmp_path: Path) -> None:
    path = tmp_path / "series.toml"
    path.write_text("".join(f'[[series]]\nname = "{name}"\n{by}\nbase = ["a"]\npatched = ["b"]\n' for name, by in (
        ("subject", 'subject = "BATCHING"'), ("change", 'change-id = "20250101-zswap-batching-0123456789ab"'),
        ("message", 'message-id = ["x@y", "20250303084724.6490-1-dev@example.org"]'))))
    series = read_config(path, needed=True).series
    for mail, parts, expected in ((COVER, series, "message"), (COVER, series[:2], "change"), (COVER, series[:1], "subject"),
                                  (PATCH, series, "message"), (PATCH, series[:2], "subject")):
        found = find(parts, read_mail(mail))
        assert found is not None
        assert found.name == expected
    assert find(series, read_mail(b"Subject: [PATCH] other\n\n")) is None


def test_names_from_a_configuration_stay_in_one_line() -> None:
    assert b4.check("pass", "a\nb\x1b[31m\u2028c")["summary"] == "a b?[31m c"


def test_the_document_s_example_is_a_configuration(tmp_path: Path) -> None:
    import re

    text = (Path(__file__).resolve().parents[1] / "docs" / "regress.md").read_text()
    found = re.search(r"^```toml\n(.*?)^```", text, re.M | re.S)
    assert found is not None
    path = tmp_path / "series.toml"
    path.write_text(found[1])
    config = read_config(path, needed=True)
    assert not config.silent
    for mail in (COVER, PATCH):
        assert find(config.series, read_mail(mail)) is not None
