// This file knows what the official OpenAI SDK for Node asks of a base URL, and prints what came
// back as one JSON document. BASE_URL and API_KEY say where; CASES names what to do, by comma.

import OpenAI from 'openai';

const { BASE_URL, API_KEY, CASES } = process.env;
const MODEL = 'plain';
const client = new OpenAI({ baseURL: BASE_URL, apiKey: API_KEY, maxRetries: 0, timeout: 10_000 });
const user = (content) => [{ role: 'user', content }];
const ADD = {
  type: 'function',
  function: {
    name: 'add',
    description: 'Add two numbers.',
    parameters: {
      type: 'object',
      properties: { a: { type: 'integer' }, b: { type: 'integer' } },
      required: ['a', 'b'],
    },
  },
};

async function whole() {
  const messages = user('Explain the harbour crane');
  const { data, response } = await client.chat.completions
    .create({ model: MODEL, messages })
    .withResponse();
  const { message, finish_reason } = data.choices[0];
  return {
    text: message.content,
    finish: finish_reason,
    usage: data.usage,
    id: data.id,
    requestId: response.headers.get('x-droveway-request-id'),
  };
}

async function stream() {
  const messages = user('Explain the harbour crane');
  const chunks = [];
  for await (const chunk of await client.chat.completions.create({
    model: MODEL,
    messages,
    stream: true,
    stream_options: { include_usage: true },
  })) {
    chunks.push(chunk);
  }
  const last = chunks.pop();
  return {
    text: chunks.map((chunk) => chunk.choices[0].delta.content ?? '').join(''),
    finish: chunks.at(-1).choices[0].finish_reason,
    usage: last.usage,
    choicesOfLast: last.choices.length,
  };
}

async function helper() {
  const runner = client.chat.completions.stream({
    model: MODEL,
    messages: user('Explain the harbour crane'),
  });
  let text = '';
  runner.on('content', (delta) => (text += delta));
  const final = await runner.finalChatCompletion();
  return { text, final: final.choices[0].message.content };
}

async function tools() {
  const told = [];
  const add = (told_) => {
    told.push(told_);
    return `${told_.a + told_.b} exactly`;
  };
  const tool = { ...ADD, function: { ...ADD.function, function: add, parse: JSON.parse } };
  const ask = { model: MODEL, messages: user('Call add with 2 and 3'), tools: [tool] };
  const answer = await client.chat.completions.runTools(ask).finalContent();
  const streamed = await client.chat.completions.runTools({ ...ask, stream: true }).finalContent();
  return { told, answer, streamed };
}

async function errors() {
  const classes = {};
  for (const fault of ['400', '401', '403', '404', '422', '429-ms:1', '500', 'refuse']) {
    for (const stream of [false, true]) {
      const name = `${fault} ${stream ? 'stream' : 'whole'}`;
      try {
        await client.chat.completions.create({
          model: `fault-${fault}`,
          messages: user('Say hi.'),
          stream,
        });
        classes[name] = 'none';
      } catch (error) {
        classes[name] = error.constructor.name;
      }
    }
  }
  const stranger = client.withOptions({ apiKey: 'dw_wrong' });
  await stranger.models.list().catch((error) => {
    classes.stranger = error.constructor.name;
  });
  return classes;
}

async function cut() {
  const model = 'fault-error-event:3';
  const said = await client.chat.completions.create({
    model,
    messages: user('Say hi.'),
    stream: true,
  });
  try {
    for await (const chunk of said) void chunk;
  } catch (error) {
    return error.constructor.name;
  }
  return 'none';
}

async function retries() {
  const patient = client.withOptions({ maxRetries: 2 });
  const model = 'fault-429-ms:2';
  await patient.chat.completions
    .create({ model, messages: user('Say hi.') })
    .catch((error) => error);
  return model;
}

async function leave() {
  const model = 'fault-stall:3';
  const said = await client.chat.completions.create({
    model,
    messages: user('Say hi.'),
    stream: true,
  });
  for await (const chunk of said) {
    if (chunk) break;
  }
  return model;
}

async function models() {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  return { names, first: (await client.models.retrieve(names[0])).id };
}

async function embeddings() {
  const asked = { model: 'text-embedding-3-small', input: ['crane', 'box'], dimensions: 8 };
  const packed = await client.embeddings.create(asked);
  const plain = await client.embeddings.create({ ...asked, encoding_format: 'float' });
  return {
    packed: packed.data.map((each) => each.embedding),
    plain: plain.data.map((each) => each.embedding),
    usage: plain.usage,
  };
}

const all = { whole, stream, helper, tools, errors, cut, retries, leave, models, embeddings };
const said = {};
for (const name of CASES.split(',')) said[name] = await all[name]();
process.stdout.write(JSON.stringify(said));
