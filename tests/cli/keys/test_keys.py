"""``llm-gateway keys``, as it is typed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.access.key_format import looks_like_ours
from gateway.cli import main
from tests.cli.keys.commands import Keys, rows


def test_create_prints_the_key_last_and_once(keys: Keys, tmp_path: Path) -> None:
    status, out, err = keys("create", "phone", "Bob's phone", "--admin")
    key = out.splitlines()[-1]
    assert status == 0
    assert out == f"{key}\n"  # nothing else is on stdout
    assert looks_like_ours(key)
    assert key not in err
    assert "admin key k_" in err
    assert "takes effect when one starts" in err
    assert (tmp_path / "data" / "gateway.db").stat().st_mode & 0o777 == 0o600

    status, out, err = keys("list")
    assert status == 0
    assert key not in out + err
    (row,) = rows(out)
    assert row[0].startswith("k_")
    assert row[1:4] == ["phone", "yes", "ok"]
    assert row[-5:] == ["-", "-", "-", "all", "all"]


def test_create_takes_expiry_and_models(keys: Keys) -> None:
    status, _, err = keys("create", "kid", "--expires", "30d", "--models", "a, b,")
    assert status == 0
    assert "expires 2" in err
    (row,) = rows(keys("list")[1])
    assert row[2] == "no"
    assert row[-2:] == ["a, b", "all"]
    assert row[5].endswith("Z")


def test_create_takes_limits_and_personalities(keys: Keys, config: Path) -> None:
    limits = ["--rpm", "60", "--tpm", "20000", "--tpd", "100000", "--concurrency", "2"]
    limits += ["--max-tokens", "500", "--max-seconds", "90"]
    people = ("--personalities", "teacher,pirate", "--default-personality", "pirate")
    assert keys("create", "kid", *limits, *people)[0] == 0
    assert keys("create", "aunt", "--personalities", "")[0] == 0
    kid, aunt = rows(keys("list")[1])
    assert kid[-3:] == [
        "rpm 60, tpm 20000, tpd 100000, concurrency 2, max_tokens 500, max_seconds 90",
        "all",
        "teacher, pirate",
    ]
    assert aunt[-3:] == ["-", "all", "none"]


def test_help_tells_of_every_option(
    capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    with pytest.raises(SystemExit):
        main(["keys", "create", "--help"])
    text = capsys.readouterr().out
    for option in ("models", "personalities", "default-personality", "expires", "admin"):
        with subtests.test(f"{option!r:.80}"):
            assert f"--{option} " in text
    for option in ("rpm", "tpm", "tpd", "concurrency", "max-tokens", "max-seconds"):
        with subtests.test(f"{option!r:.80}"):
            assert re.search(rf"--{option} N\s+\w+", text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("bob", "--rpm", "0"), "rpm must be a whole number of 1 or more"),
        (("bob", "--tpd", "-5"), "tpd must be"),
        (("bob", "--max-tokens", "0"), "max_tokens must be"),
        (
            ("bob", "--personalities", "a", "--default-personality", "b"),
            "'b' is not among those that the key may use: 'a'",
        ),
        (("bob", "--expires", "soon"), "--expires must be a duration"),
        (("bob", "--expires", "0s"), "expires is too short"),
        (("bob", "--expires", "99999999w"), "too long"),
        (("bob", "--models", " , "), "at least one name"),
        (("",), "needs a name"),
        (("a\x1b[2J",), "visible characters"),
    ],
)
def test_create_refuses(keys: Keys, arguments: tuple[str, ...], said: str) -> None:
    status, out, err = keys("create", *arguments)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert said in err
    assert rows(keys("list")[1]) == []


def test_revoke_ends_a_key_and_says_so(keys: Keys) -> None:
    for name in ("one", "two"):
        keys("create", name, "--admin")
    one, two = [row[0] for row in rows(keys("list")[1])]
    status, out, _ = keys("revoke", one)
    assert (status, out) == (0, f"revoked {one} (one)\n")
    status, out, err = keys("revoke", two)
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {two} is the last admin key")
    assert keys("revoke", two, "--force")[0] == 0
    assert [row[3] for row in rows(keys("list")[1])] == ["revoked", "revoked"]
    status, _, err = keys("revoke", "k_12345678")
    assert status == 1
    assert "no key with an id k_12345678" in err


def test_import_takes_over_old_keys(keys: Keys, tmp_path: Path) -> None:
    old = tmp_path / "authKeys.json"
    old.write_text('{"3f9a8b7c6d5e4f3a": {"name": "web"}, "hunter2": {"name": "tv"}}')
    status, out, err = keys("import", str(old))
    assert status == 0
    assert [row[1:] for row in rows(out)[:2]] == [["web", "yes"], ["tv", "yes"]]
    assert out.endswith("imported 2 keys, 2 of them admin keys\n")
    assert "warning: entry 2 (tv): the key has only 7 characters" in err
    assert "plain text: delete it" in err
    assert "3f9a8b7c6d5e4f3a" not in out + err
    assert "hunter2" not in out + err

    status, out, err = keys("import", str(old))
    assert (status, out) == (0, "imported 0 keys, 0 of them admin keys\n")
    assert err.count("is here already") == 2


def test_imported_keys_are_no_admins(keys: Keys, tmp_path: Path) -> None:
    old = tmp_path / "authKeys.json"
    old.write_text('{"3f9a8b7c6d5e4f3a": {}}')
    _, out, err = keys("import", str(old), "--no-admin")
    assert rows(out)[0][2] == "no"
    assert "load and unload" not in err


def test_import_of_a_bad_file_lists_everything_and_changes_nothing(
    keys: Keys, tmp_path: Path
) -> None:
    old = tmp_path / "authKeys.json"
    old.write_text('{"3f9a8b7c6d5e4f3a": {}, "b1946ac92492d234": 5, "tv": {"key": "x"}}')
    status, out, err = keys("import", str(old))
    assert (status, out) == (1, "")
    second, third = err.splitlines()
    assert second.startswith(f"error: {old}: entry 2: what stands behind a key must be an object")
    assert third.startswith(f"error: {old}: entry 3: holds something else than name, description")
    assert rows(keys("list")[1]) == []


def test_who_only_looks_makes_no_database(keys: Keys, tmp_path: Path) -> None:
    """With one, what `login` has written would not be meant any more."""
    status, out, err = keys("list")
    assert (status, rows(out)) == (0, [])
    assert json.loads(keys("list", "--json")[1]) == []
    assert err.startswith("no keys in ")
    status, _, err = keys("revoke", "k_12345678")
    assert status == 1
    assert "there is no key yet (looked for in " in err
    assert not (tmp_path / "data").exists()


def test_a_database_that_cannot_be_opened_is_an_error(keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a folder")
    status, _, err = keys("list")
    assert status == 1
    assert err.startswith("error: the database ")


def test_a_wrong_configuration_lists_each_problem(keys: Keys, config: Path) -> None:
    config.write_text("prot: 1\nhost: 7\n")
    status, _, err = keys("list")
    assert status == 1
    assert {line.split(": ")[2] for line in err.splitlines()} == {"prot", "host"}


@pytest.mark.parametrize("arguments", [["--nonsense"], ["nonsense"], ["keys"], ["keys", "create"]])
def test_what_is_not_understood_is_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: llm-gateway" in capsys.readouterr().err


def test_help_lists_every_command_and_loads_none(subtests: pytest.Subtests) -> None:
    code = (
        "import sys; from gateway.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'pydantic', 'aiohttp', 'sqlalchemy', 'asyncio', 'yaml'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for command in ("serve", "check", "keys", "tls", "init", "models", "status"):
        with subtests.test(f"{command!r:.80}"):
            assert f"\n  {command} " in result.stdout


def test_a_reader_that_leaves_is_no_traceback(config: Path) -> None:
    code = "import sys; from gateway.cli import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", code, "keys", "list", "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == ""
    assert child.returncode == 1
