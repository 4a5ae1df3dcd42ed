// What clients for Node.js make of streams that begin long before their answers: the API is the
// first argument. Prints it as JSON, one line.

import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

const api = process.argv[2];
const messages = [{ role: 'user', content: 'hi' }];
const told = { text: '', kinds: [], ids: [] };
try {
  if (api === 'messages') {
    const client = new Anthropic({ maxRetries: 0 });
    const stream = client.messages.stream({ model: 'm', max_tokens: 50, messages });
    stream.on('streamEvent', (event) => told.kinds.push(event.type));
    told.text = await stream.finalText();
  } else if (api === 'responses') {
    const stream = new OpenAI({ maxRetries: 0 }).responses.stream({ model: 'm', input: 'hi' });
    for await (const event of stream) {
      told.kinds.push(event.type);
      if (event.response) told.ids.push(event.response.id);
    }
    const final = await stream.finalResponse();
    told.text = final.output[0].content[0].text;
    told.ids.push(final.id);
  } else {
    const client = new OpenAI({ maxRetries: 0 });
    const stream = await client.chat.completions.create({ model: 'm', messages, stream: true });
    for await (const chunk of stream) told.text += chunk.choices[0]?.delta?.content ?? '';
  }
} catch (error) {
  told.error = error.message;
}
console.log(JSON.stringify(told));
