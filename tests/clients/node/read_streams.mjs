// Reads streams through the official JavaScript client: chunk by chunk, and with the helper that assembles them.
//
// stdin:  {"url": base URL, "requests": [body of a chat completion, …]}
// stdout: for each request a line {"model", "chunks": [compact chunk or error, …], "whole": completion or error}
// tests/recordings/sdk_answers.py defines the compact form.

import { text } from "node:stream/consumers";
import OpenAI from "openai";

const AT_ONCE = 16;

const { url, requests } = JSON.parse(await text(process.stdin));
const client = new OpenAI({ baseURL: url, apiKey: "unused", maxRetries: 0, timeout: 30_000 });

const compactUsage = (usage) => [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens];

const compactError = (error) => {
  if (!(error instanceof OpenAI.APIError)) throw error;
  return { status: error.status ?? null, error: error.error };
};

function compactChunk(chunk) {
  if (chunk.choices.length === 0) return { usage: compactUsage(chunk.usage) };
  const [{ delta, finish_reason }] = chunk.choices;
  return {
    ...delta,
    ...(finish_reason === null ? {} : { finish_reason }),
    ...("dify" in chunk ? { dify: chunk.dify } : {}),
  };
}

async function readChunks(request) {
  const chunks = [];
  try {
    for await (const chunk of await client.chat.completions.create(request)) chunks.push(compactChunk(chunk));
  } catch (error) {
    chunks.push(compactError(error));
  }
  return chunks;
}

async function readWhole(request) {
  try {
    const completion = await client.chat.completions.stream(request).finalChatCompletion();
    const [{ message, finish_reason }] = completion.choices;
    return { content: message.content, finish_reason, usage: compactUsage(completion.usage) };
  } catch (error) {
    return compactError(error);
  }
}

async function work() {
  for (let body; (body = requests.shift()) !== undefined; ) {
    const request = { ...body, stream: true, stream_options: { include_usage: true } };
    const line = { model: body.model, chunks: await readChunks(request), whole: await readWhole(request) };
    process.stdout.write(JSON.stringify(line) + "\n");
  }
}

await Promise.all(Array.from({ length: AT_ONCE }, work));
