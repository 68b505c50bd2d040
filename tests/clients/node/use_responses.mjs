// Uses the Responses and Conversations APIs through the official JavaScript client.
//
// stdin:  {"url": base URL, "model": model}
// stdout: one JSON object; its members are named after the functions below

import { text } from "node:stream/consumers";
import OpenAI from "openai";

const { url, model } = JSON.parse(await text(process.stdin));
const client = new OpenAI({ baseURL: url, apiKey: "unused", maxRetries: 0, timeout: 30_000 });

const refusal = async (request) => {
  try {
    await request;
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    return { status: error.status ?? null, code: error.code ?? null, param: error.param ?? null };
  }
  throw new Error("it was not refused");
};

const collect = async (pages) => {
  const all = [];
  for await (const item of pages) all.push(item);
  return all;
};

// The helper checks items and their order while it assembles them, and rejects unknown events.
async function streamed(body) {
  const types = [];
  const stream = client.responses.stream({ model, ...body });
  stream.on("event", (event) => types.push(event.type));
  const { id, status, output_text } = await stream.finalResponse();
  return { id, status, output_text, types };
}

async function chain() {
  const first = await client.responses.create({ model, input: "SAY<<one>> chain" });
  const second = await streamed({ input: "SAY<<two>> chain", previous_response_id: first.id });
  const third = await client.responses.create({ model, input: "RECALL chain", previous_response_id: second.id });
  return { first: first.output_text, second, third: third.output_text, stored: await client.responses.retrieve(third.id) };
}

async function removal() {
  const response = await client.responses.create({ model, input: "hello" });
  const items = await collect(client.responses.inputItems.list(response.id));
  await client.responses.delete(response.id);
  return {
    items: items.map((item) => item.content[0].text),
    deleted: await refusal(client.responses.retrieve(response.id)),
    previous: await refusal(client.responses.create({ model, input: "hi", previous_response_id: response.id })),
  };
}

async function conversation() {
  const items = [
    { type: "message", role: "user", content: "earlier" },
    { type: "message", role: "assistant", content: "long ago" },
  ];
  const { id } = await client.conversations.create({ items, metadata: { topic: "demo" } });
  await client.responses.create({ model, input: "SAY<<one>>", conversation: id });
  await streamed({ input: "SAY<<two>>", conversation: { id } });
  const listed = await collect(client.conversations.items.list(id, { order: "asc", limit: 2 }));
  const { metadata } = await client.conversations.update(id, { metadata: { topic: "changed" } });
  await client.conversations.delete(id);
  return {
    messages: listed.map((item) => [item.role, item.content[0].text]),
    metadata,
    deleted: await refusal(client.conversations.retrieve(id)),
  };
}

async function background() {
  const created = await client.responses.create({ model, input: "SLOW:4x300 background", background: true });
  const seen = [];
  const following = await client.responses.retrieve(created.id, { stream: true });
  for await (const event of following) {
    seen.push(event);
    if (event.type === "response.output_text.delta") break;
  }
  const { sequence_number } = seen.at(-1);
  const rest = await collect(await client.responses.retrieve(created.id, { stream: true, starting_after: sequence_number }));
  const deltas = [...seen, ...rest].filter((event) => event.type === "response.output_text.delta");
  const running = await client.responses.create({ model, input: "SLOW:200x50 cancelled", background: true });
  const cancelled = await client.responses.cancel(running.id);
  return {
    created: created.status,
    numbers: [...seen, ...rest].map((event) => event.sequence_number),
    text: deltas.map((event) => event.delta).join(""),
    ended: (await client.responses.retrieve(created.id)).output_text,
    cancelled: cancelled.status,
    done: await refusal(client.responses.cancel(created.id)),
  };
}

async function failures() {
  return {
    early: await refusal(client.responses.create({ model, input: "ERROR:rate", stream: true })),
    late: await refusal(collect(await client.responses.create({ model, input: "MIDERROR:rate", stream: true }))),
  };
}

const [chained, removed, conversed, backgrounded, thoughts, quiet, failed] = await Promise.all([
  chain(),
  removal(),
  conversation(),
  background(),
  streamed({ input: "THINK CITE SAY<<aloud>>" }),
  streamed({ input: "SLOW:3x500 quiet" }),
  failures(),
]);
process.stdout.write(JSON.stringify({ chained, removed, conversed, backgrounded, thoughts, quiet, failed }));
