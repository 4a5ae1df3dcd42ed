"""What each key of models.json and conf/gateway.yaml does, by its path, for people."""

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
        "params.interactive": "Has no effect: a server always waits for requests.",
        "params.interactiveFirst": "Has no effect: a server always waits for requests.",
        "params.ctxSize": "The context, which parallel requests share in equal parts. Without "
        "it, as much"
        " as fits the memory.",
        "params.temperature": "How freely the model chooses tokens: 0 takes the likeliest one, "
        "1 is usual. "
        "For requests that don't set it.",
        "params.repeatPenalty": "How much less likely tokens become that have occurred before: "
        "1 is not at all,"
        " 1.1 is usual.",
        "params.promptFile": "Has no effect: a personality opens every conversation.",
        "params.threads": "Threads of the CPU while it writes an answer.",
        "params.threadsBatch": "Threads of the CPU while it reads a prompt. Without it, as many"
        " as `threads`.",
        "params.promptCache": "Has no effect: llama-server keeps the prompt cache by itself.",
        "params.keepPrompt": "How much of the first prompt stays when the context is full.",
        "params.gpuLayers": "How many layers the GPU computes; the CPU computes the others, so "
        "0 means no "
        "GPU. Without it, as many as fit.",
        "params.grammar": "A grammar in GBNF that every answer follows, unless a request has "
        "one of its "
        "own.",
        "params.grammarFile": "A file with such a grammar, relative to `llm_storage` or absolute.",
        "params.nPredict": "How many tokens an answer may have, for requests that don't set it."
        " -1: no "
        "limit.",
        "params.reversePrompt": "Texts at which an answer ends.",
        "params.inPrefix": "Has no effect: the chat template of the model does this.",
        "params.inSuffix": "Has no effect: the chat template of the model does this.",
        "params.topK": "Choose among this many of the likeliest tokens.",
        "params.topP": "Choose among the likeliest tokens that together have this probability.",
        "params.ignoreEOS": "Continue where the model would end its answer.",
        "params.randomPrompt": "Has no effect: llama.cpp no longer has it.",
        "params.logitBias": "Make single tokens likelier or less likely.",
        "params.seed": "The same seed gives the same answer to the same request; -1 takes "
        "another one "
        "each time.",
        "params.mlock": "Keep the model in RAM, so that the system never swaps it out.",
        "params.noMmap": "Read the model's file rather than mapping it, for disks and networks "
        "on which "
        "mapping is slow.",
        "params.numa": "How to use a machine with several memory nodes.",
        "params.batchSize": "How many tokens of a prompt are read in one go: more is faster, "
        "and takes more"
        " memory.",
        "template": "The name of a chat template of llama.cpp; leave it out to use the model's own."
        " With it, tool calls don't work.",
        "personalities": "System prompts by name. Clients see each as a model of its own, "
        "NAME:PERSONALITY.",
        "personalities.prompt": "The system prompt, put into every request.",
        "personalities.setParams": "Fields that override what clients send.",
        "personalities.stripParams": "Fields that are removed from what clients send.",
        "personalities.reasoning": "Whether the model thinks before it answers: for how many "
        "tokens, or how hard.",
        "personalities.templateArgs": "Variables of the chat template.",
        "personalities.tools": "Tools added before those of each request, written as in OpenAI's "
        "chat completions.",
        "personalities.description": "A line about it, for people who choose among personalities.",
        "personalities.unlisted": "Leave it out of lists: it can be used only by its name.",
        "aliases": "Other names that clients may use for this model, like gpt-4o.",
        "preload": "Load the model at the start, so that the first request needn't wait for it.",
        "pinned": "Never unload it for another model.",
        "ttl": "How long it may be idle before it is unloaded. Seconds, or with a unit. "
        "Without it, `scheduler.idle_unload` of gateway.yaml applies.",
        "memory": "How much memory it takes, if the gateway's own measurement is wrong. Bytes, or"
        " with a unit.",
        "env": "Environment variables for its llama-server, like CUDA_VISIBLE_DEVICES.",
        "extraArgs": "More arguments for its llama-server; they override everything else.",
        "mmproj": "The projector of a model that sees or hears, relative to `llm_storage`.",
        "draftModel": "A small model of the same family, for speculative decoding.",
        "embeddings": "The model turns texts into vectors (/v1/embeddings), and doesn't chat.",
        "reranking": "The model sorts documents by a question (/v1/rerank), and doesn't chat.",
        "parallel": "How many requests it answers at a time; the others wait. They share "
        "`ctxSize`.",
        "nodes": "The machines of the cluster that it may run on, by their names; `here` is the "
        "gateway's own. Without it, any that has its file.",
        "replicas": "How many times it may be loaded, on several machines or GPUs, if there is "
        "room without unloading others.",
        "machines": "How many machines of the cluster it may span, by llama.cpp's RPC, where it "
        "fits on none of them alone.",
        "requireGpu": "Refuse to load it on the CPU alone if a GPU is missing.",
        "description": "A line about it, for people who choose among models.",
        "meta": "What lists say about it, in place of what is known.",
        "meta.displayName": "The name shown to people; clients still use the other one.",
        "meta.unlisted": "Leave it out of lists: it can be used only by its name.",
        "meta.capabilities": "What it can do, like chat, vision, tools, in place of what its "
        "file says.",
        "setParams": "Fields that override what clients send.",
        "stripParams": "Fields that are removed from what clients send.",
        "url": "The address, or the addresses, of servers that have this model; nothing is "
        "started here for it. The least busy one gets the next request.",
        "key": "The key for these servers; it is sent nowhere else. env:NAME takes it from the"
        " environment.",
        "modelName": "What these servers call the model, if not by its name here.",
        "caFile": "A PEM file of certificate authorities to trust for these servers, in addition "
        "to the system's.",
        "timeout": "How long these servers may take to begin an answer. Seconds, or with a unit.",
    }
)
#: Keys of conf/gateway.yaml.
SETTINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "host": "The address, or the addresses, to listen on. `0.0.0.0` or `::` lets other "
        "machines in: switch TLS on then.",
        "port": "The port to listen on.",
        "data_dir": "The folder of the database (`gateway.db`: keys, usage) and of everything "
        "else that the gateway remembers.",
        "models_file": "The file that lists the models.",
        "llama_server": "The program that runs the models. `auto` takes the one on PATH, or else "
        "the bundled one.",
        "llm_storage": "The folder that every `model` in models.json is relative to.",
        "allowed_hosts": "The names this gateway answers to; a request by another name is a 421. "
        "With null any name will do, except on 127.0.0.1 without trusted_proxies: there only "
        "addresses and local names (localhost, box.local) do. This stops DNS rebinding.",
        "trusted_proxies": "The reverse proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` "
        "are believed.",
        "remote_media": "Whether llama-server may fetch pictures and sounds from the http(s) "
        "addresses in messages. That includes addresses in your own network.",
        "auth": "Who may use the gateway.",
        "auth.enabled": "Whether requests need a key. Set false only on a machine that nobody "
        "else can reach.",
        "auth.allow_query_key": "Whether a GET request may carry its key as `?authKey=...`. "
        "Browsers' EventSource can send no headers and needs this.",
        "auth.open_to_network": "Whether to start without keys where other machines can reach "
        "the gateway. Without it, `serve` refuses to.",
        "auth.ollama_open_to": "Networks whose programs may use Ollama's API (`/api`: chats, "
        "embeddings and lists) without a key, as the principal `ollama`. For apps that can't send "
        "one; see [Ollama's API](http-api.md#without-a-key).",
        "admin": "What administration over HTTP may do.",
        "admin.process_settings": "Whether an admin key may change over HTTP what decides which "
        "programs run: `env`, `extraArgs` and files outside llm_storage in models.json.",
        "tls": "The gateway's own certificate.",
        "tls.enabled": "Whether the gateway speaks https.",
        "tls.private_key": "The file of the private key.",
        "tls.certificate": "The file of the certificate.",
        "tls.ca_chain": "The file of the intermediate certificates, if the certificate's own file "
        "doesn't contain them.",
        "tls.passphrase": "The passphrase of the private key. It is better kept in the "
        "environment than in the file.",
        "tls.redirect_port": "A second port, 80 as a rule, that redirects plain http to https.",
        "tls.public_port": "The port that clients use for https, 443 as a rule, if a router "
        "forwards it to `port`.",
        "tls.acme": "Settings for getting and renewing the certificate automatically (ACME, "
        "RFC 8555), in place of the files above.",
        "tls.acme.domains": "The names that the certificate is for. They must lead to this "
        "machine.",
        "tls.acme.email": "Where the certificate authority may write to.",
        "tls.acme.directory": "The certificate authority; Let's Encrypt by default.",
        "tls.acme.agree_tos": "Your agreement to the authority's terms of service.",
        "tls.acme.challenge": "How the authority checks that the names are yours. `http-01` needs "
        "`redirect_port: 80`, `tls-alpn-01` needs port 443.",
        "tls.acme.profile": "One of the certificate profiles that the authority offers.",
        "tls.acme.ca_file": "The certificate authority that signed the ACME server's own "
        "certificate, if that is no public one.",
        "cors": "Which web pages may call the gateway from a browser.",
        "cors.origins": "The origins of those pages. A `*` may stand for the labels of a "
        "subdomain or for the port.",
        "limits": "What a client may send, and how long it may wait.",
        "limits.max_body": "The largest body of a request; a larger one is a 413.",
        "limits.body_memory": "The memory for all bodies over 256 KiB that are being handled at "
        "the same time. A body that finds no room waits, and is a 503 in the end.",
        "limits.max_url": "The longest address of a request, its query included; a longer one is "
        "a 414.",
        "limits.max_header": "The longest single header, name and value together; a longer one is "
        "a 431.",
        "limits.max_head": "The longest head of a request: its address and all headers together; "
        "a longer one is a 431.",
        "limits.max_header_count": "How many headers a request may have; more are a 431.",
        "limits.queue_size": "How many requests may wait for a model; one more is a 503.",
        "limits.queue_timeout": "How long a request may wait for a model; then it is a 503.",
        "limits.load_timeout": "How long a model that is being loaded may make no progress before "
        "it is stopped.",
        "limits.heartbeat": "The longest silence in a stream; then a sign of life is sent. It "
        "must be shorter than what a proxy in front of the gateway waits for.",
        "limits.connections": "How many connections may be open; one more is closed with a 503.",
        "limits.connections_per_address": "How many connections one address may have open; one "
        "more is a 429. This machine and trusted_proxies are exempt.",
        "limits.streams_per_key": "How many event streams (`/status`, `/models/sse`, logs) one "
        "key may have open; one more is a 429.",
        "limits.handshake_timeout": "How long a TLS handshake may take.",
        "limits.header_timeout": "How long the head of a request may take to arrive.",
        "limits.body_timeout": "How long the next 16 KiB of a body, or its end, may take to "
        "arrive.",
        "limits.send_timeout": "How long a client may read nothing of its answer.",
        "limits.keepalive": "How long a connection without a request stays open.",
        "limits.request": "How much work one request may ask of a model; more is a 400 that names "
        "the field and the limit.",
        "limits.request.time": "How long a request may take, from its arrival to the end of its "
        "answer.",
        "limits.request.max_tokens": "How many tokens each answer may have.",
        "limits.request.answers": "How many answers one request may ask for (`n`, `n_cmpl`, "
        "`best_of`).",
        "limits.request.logprobs": "How many alternatives to each token one request may ask for "
        "(`n_probs`, `logprobs`, `top_logprobs`).",
        "limits.request.last_n": "How many tokens `repeat_last_n` and `dry_penalty_last_n` may "
        "look back.",
        "limits.request.logit_bias": "How many entries `logit_bias` may have.",
        "limits.request.list_items": "How many items `stop`, `samplers`, `dry_sequence_breakers`, "
        "`lora` and similar lists may have.",
        "limits.request.list_bytes": "How long the texts of such a list may be, all together.",
        "limits.request.messages": "How many messages, or items of a response's `input`, there "
        "may be.",
        "limits.request.parts": "How many parts the contents of all messages may have together.",
        "limits.request.prompts": "How many prompts a completion may have, times the answers to "
        "each.",
        "limits.request.inputs": "How many texts to embed, or documents to rank, there may be.",
        "limits.request.tools": "How many tools there may be.",
        "limits.request.grammar_bytes": "How long a grammar, or a pattern in a schema, may be.",
        "limits.request.grammar_depth": "How deeply parentheses in a grammar may be nested.",
        "limits.request.grammar_parts": "How many parts a grammar may have once its repetitions "
        "`{m,n}` are written out; also what `minItems` and `maxItems` of a schema may add up to.",
        "limits.request.grammar_choices": "How many ways may be open at one place of a grammar.",
        "limits.request.schema_bytes": "How long `response_format`, or all tools together, may be.",
        "limits.request.schema_depth": "How deeply objects and lists in a schema may be nested.",
        "limits.request.schema_properties": "How many properties one object in a schema may have, "
        "and how many choices an `anyOf`.",
        "limits.request.schema_length": "The largest `minLength` and `maxLength` in a schema.",
        "limits.request.text_bytes": "How long all texts of a request may be together, without "
        "pictures and sounds.",
        "limits.request.values": "How many JSON values a request may have, in lists and objects.",
        "scheduler": "How many models may be in memory at the same time.",
        "scheduler.max_loaded": "How many models may be loaded at once. null: as many as the "
        "memory holds.",
        "scheduler.memory_budget": "How much memory all models may take together. `auto`: what "
        "this machine has, less a reserve.",
        "scheduler.idle_unload": "How long a model may be idle before it is unloaded. null: until "
        "its memory is needed.",
        "cluster": "Other machines that run models, too: see "
        "[Several machines](several-machines.md). null: this one only.",
        "cluster.engine": "What holds the machines together: Ray, of the extra `cluster`.",
        "cluster.address": "Where the head of the cluster is. `auto`: on this machine, or this "
        "machine has joined it.",
        "cluster.placement": "Where a model is loaded that several machines have room for. `pack`: "
        "on this one, or on that where the least is left; `spread`: on that with the fewest "
        "models.",
        "accounting": "What is remembered of requests. What was said in them never is.",
        "accounting.keep_requests": "How long the record of a request is kept on disk: its key, "
        "model, times, tokens, status and client address. null: only the newest 200, in memory.",
        "accounting.max_requests": "How many records are kept on disk; the oldest are removed "
        "first.",
        "accounting.max_size": "How much of the database the records may take; the oldest are "
        "removed first. null: as much as max_requests of them take.",
        "metrics": "`GET /metrics`, which Prometheus reads: see [Metrics](metrics.md).",
        "metrics.enabled": "Whether it is answered.",
        "metrics.without_key": "Whether programs on the gateway's own machine may read it without "
        "a key. Others need an admin key, or one made by `llm-gateway keys create NAME --metrics`.",
        "metrics.backends": "Whether llama-servers keep metrics of their own, which "
        "`/metrics?backends=1` shows as well.",
        "store": "Where keys, usage and requests are kept.",
        "store.url": "A PostgreSQL database, which several gateways may share, instead of "
        "`gateway.db` in data_dir. It needs the extra `postgres`. With a password in it, it is "
        "better kept in the environment than in the file.",
        "cache": "Conversations that are saved, so that a model that comes back after a swap, or a "
        "restart, doesn't have to read them again. The files contain what was said.",
        "cache.enabled": "Whether conversations are saved, on the disk of the machine that has the "
        "model.",
        "cache.dir": "Where they are saved, a folder that only the gateway may read. null: in "
        "`cache` in the data folder.",
        "cache.max_size": "How much disk they may take. auto: a fifth of what would be free "
        "without them.",
        "cache.max_age": "How long a conversation that nobody continues is kept.",
        "cache.min_tokens": "The shortest conversation that is saved.",
        "streams": "Streams of answers that can be read again, behind the last event that a "
        "client has seen: see [Streams that go on](http-api.md#streams-that-go-on).",
        "streams.keep": "How long after its end a stream can be read again. null: none can.",
        "streams.max_size": "How much memory they may take, all together. The oldest go first.",
        "responses": "Responses (`/v1/responses`) that are kept for their keys, so that a client "
        "can go on with them: see [Responses with a memory](http-api.md#responses-with-a-memory).",
        "responses.store": "Whether they are kept in the database, unless a request says `store: "
        "false`. Without it `store` means nothing, and what needs it is refused. A change counts "
        "after a restart, as that of any key here.",
        "responses.max_age": "How long one is kept that nobody goes on with.",
        "responses.max_size": "How much they may take in the database. The least recently "
        "used go first.",
        "log": "What is logged, and in which form.",
        "log.level": "The least important messages to log; `info` logs a line for each request.",
        "log.format": "The form of the log: `text` for people, on stderr; `json`, one object a "
        "line on stdout; or `journal`, entries of systemd's journal with fields like `REQUEST_ID`.",
        "page": "Whether the web page at `/` is served: chat, models, keys, usage. It asks for a "
        "key itself.",
        "ui": "Whether llama-server's own web UI is served at `/ui/`. It asks for a key, too.",
        "shutdown_timeout": "How long running requests may go on after SIGTERM.",
        "public_dir": "The folder from which `/.well-known/acme-challenge/` is served without a "
        "key.",
    }
)
