// Generates, edits with a mask, and streams pictures through the official JavaScript client.
//
// stdin:  {"url": base URL, "model": …, "size": …, "image": base64 of a PNG, "mask": base64 of a PNG}
// stdout: {"generated": [base64, …], "linked": [URL], "edited": [base64], "streamed": [event, …], "refused": {…}}

import { text } from "node:stream/consumers";
import OpenAI, { toFile } from "openai";

const { url, model, size, image, mask } = JSON.parse(await text(process.stdin));
const client = new OpenAI({ baseURL: url, apiKey: "unused", timeout: 30_000 });
const request = { model, size, prompt: "A fox SETTLED" };

const file = (base64, name) => toFile(Buffer.from(base64, "base64"), name, { type: "image/png" });

async function collect(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

async function refusal(body, headers) {
  try {
    await client.images.generate(body, { headers });
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    return { status: error.status, code: error.code, param: error.param };
  }
}

const { data: generated } = await client.images.generate({ ...request, n: 2 }, { headers: { "X-Replicate-Seed": "7" } });
const { data: linked } = await client.images.generate({ ...request, response_format: "url" });
const { data: edited } = await client.images.edit({
  ...request,
  image: await file(image, "image.png"),
  mask: await file(mask, "mask.png"),
});
const streamed = await collect(await client.images.generate({ ...request, n: 2, stream: true }));
const editedStream = await collect(
  await client.images.edit({ ...request, image: [await file(image, "image.png")], stream: true }),
);

process.stdout.write(
  JSON.stringify({
    generated: generated.map((picture) => picture.b64_json),
    linked: linked.map((picture) => picture.url),
    edited: edited.map((picture) => picture.b64_json),
    streamed: [...streamed, ...editedStream],
    refused: await refusal(request, { "X-Replicate-Num-Inference-Steps": "501" }),
    failed: await refusal({ ...request, prompt: "DROP" }),
  }),
);
