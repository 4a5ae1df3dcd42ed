"""Configurations in JavaScript, read as data: what is understood, what is told, what never is."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.legacy.javascript import Script, read_script

FOLDER = "/old"

#: As LLM-API's own documentation has it.
DOCUMENTED = """const config = {
    host: '0.0.0.0', // Host to listen on all network interfaces
    port: 80, // (443 for SSL, 80 for normal)
    useSSL: false, //Flag
    llamaMain: 'D:\\\\llama-cpp\\\\bin\\\\Release\\\\main.exe', // usually bin\\Release\\main.exe

    // SSL Configuration
    passphrase: '<passphrase>', /* if any */
};

module.exports = config;"""


def values(text: str) -> dict[str, Any]:
    settings = read_script(text, FOLDER).settings
    return {name: one.value for name, one in (settings or {}).items()}


def one(expression: str, before: str = "") -> Any:
    """The value of ``expression``, which is understood."""
    script = read_script(f"{before}\nmodule.exports = {{ x: {expression} }}", FOLDER)
    assert not script.unread, script.unread
    assert script.settings is not None
    return script.settings["x"].value


def told(script: Script) -> list[tuple[int, int, str]]:
    return [(unread.line, unread.column, unread.name) for unread in script.unread]


def test_documented_config_js_is_read_whole() -> None:
    script = read_script(DOCUMENTED, FOLDER)
    assert script.unread == ()
    assert values(DOCUMENTED) == {
        "host": "0.0.0.0",
        "port": 80,
        "useSSL": False,
        "llamaMain": "D:\\llama-cpp\\bin\\Release\\main.exe",
        "passphrase": "<passphrase>",
    }
    assert script.settings is not None
    assert script.settings["port"][1:3] == (3, 11)


@pytest.mark.parametrize(
    "text",
    [
        "module.exports = {port: 80, 'host': \"h\", };",
        "exports.port = 80\nexports.host = `h`",
        "module.exports.port = 80; module.exports['x'] ; exports.host = 'h'",
        "'use strict'\nexport default {port: 80, host: 'h'}",
        "export const port = 80, host = 'h'",
        "const port = 80; const host = 'h'\nexport { port, host }",
        "const c = {port: 80}\nexport { c as default }\nc.host = 'h'",
        "let port = 1; port = 80; const all = {port, host: 'h'}; module.exports = {...all}",
        "const a = {port: 80, host: 'x'}\nmodule.exports = exports = {...a, host: 'h'}",
        "function f() { return {port: 1} }\nmodule.exports = Object.freeze({port: 80, host: 'h'})",
        "\nmodule\n.exports\n= {\nport\n:\n80,host:'h'}",
        "// {\n/* ' */ module.exports = {port: 0x50, host: 'h'} // }",
    ],
)
def test_each_form_of_exporting_is_read(text: str) -> None:
    assert values(text) == {"port": 80, "host": "h"}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (r"'a\'b\\c\n\x41\u00e9\u{1F600}'", "a'b\\c\nA\u00e9\U0001f600"),
        (r'"\ud83d\ude00"', "\U0001f600"),
        ("'one \\\ntwo'", "one two"),
        ("`two\nlines`", "two\nlines"),
        ("-1", -1),
        ("1_000", 1000),
        ("1.5e3", 1500.0),
        ("0b101", 5),
        ("[1, 'a', [true, null, undefined],]", [1, "a", [True, None, None]]),
        ("{ a: { 'b-c': 1, 2: 3 } }", {"a": {"b-c": 1, "2": 3}}),
        ("('in brackets')", "in brackets"),
        ("__dirname + '/ssl/' + 'k.pem'", "/old/ssl/k.pem"),
        ("`${__dirname}/a-${1 + ''}`".replace("1 + ''", "1"), "/old/a-1"),
        ("null || 'b'", "b"),
        ("0 ?? 5", 0),
        ("'a' || f", "a"),
        ("Number('443')", 443),
    ],
)
def test_values_are_read(expression: str, value: Any) -> None:
    before = "const f = 'never used'"
    assert one(expression, before) == value


@pytest.mark.parametrize(
    ("before", "expression"),
    [
        ("const path = require('path')", "path.join(__dirname, '..', 'c', 'k.pem')"),
        ("import path from 'node:path'", "path.resolve(__dirname, '../c/./k.pem')"),
        ("import * as p from 'path'", "p.resolve('/x', '/c', 'k.pem')"),
        ("const { join: j } = require('path')", "j('/c', 'k.pem')"),
        ("import { join } from 'path'", "join('/c\\\\k.pem')"),
        ("", "require('path').join('/', 'c', 'k.pem')"),
        (
            "import path from 'path'; import { fileURLToPath } from 'url'\n"
            "const __filename = fileURLToPath(import.meta.url)\n"
            "const __dirname = path.dirname(__filename)",
            "path.join(__dirname, '../c/k.pem')",
        ),
    ],
)
def test_paths_are_joined(before: str, expression: str) -> None:
    assert one(expression, before) == "/c/k.pem"


@pytest.mark.parametrize(
    "expression",
    [
        "process.env.PORT || 8443",
        "process.env['PORT'] ?? 8443",
        "parseInt(process.env.PORT || '8443', 10)",
        "parseInt(process.env.PORT, 10) || 8443",
        "Number(process.env.PORT ?? 8443)",
        "(process.env.PORT || process.env.PORT2) || 8443".replace("(", "").replace(")", ""),
    ],
)
def test_the_environment_is_its_default_and_says_so(
    expression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", "1")  # of another program, at another time
    script = read_script(f"module.exports = {{port: {expression}}}", FOLDER)
    assert script.settings is not None
    assert script.settings["port"].value == 8443
    assert "is set" in script.settings["port"].note
    assert "PORT" in script.environment
    assert not script.unread


#: What stands for a value -> what is said of it.
CODE = {
    "process.env.SECRET": "the environment variable SECRET, which has no default here",
    "process.env.SSL === 'true'": "the environment variable SSL",
    "fs.readFileSync('/etc/hostname', 'utf8').trim()": "the name fs, which isn't known here",
    "require('./other.json')": "another file, ./other.json, which isn't read",
    "require('os').hostname()": "os.hostname of Node.js",
    "prod ? 443 : 80": "the name prod, which isn't known here",
    "true ? 443 : 80": "a condition (a ? b : c)",
    "'a' && 'b'": "a condition (a && b)",
    "1 === 2": "a comparison",
    "60 * 1000": "an expression with *",
    "1 + 1": "a sum",
    "() => 5": "a function",
    "a => a": "a function",
    "async () => { await x }": "a function",
    "function () { return { a: '}' } }": "a function",
    "new Date()": "a new object",
    "/[}]/.test('x')": "a regular expression",
    "`a${new Date()}`": "a new object",
    "['a', f()]": "the name f, which isn't known here",
    "010": "a number in a form that isn't understood",
    "x.y.z": "the name x, which isn't known here",
    "'\\ud83d'": "half a character in a text",
    "path": "something of Node.js",
    "path.relative('a', 'b')": "path.relative of Node.js",
    "path.join(1)": "a call of path.join() with something else than texts",
}


@pytest.mark.parametrize(("code", "what"), CODE.items())
def test_code_is_told_and_left_out(code: str, what: str) -> None:
    text = f"const path = require('path')\nmodule.exports = {{\n  a: 1,\n  x: {code},\n  z: 2\n}}"
    script = read_script(text, FOLDER)
    if script.settings is None:  # not even its tokens are understood
        assert code in ("010", "'\\ud83d'")
    else:
        assert values(text) == {"a": 1, "z": 2}
        assert [unread.name for unread in script.unread] == ["x"]
    assert what in script.unread[0].what
    assert script.unread[0].line == 4


def test_what_changes_settings_is_told_with_its_place() -> None:
    text = (
        "const c = { port: 80, host: 'a', ...other,\n  [k]: 1, f() {}, get g() { return 1 } }\n"
        "if (process.env.X) {\n  c.port = 1\n} else { c.port = 2 }\n"
        "Object.assign(c, require('./x'))\n"
        "c.host = pick()\n"
        "for (const k of [1]) c[k] = k;\n"
        "module.exports = c\n"
    )
    script = read_script(text, FOLDER)
    assert values(text) == {"port": 80}  # the host is no longer what it was
    assert told(script) == [
        (1, 37, ""),
        (2, 3, ""),
        (2, 11, "f"),
        (2, 19, ""),
        (3, 1, ""),
        (6, 7, ""),
        (7, 10, "host"),
        (8, 1, ""),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "module.exports = {a: 1",
        "module.exports = {a: 'b}",
        "module.exports = {a: `b}",
        "module.exports = {a: `${b}",
        "module.exports = [",
        "module.exports = 5",
        "/* module.exports = {a: 1}",
        "}",
        "{",
        "",
        "\u0663",
        "\x00",
        "import",
        "export",
        "const",
        "const {",
        "function",
        "module.exports = " + "{a:" * 5000,
        "module.exports = " + "[" * 5000,
        "module.exports = " + "(" * 5000,
        "module.exports = " + "`${" * 5000,
        "module.exports = " + "a." * 5000,
    ],
)
def test_broken_files_end_in_words(text: str) -> None:
    script = read_script(text, FOLDER)
    assert not script.settings
    assert all(unread.line == 1 for unread in script.unread)


@pytest.mark.parametrize(
    "code",
    [
        "decrypt('hunter22')",
        "'hunter22'.trim()",
        "'a' + b + 'hunter22'",
        "['hunter22'][0]",
        "`hunter22${x}`",
        "{a: 'hunter22'}.a ? 1 : 2",
        "'hunter22",
        "hunter22x`a`",
    ],
)
def test_no_text_of_the_file_is_in_what_is_told(code: str) -> None:
    """It may be a password."""
    script = read_script(f"module.exports = {{passphrase: {code}}}", FOLDER)
    assert script.unread
    shown = " ".join(unread.what for unread in script.unread)
    assert "hunter22'" not in shown
    assert "hunter22 " not in f"{shown} ", shown
