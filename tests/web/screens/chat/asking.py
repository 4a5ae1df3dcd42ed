"""Asking on the Chat screen, and what models there are to ask."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import Locator, Page, Request, expect

CHAT = "**/v1/chat/completions"
HARM = """Look at this:

<script>window.harmed = "script"</script>
<img src="x" onerror="window.harmed = 'onerror'">

<a href="javascript:window.harmed = 'link'">press</a> [me](javascript:window.harmed='markdown')
![a cat](http://stranger.example/cat.png?secret=1) <img src="http://stranger.example/dog.png">

<style>body { display: none }</style><p style="position: fixed; inset: 0">over all</p>
<iframe srcdoc="<script>parent.harmed = 'frame'</script>"></iframe>

```python
def f(x):
    return "a line that is long enough to scroll within its frame " + "and not the page" * 9
```

| river | km |
|---|---:|
| Nile | 6650 |

The end.
"""
CODE = "def f(x):\n\treturn x < 1 & 2  # ü\n\n\nprint(f('`'))  "
#: A model's name that has no room on a phone.
LONG = "zephyr-orpo-141b-A35b-v0.1-instruct-Q4_K_M"


def choose(page: Page, model: str) -> None:
    """Choose a model, by keyboard."""
    page.get_by_role("button", name="Model:").focus()
    page.keyboard.press("ArrowDown")
    options = page.get_by_role("listbox", name="Model").get_by_role("option")
    options.first.wait_for()
    names = options.all_inner_texts()
    page.keyboard.press("Home")
    for _ in range([one.startswith(model) for one in names].index(True)):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name=f"Model: {model}")).to_be_visible()


def ask(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="Message").fill(text)
    page.keyboard.press("Enter")


def answer(page: Page) -> Locator:
    return page.get_by_role("article", name="Answer").last


def said(page: Page) -> str:
    return answer(page).locator(".markdown").inner_text()


def write_for_a_while(page: Page, letters: int = 40) -> str:
    """Wait until so much is written; what is there then."""
    page.wait_for_function(
        "letters => [...document.querySelectorAll('.answer .markdown')].at(-1)"
        "?.textContent.length > letters",
        arg=letters,
    )
    return said(page)


def body(request: Request) -> Any:
    return json.loads(request.post_data or "")
