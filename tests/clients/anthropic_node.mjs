// What Anthropic's client for Node.js makes of the gateway; prints it as JSON, one line.

import Anthropic from '@anthropic-ai/sdk';

const { name, description, parameters } = JSON.parse(process.env.TOOL).function;
const messages = [{ role: 'user', content: 'hi' }];
const asked = { model: 'm:pirate', max_tokens: 50, messages };
const client = new Anthropic({ maxRetries: 0 });
const told = {};

told.message = (await client.messages.create({ ...asked, system: 'Be brief.' })).content[0].text;

let pieces = 0;
const stream = client.messages.stream(asked).on('text', () => {
  pieces += 1;
});
told.streamed = await stream.finalText();
told.pieces = pieces;

const tools = [{ name, description, input_schema: parameters }];
const called = await client.messages.stream({ ...asked, tools }).finalMessage();
const call = called.content.find((block) => block.type === 'tool_use');
told.reason = called.stop_reason;
told.input = call.input;
const result = { type: 'tool_result', tool_use_id: call.id, content: '40 degrees' };
const history = [
  ...messages,
  { role: 'assistant', content: called.content },
  { role: 'user', content: [result] },
];
told.report = (await client.messages.create({ ...asked, messages: history, tools })).content[0].text;
told.tokens = (await client.messages.countTokens({ model: 'm', messages })).input_tokens;

try {
  await client.messages.create({ ...asked, model: 'none' });
} catch (error) {
  told.error = [error.constructor.name, error.status];
}
console.log(JSON.stringify(told));
