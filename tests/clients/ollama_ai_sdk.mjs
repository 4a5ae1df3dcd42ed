// What the AI SDK makes of the gateway by its provider for Ollama; prints it as JSON, one line.

import { embedMany, generateObject, generateText, stepCountIs, streamText, tool } from 'ai';
import { createOllama } from 'ollama-ai-provider-v2';
import { z } from 'zod';

const ollama = createOllama({
  baseURL: `${process.env.OLLAMA_HOST}/api`,
  headers: { Authorization: `Bearer ${process.env.KEY}` },
});
const prompt = 'hi';
const told = {};

const whole = await generateText({ model: ollama('m:pirate'), prompt });
told.chat = whole.text;
told.tokens = whole.usage.outputTokens;
told.reason = whole.finishReason;

const stream = streamText({ model: ollama('m'), prompt });
told.stream = '';
let pieces = 0;
for await (const text of stream.textStream) {
  pieces += 1;
  told.stream += text;
}
told.pieces = pieces;

const asked = [];
const weather = tool({
  description: 'The weather in a city.',
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => {
    asked.push(city);
    return '40 degrees';
  },
});
const steps = { tools: { weather }, stopWhen: stepCountIs(3) };
told.report = (await generateText({ model: ollama('m'), prompt, ...steps })).text;
const streamed = streamText({ model: ollama('m'), prompt, ...steps });
told.streamed_report = await streamed.text;
told.asked = asked;

const thinking = { providerOptions: { ollama: { think: true } } };
told.thought = (await generateText({ model: ollama('m:thinker'), prompt, ...thinking })).reasoningText;

const schema = z.object({ city: z.enum(['Cairo', 'Rome']) });
const held = await generateObject({ model: ollama('m'), schema, prompt, temperature: 0 });
told.city = held.object.city;

const { embeddings } = await embedMany({
  model: ollama.textEmbeddingModel('embed'),
  values: ['hello', 'world'],
});
told.sizes = embeddings.map((vector) => vector.length);

try {
  await generateText({ model: ollama('none'), prompt, maxRetries: 0 });
} catch (error) {
  told.error = [error.name, error.statusCode];
}

console.log(JSON.stringify(told));
