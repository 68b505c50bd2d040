// Speaks a text and transcribes the result through the official JavaScript client.
//
// stdin:  {"url": base URL}
// stdout: {"speech": base64, "type": …, "text": …, "plain": …, "streamed": [event, …], "refused": {…}}

import { text } from "node:stream/consumers";
import OpenAI, { toFile } from "openai";

const { url } = JSON.parse(await text(process.stdin));
const client = new OpenAI({ baseURL: url, apiKey: "unused", timeout: 30_000 });
const model = "demo-chat";

const answer = await client.audio.speech.create({ model, voice: "alloy", input: "Hello dear world" });
const speech = Buffer.from(await answer.arrayBuffer());
const file = () => toFile(speech, "speech.webm", { type: "audio/webm" });

async function collect(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

async function refusal(response_format) {
  try {
    await client.audio.transcriptions.create({ model, file: await file(), response_format });
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    return { status: error.status, code: error.code, param: error.param };
  }
}

const whole = await client.audio.transcriptions.create({ model, file: await file() });
const plain = await client.audio.transcriptions.create({ model, file: await file(), response_format: "text" });
const streamed = await collect(await client.audio.transcriptions.create({ model, file: await file(), stream: true }));

process.stdout.write(
  JSON.stringify({
    speech: speech.toString("base64"),
    type: answer.headers.get("content-type"),
    text: whole.text,
    plain,
    streamed,
    refused: await refusal("srt"),
  }),
);
