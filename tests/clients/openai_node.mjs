// What OpenAI's client for Node.js makes of the gateway; prints it as JSON, one line.

import OpenAI from 'openai';

const weather = JSON.parse(process.env.TOOL);
const hello = [{ role: 'user', content: 'hi' }];
const client = new OpenAI({ maxRetries: 0 });
const told = {};

const chat = await client.chat.completions.create({ model: 'm:pirate', messages: hello });
told.chat = chat.choices[0].message.content;
told.responses = chat.responses;

let pieces = 0;
told.stream = '';
const stream = await client.chat.completions.create({
  model: 'm',
  messages: hello,
  stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  pieces += 1;
  told.stream += chunk.choices[0]?.delta?.content ?? '';
  told.usage = chunk.usage?.completion_tokens ?? told.usage;
}
told.pieces = pieces;

const asked = [];
const runner = client.chat.completions.runTools({
  model: 'm',
  messages: hello,
  stream: true,
  tools: [
    {
      type: 'function',
      function: {
        ...weather.function,
        parse: JSON.parse,
        function: ({ city }) => {
          asked.push(city);
          return '40 degrees';
        },
      },
    },
  ],
});
told.report = await runner.finalContent();
told.asked = asked;

told.output = (await client.responses.create({ model: 'm', input: 'hi' })).output_text;
const responses = client.responses.stream({ model: 'm', input: 'hi' });
told.deltas = '';
responses.on('response.output_text.delta', (event) => {
  told.deltas += event.delta;
});
told.streamed_output = (await responses.finalResponse()).output[0].content[0].text;
told.completion = (await client.completions.create({ model: 'm', prompt: 'x' })).choices[0].text;

const embedded = await client.embeddings.create({ model: 'embed', input: ['a', 'b'] });
told.sizes = embedded.data.map((item) => item.embedding.length);

told.models = [];
for await (const model of client.models.list()) told.models.push(model.id);
told.retrieved = (await client.models.retrieve('m:pirate')).id;

const errors = [];
for (const [model, content] of [
  ['none', 'hi'],
  ['m', 'x'.repeat(9000)],
]) {
  try {
    await client.chat.completions.create({ model, messages: [{ role: 'user', content }] });
  } catch (error) {
    errors.push([error.constructor.name, error.status, error.code]);
  }
}
told.errors = errors;

const controller = new AbortController();
const long = await client.chat.completions.create(
  { model: 'm', messages: hello, stream: true },
  { signal: controller.signal },
);
for await (const chunk of long) {
  controller.abort();
  break; // to wait for more of what was aborted may never end in Node.js 20
}
told.aborted = controller.signal.aborted;

console.log(JSON.stringify(told));
