"""What each key of models.json and conf/gateway.yaml does, by its path, for who writes them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

#: Keys of an entry of models.json.
ENTRY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "params": "Options of llama.cpp, under the names that LLM-API gave them.",
        "params.model": "A GGUF file, relative to `llm_storage` or absolute; "
        "`package:NAME/FILE` is one inside a Python package.",
        "params.instruct": "Has no effect: the chat template of the model does this.",
        "params.interactive": "Has no effect: a server is always asked.",
        "params.interactiveFirst": "Has no effect: a server is always asked.",
        "params.ctxSize": "Parallel requests share it, each an equal part. Without it, what fits "
        "the memory.",
        "params.temperature": "How freely it chooses: 0 takes the likeliest token, 1 is usual. "
        "For requests that don't say.",
        "params.repeatPenalty": "Makes tokens less likely that have come before: 1 is none, "
        "1.1 is usual.",
        "params.promptFile": "Has no effect: a personality opens every conversation.",
        "params.threads": "Of the CPU, while it writes an answer.",
        "params.threadsBatch": "Of the CPU, while it reads a prompt. Without it, as many as "
        "`threads`.",
        "params.promptCache": "Has no effect: llama-server keeps the prompt cache by itself.",
        "params.keepPrompt": "How much of the first prompt stays when the context is full.",
        "params.gpuLayers": "The others are computed by the CPU: 0 is no GPU. Without it, as "
        "many as fit.",
        "params.grammar": "In GBNF; every answer fits it, where a request brings none of its own.",
        "params.grammarFile": "With the same, relative to `llm_storage` or absolute.",
        "params.nPredict": "Where a request doesn't say. -1: no limit.",
        "params.reversePrompt": "An answer ends where it would say one of these.",
        "params.inPrefix": "Has no effect: the chat template of the model does this.",
        "params.inSuffix": "Has no effect: the chat template of the model does this.",
        "params.topK": "Choose among so many of the likeliest tokens.",
        "params.topP": "Choose among the likeliest tokens that make up this share.",
        "params.ignoreEOS": "Go on where the model would end its answer.",
        "params.randomPrompt": "Has no effect: llama.cpp no longer has it.",
        "params.logitBias": "Make single tokens likelier or less likely.",
        "params.seed": "The same one makes the same answer to the same request; -1 is another "
        "each time.",
        "params.mlock": "So that the system never swaps it out.",
        "params.noMmap": "For disks and networks on which a mapped file is slow.",
        "params.numa": "How to use a machine with several memory nodes.",
        "params.batchSize": "So much of a prompt is read in one go: more is faster, and takes more "
        "memory.",
        "template": "A chat template of llama.cpp's; leave it out for the model's own. With it, "
        "tool calls don't work.",
        "personalities": "System prompts by name; each is also a model to clients, "
        "NAME:PERSONALITY.",
        "personalities.prompt": "The system prompt, put into every request.",
        "personalities.setParams": "Fields that are put over what clients send.",
        "personalities.stripParams": "Fields that are taken from what clients send.",
        "personalities.reasoning": "Whether it thinks before it answers: for how many tokens, or "
        "how hard.",
        "personalities.templateArgs": "Variables of the chat template.",
        "personalities.tools": "Tools for requests that bring none, as in OpenAI's chat "
        "completions.",
        "personalities.description": "A line about it, for whoever chooses among them.",
        "personalities.unlisted": "In no list: only who knows the name can use it.",
        "aliases": "Names that clients may say in place of this one, like gpt-4o.",
        "preload": "So that the first request needn't wait for it.",
        "pinned": "Never unload it for another model.",
        "ttl": "Seconds, or with a unit. Without it, `scheduler.idle_unload` of gateway.yaml "
        "counts.",
        "memory": "What it takes, where the gateway's own measure is not right. Bytes, or with a "
        "unit.",
        "env": "Variables for its llama-server, like CUDA_VISIBLE_DEVICES.",
        "extraArgs": "More arguments for its llama-server; they win over everything else.",
        "mmproj": "The file that goes with a model that sees or hears, relative to `llm_storage`.",
        "draftModel": "A small model of the same family that answers ahead of it.",
        "embeddings": "It turns texts into vectors (/v1/embeddings), and doesn't chat.",
        "reranking": "It sorts documents by a question (/v1/rerank), and doesn't chat.",
        "parallel": "So many are answered at a time, the others wait. They share `ctxSize`.",
        "requireGpu": "Refuse to load it on the CPU alone, while a GPU is missing.",
        "description": "A line about it, for whoever chooses among models.",
        "meta": "What lists say of it, over what is known.",
        "meta.displayName": "Shown to people; clients go on to say the other one.",
        "meta.unlisted": "In no list: only who knows the name can use it.",
        "meta.capabilities": "Over what its file says, like chat, vision, tools.",
        "setParams": "Fields that are put over what clients send.",
        "stripParams": "Fields that are taken from what clients send.",
        "url": "Nothing is started here for a model that other servers have. Of several the "
        "least busy is asked.",
        "key": "Sent to these servers and nowhere else. env:NAME takes it from the environment.",
        "modelName": "If they don't call it by the name here.",
        "caFile": "A PEM file of authorities that vouch for these servers, beside the system's.",
        "timeout": "How long these servers may take to begin an answer. Seconds, or with a unit.",
    }
)
#: Keys of conf/gateway.yaml.
SETTINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "host": "Where it listens: 0.0.0.0 or :: to be reached from other machines (with tls).",
        "port": "The port it listens on.",
        "data_dir": "The folder of the keys (gateway.db) and of what the gateway remembers.",
        "models_file": "The models: see its own schema.",
        "llama_server": "The program that runs the models. auto: on PATH, else the bundled one.",
        "llm_storage": "The folder that every `model` in models.json is relative to.",
        "allowed_hosts": "Names this gateway is called by, against DNS rebinding. null: any, but "
        "on 127.0.0.1 without trusted_proxies only addresses and names of the house.",
        "trusted_proxies": "Whose X-Forwarded-For is believed.",
        "remote_media": "Whether llama-server may fetch pictures and sounds from http(s) addresses "
        "in messages, also those of your own network.",
        "auth": "Who may come in.",
        "auth.enabled": "Whether keys are asked for. false: only for a machine nobody else "
        "reaches.",
        "auth.allow_query_key": "Whether ?authKey=... is taken on GET, for EventSource.",
        "auth.open_to_network": "Without keys, and reachable by others, all the same.",
        "admin": "What administration over HTTP may do.",
        "admin.process_settings": "Whether an admin key may set what chooses programs, and files "
        "outside llm_storage, in models.json: env, extraArgs, absolute paths.",
        "tls": "The gateway's own certificate.",
        "tls.enabled": "Whether it speaks https.",
        "tls.private_key": "The private key, PEM.",
        "tls.certificate": "The certificate, PEM.",
        "tls.ca_chain": "The chain, PEM, if the certificate's file doesn't hold it.",
        "tls.passphrase": "That of the private key; better: LLM_GATEWAY_TLS__PASSPHRASE.",
        "tls.redirect_port": "80: answer plain HTTP there with a redirect to https.",
        "tls.public_port": "443: where clients reach https, if a router forwards that to `port`.",
        "tls.acme": "Get and renew the certificate by itself (RFC 8555), instead of the files.",
        "tls.acme.domains": "Names that lead to this machine.",
        "tls.acme.email": "Where the authority may write to.",
        "tls.acme.directory": "The authority.",
        "tls.acme.agree_tos": "I agree to the authority's terms of service.",
        "tls.acme.challenge": "http-01 needs redirect_port: 80, tls-alpn-01 port 443.",
        "tls.acme.profile": "One of the profiles that the authority offers.",
        "tls.acme.ca_file": "Who vouches for the authority's own server, if no public CA.",
        "cors": "Which web pages may call from a browser.",
        "cors.origins": "Their origins.",
        "limits": "What a client may ask for, and how long it may wait.",
        "limits.max_body": "Of one request.",
        "limits.body_memory": "For all bodies over 256KiB that are read and answered at a time.",
        "limits.max_url": "Of an address, query included; 414 above it.",
        "limits.max_header": "Of one header, name and value; 431 above it.",
        "limits.max_head": "Of address and headers together; 431 above it.",
        "limits.max_header_count": "How many headers; 431 above it.",
        "limits.queue_size": "Requests waiting for a model; one more is refused with 503.",
        "limits.queue_timeout": "How long a request waits for a model.",
        "limits.load_timeout": "A model that makes no progress for so long is stopped.",
        "limits.heartbeat": "Something goes out in every stream at least this often.",
        "limits.connections": "In all; one more is closed with 503.",
        "limits.connections_per_address": "One more is refused with 429.",
        "limits.streams_per_key": "Of /status, /models/sse and logs; one more is refused with 429.",
        "limits.handshake_timeout": "For the handshake of TLS.",
        "limits.header_timeout": "For the first line and the headers of a request.",
        "limits.body_timeout": "In which 16 KiB of a body must come, or its end.",
        "limits.send_timeout": "In which a client must read something of its answer.",
        "limits.keepalive": "How long a connection stays open without a request.",
        "limits.request": "What one request may make a model work; more is refused with 400.",
        "limits.request.time": "From its arrival to the end of its answer.",
        "limits.request.max_tokens": "Of each answer.",
        "limits.request.answers": "n, n_cmpl, best_of.",
        "limits.request.logprobs": "n_probs, logprobs, top_logprobs.",
        "limits.request.last_n": "Tokens of repeat_last_n and dry_penalty_last_n.",
        "limits.request.logit_bias": "Entries of logit_bias.",
        "limits.request.list_items": "Of stop, samplers, dry_sequence_breakers, lora and the like.",
        "limits.request.list_bytes": "Of such a list in all.",
        "limits.request.messages": "Messages, or items of a response's input.",
        "limits.request.parts": "Parts of all of their contents together.",
        "limits.request.prompts": "Prompts of a completion, times the answers to each.",
        "limits.request.inputs": "Texts to embed, documents to rank.",
        "limits.request.tools": "Tools.",
        "limits.request.grammar_bytes": "Of a grammar, or a pattern in a schema.",
        "limits.request.grammar_depth": "Of parentheses in a grammar.",
        "limits.request.grammar_parts": "Of a grammar, when {m,n} is written out.",
        "limits.request.grammar_choices": "Ways that are open at a place of a grammar.",
        "limits.request.schema_bytes": "Of response_format, and of all tools together.",
        "limits.request.schema_depth": "Levels of objects and lists in a schema.",
        "limits.request.schema_properties": "Of one object in a schema.",
        "limits.request.schema_length": "minLength and maxLength in a schema.",
        "limits.request.text_bytes": "Of all texts together, without pictures and sounds.",
        "limits.request.values": "Values in JSON, in lists and objects.",
        "scheduler": "How many models may be in memory.",
        "scheduler.max_loaded": "How many at once; null: as memory allows.",
        "scheduler.memory_budget": "What they may take together; auto: what this machine has.",
        "scheduler.idle_unload": "Unload a model that nobody used for so long.",
        "accounting": "What is remembered of requests; never what was said in them.",
        "accounting.keep_requests": "How long each request is remembered on disk: its key, model, "
        "times, tokens, status and client address. null: only the newest, in memory.",
        "accounting.max_requests": "How many are remembered on disk at most; the oldest go first.",
        "log": "What is written to stderr, and how.",
        "log.level": "The least that is written.",
        "log.format": "json: an object a line, for programs.",
        "page": "The page at / for browsers: chat, models, keys, usage. It asks for a key itself.",
        "ui": "llama-server's own web UI at /ui/, for whoever has a key.",
        "shutdown_timeout": "How long streams may go on after SIGTERM.",
        "public_dir": "/.well-known/acme-challenge/ is served from it without a key.",
    }
)
