// Responses with a memory, in OpenAI's client for Node.js; prints what came of it as JSON, one line.

import OpenAI from 'openai';

const client = new OpenAI({ maxRetries: 0 });
const told = {};

const first = await client.responses.create({ model: 'm', input: 'tell me a joke' });
const second = await client.responses.create({
  model: 'm',
  previous_response_id: first.id,
  input: [{ role: 'user', content: 'explain why this is funny.' }],
});
told.second = second.output_text;
told.retrieved = (await client.responses.retrieve(second.id)).output_text;
told.inputs = (await client.responses.inputItems.list(second.id)).data.length;

const conversation = await client.conversations.create({ metadata: { topic: 'demo' } });
for (const input of ['What are the 5 Ds of dodgeball?', 'And of chess?'])
  await client.responses.create({ model: 'm', input, conversation: conversation.id });
told.said = 0;
for await (const _ of client.conversations.items.list(conversation.id, { limit: 2 })) told.said += 1;
await client.conversations.delete(conversation.id);

await client.responses.delete(first.id);
await client.responses.retrieve(first.id).catch((error) => {
  told.gone = [error.status, error.code];
});

const running = new Set(['queued', 'in_progress']);
let response = await client.responses.create({ model: 'm', input: 'hi', background: true });
told.begun = running.has(response.status);
while (running.has(response.status)) {
  await new Promise((resolve) => setTimeout(resolve, 50));
  response = await client.responses.retrieve(response.id);
}
told.background = [response.status, response.output_text];

const stream = await client.responses.create({
  model: 'm',
  input: 'hi',
  background: true,
  stream: true,
});
let id;
let cursor;
for await (const event of stream) {
  id ??= event.response.id;
  cursor = event.sequence_number;
  if (cursor === 3) break;
}
const rest = await client.responses.retrieve(id, { stream: true, starting_after: cursor });
for await (const event of rest) {
  told.next ??= event.sequence_number - cursor;
  told.last = event.type;
}

const endless = await client.responses.create({ model: 'endless', input: 'hi', background: true });
told.cancelled = (await client.responses.cancel(endless.id)).status;

console.log(JSON.stringify(told));
