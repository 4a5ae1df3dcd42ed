"""What a grammar costs, told from its text."""

from __future__ import annotations

import time

import pytest

from gateway.config.settings import RequestSettings
from gateway.proxy.grammar import Measure, measure_grammar, measure_pattern

LIMITS = RequestSettings()

#: In the manner of llama.cpp's own ``grammars``.
HONEST = {
    "json": r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
# a comment with ( in it
ws ::= | " " | "\n" [ \t]{0,20}
""",
    "chess": r"""
root    ::= "1. " move " " move "\n" ([1-9] [0-9]? ". " move " " move "\n")+
move    ::= (pawn | nonpawn | castle) [+#]?
nonpawn ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
pawn    ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
castle  ::= "O-O" "-O"?
""",
    "c": r"""
root ::= (declaration)*
declaration ::= type name "(" (type name)? ")" "{" statement* "}"
type ::= "int" ws | "float" ws | "char" ws
name ::= [a-zA-Z_] [a-zA-Z_0-9]*
statement ::= ( type name ws "=" ws sum ";" ) | ( name ws "(" list? ")" ";" ) |
  ( "if" "(" sum ")" "{" statement* "}" ("else" "{" statement* "}")? ) | "//" [^\n]* "\n"
sum ::= term (("+" | "-") term)*
term ::= factor (("*" | "/") factor)*
factor ::= name | [0-9]+ | "-" factor | name "(" list? ")" | "(" ws sum ws ")"
list ::= sum ("," ws sum)*
ws ::= ([ \t\n]+)
""",
    "properties": 'root ::= "{" ' + " ".join(f'(",\\"name{i}\\":" [0-9]+)?' for i in range(500)),
    "names": "root ::= " + " | ".join(f'"{chr(97 + i % 26)}{i}"' for i in range(2000)),
    "tokens": "root ::= <think> (!</think>)* <[1001]> .*",
    "text": "root ::= [a-z ]{20,4000}",
}


def allowed(found: Measure) -> bool:
    return (
        found.depth <= LIMITS.grammar_depth
        and found.size <= LIMITS.grammar_parts
        and found.choices <= LIMITS.grammar_choices
    )


@pytest.mark.parametrize("name", HONEST)
def test_grammar_that_people_write_is_within_the_limits(name: str) -> None:
    found = measure_grammar(HONEST[name], LIMITS.grammar_depth)
    assert allowed(found), found


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("root ::= " + '("a"|"a")? ' * 400, "choices"),
        ("root ::= " + '("a"|"a")?' * 100, "choices"),
        ('root ::= "x" ' + '"a"? ' * 400, "choices"),
        ("root ::= " + "[ab]? " * 400, "choices"),
        ("root ::= " + "o " * 400 + '\no ::= "a" | ""', "choices"),
        ("root ::= " + "p " * 20 + "\np ::= " + "o " * 20 + '\no ::= ("a")?', "choices"),
        ('root ::= ("a"?){0,400}', "choices"),
        ("root ::= (" + '"a"* ' * 400 + ")+", "choices"),
        ("\n".join(f"r{i} ::= r{i + 1} r{i + 1}" for i in range(60)) + '\nr60 ::= "a"?', "choices"),
        ("root ::= " + "(" * 65 + '"a"' + ")" * 65, "depth"),
        ("root ::= " + "(" * 60_000, "depth"),
        ("root ::= [a-z]{100000}", "size"),
        ("root ::= [a-z]{0, 99999999999999999999}", "size"),
        ('root ::= ((("a"{50}){50}){50}){50}', "size"),
        ("root ::= " + "[a-z]{0,40000} " * 2, "size"),
    ],
)
def test_grammar_that_makes_work_is_over_the_limits(text: str, what: str) -> None:
    found = measure_grammar(text, LIMITS.grammar_depth)
    assert not allowed(found)
    if what == "depth":
        assert found.depth > LIMITS.grammar_depth
    elif what == "size":
        assert found.size > LIMITS.grammar_parts
    else:
        assert found.choices > LIMITS.grammar_choices


@pytest.mark.parametrize(
    "pattern",
    [
        r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-]\d\d:\d\d)$",
        r"^(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}$",
        r"^[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9]+)*@(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+$",
        r"^(?=.*\d)(?P<word>\w{8,64}?)$",
        r"^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$",
        r"^[^\x00]{0,65536}$",
        r"^(?!\.)(?!.*\.\.)([\w'+\-.]*)[\w+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$",
        r"^P(?!$)(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?$",
    ],
)
def test_pattern_that_people_write_is_within_the_limits(pattern: str) -> None:
    assert allowed(measure_pattern(pattern, LIMITS.grammar_depth))


@pytest.mark.parametrize(
    "pattern",
    ["(a|a)?" * 200, "a{999999}", "((((a{50}){50}){50}){50})", "(?:" * 99, "(a?){0,500}"],
)
def test_pattern_that_makes_work_is_over_the_limits(pattern: str) -> None:
    assert not allowed(measure_pattern(pattern, LIMITS.grammar_depth))


@pytest.mark.parametrize(
    ("text", "backwards"),
    [
        ('root ::= "a"{5,2}', True),
        ('root ::= ("a" | b{ 5 ,\n2 })*', True),
        ('root ::= "a"{2,5} b{3,3} c{4,} d{5} e{,6}', False),
        ('root ::= "a{5,2}" [{5,2}]', False),
    ],
)
def test_repetition_with_minimum_above_maximum_is_found(text: str, backwards: bool) -> None:
    """llama-server b11549 writes it out until it has all memory."""
    assert measure_grammar(text, LIMITS.grammar_depth).backwards is backwards


@pytest.mark.parametrize(
    "text", ["", "root", "root ::=", "::= | ) * {", '"', "[", "root ::= (", "a ::= a\n" * 9, "\\"]
)
def test_what_is_no_grammar_is_left_to_llama_server(text: str) -> None:
    assert allowed(measure_grammar(text, LIMITS.grammar_depth))
    measure_pattern(text, LIMITS.grammar_depth)


def test_measuring_is_no_attack_itself() -> None:
    """The most that anybody can have measured, of what takes longest."""
    size = LIMITS.grammar_bytes
    texts = [
        "root ::= " + '("a" b [x] )* ' * (size // 14),
        "\n".join(f"r{i} ::= r{i + 1}?" for i in range(size // 16)),
        "root ::= " + "(" * size,
        'root ::= "' + "\\" * size,
        "root ::= " + "{" * size,
        "root ::= " + "[" * size,
        "root ::= " + "<" * size,
        "root ::= " + "!<" * (size // 2),
        "a" * size,
    ]

    start = time.thread_time()  # the machine has other work, too
    for text in texts:
        measure_grammar(text[:size], LIMITS.grammar_depth)
        measure_pattern(text[:size], LIMITS.grammar_depth)
    assert time.thread_time() - start < 30  # measured: 1.5 s
