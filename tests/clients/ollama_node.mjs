// What Ollama's client for Node.js makes of the gateway; prints it as JSON, one line.

import { Ollama } from 'ollama';

const weather = JSON.parse(process.env.TOOL);
const hello = [{ role: 'user', content: 'hi' }];
const host = process.env.OLLAMA_HOST;
const client = new Ollama({ host, headers: { Authorization: `Bearer ${process.env.KEY}` } });
const told = {};

const chat = await client.chat({ model: 'm:pirate', messages: hello, keep_alive: '5m' });
told.chat = chat.message.content;
told.count = chat.eval_count;

let pieces = 0;
told.stream = '';
for await (const part of await client.chat({ model: 'm', messages: hello, stream: true })) {
  pieces += 1;
  told.stream += part.message.content;
  told.reason = part.done_reason;
}
told.pieces = pieces;

const thinker = { model: 'm:thinker', messages: hello, think: true };
told.thought = (await client.chat(thinker)).message.thinking;

const called = await client.chat({ model: 'm', messages: hello, tools: [weather] });
const [call] = called.message.tool_calls;
told.call = [call.function.name, call.function.arguments];
const result = { role: 'tool', tool_name: 'weather', content: '40 degrees' };
const messages = [...hello, called.message, result];
told.report = (await client.chat({ model: 'm', messages, tools: [weather] })).message.content;

const schema = { type: 'object', properties: { a: { type: 'boolean' } }, required: ['a'] };
const held = { format: schema, options: { num_predict: 60, temperature: 0 } };
told.held = (await client.chat({ model: 'm', messages: hello, ...held })).message.content;

told.generated = (await client.generate({ model: 'm', prompt: 'hi' })).response;
const embedded = await client.embed({ model: 'embed', input: ['a', 'b'], dimensions: 64 });
told.sizes = embedded.embeddings.map((vector) => vector.length);

told.models = (await client.list()).models.map((model) => model.name);
told.capabilities = (await client.show({ model: 'm' })).capabilities;
told.running = (await client.ps()).models.map((model) => model.name);
told.version = (await client.version()).version;

const errors = [];
for (const ask of [
  () => client.chat({ model: 'none', messages: hello }),
  () => new Ollama({ host }).list(),
]) {
  try {
    await ask();
  } catch (error) {
    errors.push([error.constructor.name, error.status_code]);
  }
}
told.errors = errors;

console.log(JSON.stringify(told));
