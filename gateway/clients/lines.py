"""The lines of each client's configuration, as its own documentation has them."""

from __future__ import annotations

import json
import shlex
from typing import Any

from gateway.clients.shape import (
    KEY,
    NAME,
    SOME_CONTEXT,
    TITLE,
    ClientTarget,
    Part,
    exports,
    fields_text,
    json_text,
    key_line,
    quoted,
    toml,
    yaml_text,
)


def codex_parts(target: ClientTarget) -> list[Part]:
    top: dict[str, Any] = {"model": target.model, "model_provider": NAME}
    if target.context is not None:
        top["model_context_window"] = target.context
    provider = {
        "name": TITLE,
        "base_url": target.base_url,
        "env_key": KEY,
        "wire_api": "responses",
    }
    lines = [
        *(f"{name} = {toml(value)}" for name, value in top.items()),
        "",
        f"[model_providers.{NAME}]",
        *(f"{name} = {toml(value)}" for name, value in provider.items()),
    ]
    return [
        Part("~/.codex/config.toml", "toml", "\n".join(lines) + "\n"),
        *key_line(target, "the shell that codex starts from (~/.profile, say)"),
    ]


def claude_code_parts(target: ClientTarget) -> list[Part]:
    variables = {
        "ANTHROPIC_BASE_URL": target.url,
        "ANTHROPIC_AUTH_TOKEN": target.key,
        "ANTHROPIC_MODEL": target.model,
        "ANTHROPIC_DEFAULT_OPUS_MODEL": target.model,
        "ANTHROPIC_DEFAULT_SONNET_MODEL": target.model,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": target.model,
        # Else it assumes 200,000 tokens, and shortens a conversation too late.
        **({"CLAUDE_CODE_MAX_CONTEXT_TOKENS": str(target.context)} if target.context else {}),
        "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    lines = exports(variables) + "unset ANTHROPIC_API_KEY\n"
    return [Part("the shell that claude starts from", "sh", lines)]


def _openai_variables(target: ClientTarget) -> Part:
    variables = {"OPENAI_BASE_URL": target.base_url, "OPENAI_API_KEY": target.key}
    return Part("the shell that the program starts from", "sh", exports(variables))


def openai_python_parts(target: ClientTarget) -> list[Part]:
    example = (
        "from openai import OpenAI\n\n"
        "client = OpenAI()\n"
        "answer = client.chat.completions.create(\n"
        f"    model={toml(target.model)},\n"
        '    messages=[{"role": "user", "content": "Hello!"}],\n'
        ")\n"
        "print(answer.choices[0].message.content)\n"
    )
    return [_openai_variables(target), Part("a program", "python", example, example=True)]


def openai_node_parts(target: ClientTarget) -> list[Part]:
    example = (
        "import OpenAI from 'openai';\n\n"
        "const client = new OpenAI();\n"
        "const answer = await client.chat.completions.create({\n"
        f"  model: {toml(target.model)},\n"
        "  messages: [{ role: 'user', content: 'Hello!' }],\n"
        "});\n"
        "console.log(answer.choices[0].message.content);\n"
    )
    return [_openai_variables(target), Part("a program (.mjs)", "javascript", example, True)]


def continue_parts(target: ClientTarget) -> list[Part]:
    server: dict[str, Any] = {
        "provider": "openai",
        "apiBase": target.base_url,
        "apiKey": f"${{{{ secrets.{KEY} }}}}",
    }
    if target.ca is not None:
        server["requestOptions"] = {"caBundlePath": target.ca_path}
    capabilities = ["tool_use", *(["image_input"] if target.vision else [])]
    model: dict[str, Any] = {
        "name": target.model,
        "model": target.model,
        **server,
        "roles": ["chat", "edit", "apply"],
        "capabilities": capabilities,
    }
    if target.context is not None:
        model["defaultCompletionOptions"] = {"contextLength": target.context}
    models = [model]
    if target.embeddings is not None:
        name = target.embeddings
        models.append({"name": name, "model": name, **server, "roles": ["embed"]})
    config = {"name": TITLE, "version": "1.0.0", "schema": "v1", "models": models}
    # YAML's anchors are not for everybody: the same settings again are written out.
    text = yaml_text(json.loads(json.dumps(config)))
    return [
        Part("~/.continue/config.yaml", "yaml", text),
        Part("~/.continue/.env", "env", f"{KEY}={target.key or 'llmgw_...'}\n"),
    ]


def zed_parts(target: ClientTarget) -> list[Part]:
    model: dict[str, Any] = {
        "name": target.model,
        "display_name": target.model,
        "max_tokens": target.context or SOME_CONTEXT,
        "capabilities": {
            "tools": True,
            "images": target.vision,
            "parallel_tool_calls": False,
            "prompt_cache_key": False,
        },
    }
    provider = {"api_url": target.base_url, "available_models": [model]}
    settings = {"language_models": {"openai_compatible": {NAME: provider}}}
    return [
        Part("~/.config/zed/settings.json", "json", json_text(settings)),
        *key_line(target, "the shell that zed starts from (~/.profile, say)"),
    ]


def open_webui_parts(target: ClientTarget) -> list[Part]:
    variables = {
        "OPENAI_API_BASE_URL": target.base_url,
        "OPENAI_API_KEY": target.key,
        "DEFAULT_MODELS": target.model,
    }
    names = [f"-e {name}" for name in variables]
    if target.ca is not None:
        names.append(f"-v {quoted(target.ca)}:/ca.pem:ro -e AIOHTTP_CLIENT_SSL_CERT_FILE=/ca.pem")
    run = (
        "docker run -d --name open-webui -p 3000:8080 -v open-webui:/app/backend/data \\\n  "
        + " ".join(names)
        + " \\\n  ghcr.io/open-webui/open-webui:main\n"
    )
    return [
        Part("the shell that Open WebUI starts from", "sh", exports(variables)),
        Part("the same shell", "sh", run, example=True),
    ]


def home_assistant_parts(target: ClientTarget) -> list[Part]:
    fields = {
        "Server Name": TITLE,
        "Server URL": target.base_url,
        "API key": target.key,
        "Server Type": "llama.cpp",
        "Model": target.model,
    }
    where = "Settings > Devices & services > Add integration > Local OpenAI LLM"
    return [Part(where, "text", fields_text(fields))]


def obsidian_parts(target: ClientTarget) -> list[Part]:
    fields = {"Base URL": target.base_url, "API key": target.key, "Model ID": target.model}
    where = "Settings > Copilot > BYOK > Add a provider > Add a custom provider"
    return [Part(where, "text", fields_text(fields))]


def aider_parts(target: ClientTarget) -> list[Part]:
    variables = {
        "OPENAI_API_BASE": target.base_url,
        "OPENAI_API_KEY": target.key,
        "AIDER_MODEL": f"openai/{target.model}",
    }
    return [Part("the shell that aider starts from", "sh", exports(variables))]


def llm_parts(target: ClientTarget) -> list[Part]:
    entry: dict[str, Any] = {
        "model_id": f"{NAME}/{target.model}",
        "model_name": target.model,
        "api_base": target.base_url,
        "api_key_name": NAME,
        "supports_tools": True,
        "supports_schema": True,
    }
    if target.vision:
        entry["vision"] = True
    value = f'"${KEY}"' if target.key is None else shlex.quote(target.key)
    use = f"llm -m {shlex.quote(entry['model_id'])} 'Hello!'\n"
    return [
        Part(
            '"$(dirname "$(llm logs path)")"/extra-openai-models.yaml', "yaml", yaml_text([entry])
        ),
        Part("a shell, once", "sh", f"llm keys set {NAME} --value {value}\n"),
        Part("a shell", "sh", use, example=True),
    ]
