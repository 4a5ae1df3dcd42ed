"""What the model elsewhere says, so that a conversation has all that an answer may have."""

from __future__ import annotations

import json
from typing import Any

from tests.web.upstream import Upstream, delta

MODEL = "GPT-OSS-20B"
EVERYTHING = "What is on this picture, and how would I count the birds by a program?"
THINKING = "Which of the rivers is the longest?"
CALLING = "How warm is it in the garden?"

_ANSWER = """The picture shows a **row of birds** on a wire before an evening sky. Three things \
help to count them:

1. Turn it into grey, and take what is darker than the sky.
2. Join what touches, for instance by `ndimage.label`.
3. Leave out what is too small to be a bird.

```python
from pathlib import Path

import numpy as np
from scipy import ndimage

def count_birds(file: Path, threshold: float = 0.35) -> int:
    \"\"\"How many dark shapes of some size there are in a picture.\"\"\"
    grey = load_grey(file)  # floats from 0 to 1, of the shape (height, width)
    shapes, count = ndimage.label(grey < threshold, structure=np.ones((3, 3)), output=np.int32)
    return sum(size > 12 for size in ndimage.sum_labels(grey < threshold, shapes, range(count)))
```

| Kind | On the wire | In flight | Wing span (cm) | Where it spends the winter |
|:-----|---:|---:|---:|:---|
| Swallow | 14 | 3 | 33 | Africa, south of the Sahara |
| Starling | 6 | 0 | 40 | The mild west of Europe |
| Wood pigeon | 1 | 0 | 78 | It stays |

> A wire is warmer than a branch, they say; but nobody has measured it.

The page of the bird survey: https://birds.example/surveys/2026/autumn/wires-and-roofs/index.html\
?station=0a1b2c3d4e5f60718293a4b5c6d7e8f9&order=descending&language=en&format=long-and-unbroken

### What may go wrong

- Leaves are counted as birds.
  - Take a picture *without* the tree.
- Two birds that touch are one.
"""

_THOUGHTS = """The table has only birds. The question must mean rivers in general, so I compare \
the Nile and the Amazon.

- Nile: about 6,650 km
- Amazon: about 6,400 km, by some measures more
"""


def teach(told: Upstream) -> None:
    """Have ``told`` answer the three questions."""
    told.answer(EVERYTHING, *(_ANSWER[at : at + 40] for at in range(0, len(_ANSWER), 40)))
    told.answer(
        THINKING,
        delta(reasoning_content=_THOUGHTS),
        "The **Nile**, with about 6,650 km; by some measures the Amazon is longer.",
    )
    call = {"index": 0, "id": "call_1", "function": {"name": "read_sensor", "arguments": ""}}
    arguments = json.dumps({"place": "garden", "kind": "temperature"})
    told.answer(
        CALLING,
        delta(tool_calls=[call]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": arguments}}]),
    )


def conversation(title: str, turns: int, now: int) -> dict[str, Any]:
    """One of so many questions and answers, as an export has it; ``now``: in milliseconds."""
    messages: list[dict[str, Any]] = []
    for turn in range(turns):
        question, answer = f"q{turn}-{title}", f"a{turn}-{title}"
        before = messages[-1]["id"] if messages else None
        at = now - (turns - turn) * 60_000
        asked = f"{title} And what about number {turn + 1}?" if turn else title
        messages.append(_message(question, before, "user", asked, at))
        said = _message(answer, question, "assistant", _said(turn), at + 4000)
        stats = {"firstTokenSeconds": 0.4, "tokensPerSecond": 48.0, "completionTokens": 90}
        messages.append({**said, "finish": "stop", "model": MODEL, "stats": stats})
    first, last = messages[0], messages[-1]
    return {
        "id": f"c-{title}",
        "title": title,
        "model": MODEL,
        "created": first["created"],
        "updated": last["created"],
        "leaf": last["id"],
        "messages": messages,
    }


def export(*conversations: dict[str, Any]) -> bytes:
    """The file of an export."""
    head = {"format": "llm-gateway-conversations", "version": 1}
    return json.dumps({**head, "conversations": conversations}).encode()


def _message(id: str, parent: str | None, role: str, content: str, at: int) -> dict[str, Any]:
    return {"id": id, "parent": parent, "role": role, "content": content, "created": at}


def _said(turn: int) -> str:
    if turn % 7 == 3:
        return f"Like this:\n\n```sh\nls -l ~/LLMs | sort -k5 -n | tail -{turn}\n```"
    return (
        f"Number {turn + 1} is one more than number {turn}. "
        "It is told here in two or three sentences, as answers often are, so that the length of a "
        "line and the space between paragraphs can be seen.\n\nThen there is a second paragraph."
    )
