"""The options of llama-server that matter to models.json: named templates, and reserved
arguments.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

#: llama.cpp's built-in chat templates (``llama-server --help``, ``--chat-template``).
TEMPLATES = frozenset(
    """bailing bailing-think bailing2 chatglm3 chatglm4 chatml command-r deepseek deepseek-ocr
    deepseek2 deepseek3 exaone-moe exaone3 exaone4 falcon3 gemma gigachat glmedge gpt-oss granite
    granite-4.0 granite-4.1 grok-2 hunyuan-dense hunyuan-moe hunyuan-vl kimi-k2 llama2 llama2-sys
    llama2-sys-bos llama2-sys-strip llama3 llama4 megrez minicpm mistral-v1 mistral-v3
    mistral-v3-tekken mistral-v7 mistral-v7-tekken monarch openchat orion pangu-embedded phi3
    phi4 rwkv-world seed_oss smolvlm solar-open vicuna vicuna-orca yandex zephyr""".split()
)
#: Common names of templates -> llama.cpp's spelling.
TEMPLATE_ALIASES = MappingProxyType({"mistral": "mistral-v1"})

#: Pattern of a llama-server argument -> why ``extraArgs`` may not hold it. Each would part the
#: child from its gateway, or open this machine to whoever may talk to the model.
RESERVED_ARGUMENTS: Mapping[str, str] = MappingProxyType(
    {
        "--host|--port|--reuse-port": "the gateway chooses where its llama-server listens",
        "--alias|-a": "the name is the key of the entry",
        "--model|-m|--model-url|-mu|--hf-(repo|file)|-hf|-hfr|-hff|--docker-repo|-dr|--fim-qwen-.*"
        "|--(embd-gemma|gpt-oss|vision-gemma)-.*": "params.model says which model this is",
        "--models-(dir|preset|preset-hf)": "each llama-server of the gateway serves one model",
        "--parallel|-np": "the key parallel, beside params, sets it",
        "--api-key|--api-key-file": "the gateway asks for keys: llm-gateway keys create",
        "--ssl-.*": "the gateway does TLS: the section tls of its configuration",
        "--api-prefix": "the gateway would not find the routes of its llama-server",
        "--path|--media-path": "it would let clients read files of this machine",
        "--tools|--tools-runtime|--agent|-ag|--mcp-.*": "it would let clients run programs here",
        "--ui-mcp-proxy|--webui-mcp-proxy": "it would let clients into the network of this machine",
        "--log-prompts-dir": "it would keep on disk what people ask",
    }
)
#: The same for ``env``: variables that llama-server reads. Those that the command line sets anyway
#: are included, because they would be ignored silently.
RESERVED_VARIABLES = re.compile(
    r"""LLAMA_API_KEY | AIP_.* | LLAMA_ARG_(
        HOST | PORT | REUSE_PORT | ALIAS | MODEL | MODEL_URL | HF_REPO | HF_FILE | DOCKER_REPO
      | MODELS_DIR | MODELS_PRESET | N_PARALLEL | API_KEY | API_KEY_FILE | API_PREFIX | SSL_.*
      | STATIC_PATH | MEDIA_PATH | TOOLS | TOOLS_RUNTIME | AGENT | MCP_.* | (WEB)?UI_MCP_PROXY )""",
    re.VERBOSE,
)
