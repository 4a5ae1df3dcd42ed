"""Chat templates that write tools in different places, as those of known models do."""

from __future__ import annotations

#: Behind the system text, as Qwen and Hermes: the most usual.
_BEHIND = """\
{%- if tools %}{{ '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% endif %}
{{- '# Tools\\n\\nYou may call one or more functions.\\n<tools>' }}
{%- for tool in tools %}{{ '\\n' + (tool | tojson) }}{% endfor %}
{{- '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for m in messages %}{% if m.role != 'system' %}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
#: In front of the first question, as Llama 3.
_IN_QUESTION = """\
{%- set system = '' %}
{%- if messages[0].role == 'system' %}
{%- set system = messages[0].content %}{% set messages = messages[1:] %}{% endif %}
{{- '<|im_start|>system\\n' }}{% if tools %}{{ 'Environment: ipython\\n' }}{% endif %}
{{- system + '<|im_end|>\\n' }}
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}
{%- if tools and loop.first %}{{ 'Given the following functions, answer with a call.\\n\\n' }}
{%- for tool in tools %}{{ (tool | tojson) + '\\n\\n' }}{% endfor %}{% endif %}
{{- m.content + '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
#: Before everything, with the system text in the last question, as Mistral.
_BEFORE = """\
{%- set system = '' %}
{%- if messages[0].role == 'system' %}
{%- set system = messages[0].content + '\\n\\n' %}{% set messages = messages[1:] %}{% endif %}
{%- for m in messages %}
{%- if m.role == 'user' %}
{%- if loop.last and tools %}{{ '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}
{%- endif %}
{{- '[INST]' }}{% if loop.last %}{{ system }}{% endif %}{{ m.content + '[/INST]' }}
{%- else %}{{ m.content + '</s>' }}{% endif %}{% endfor %}
"""

TEMPLATES = {"behind": _BEHIND, "in the question": _IN_QUESTION, "before": _BEFORE}
