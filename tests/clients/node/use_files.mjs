// Sends pictures and documents through the official JavaScript client and the Vercel AI SDK.
//
// stdin:  {"url": base URL, "picture": base64 of a PNG, "link": URL of a picture, "document": base64 of a PDF}
// stdout: {name of a way below: text of the answer}

import { text } from "node:stream/consumers";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";
import OpenAI, { toFile } from "openai";

globalThis.AI_SDK_LOG_WARNINGS = false;

const { url, picture, link, document } = JSON.parse(await text(process.stdin));
const model = "demo-chat";
const client = new OpenAI({ baseURL: url, apiKey: "unused", maxRetries: 0, timeout: 30_000 });
const provider = createOpenAI({ baseURL: url, apiKey: "unused" });
const compatible = createOpenAICompatible({ name: "dify", baseURL: url, apiKey: "unused" });

const pictureUri = `data:image/png;base64,${picture}`;
const documentUri = `data:application/pdf;base64,${document}`;
const question = { type: "text", text: "What is it?" };
const asked = { type: "input_text", text: "What is it?" };

async function chat(...parts) {
  const messages = [{ role: "user", content: [question, ...parts] }];
  return (await client.chat.completions.create({ model, messages })).choices[0].message.content;
}

async function streamedChat(...parts) {
  const messages = [{ role: "user", content: [question, ...parts] }];
  return client.chat.completions.stream({ model, messages }).finalContent();
}

async function respond(...parts) {
  const input = [{ role: "user", content: [asked, ...parts] }];
  return (await client.responses.create({ model, input })).output_text;
}

async function uploaded() {
  const file = await toFile(Buffer.from(document, "base64"), "report.pdf", { type: "application/pdf" });
  const { id } = await client.files.create({ file, purpose: "user_data" });
  return respond({ type: "input_file", file_id: id });
}

const sdkMessages = (part) => [{ role: "user", content: [question, part] }];

const generated = (languageModel) => async (part) =>
  (await generateText({ model: languageModel, messages: sdkMessages(part), maxRetries: 0 })).text;

async function streamed(part) {
  return streamText({ model: provider.chat(model), messages: sdkMessages(part), maxRetries: 0 }).text;
}

const bytes = { type: "file", data: Buffer.from(picture, "base64"), mediaType: "image/png" };
const pdf = { type: "file", data: Buffer.from(document, "base64"), mediaType: "application/pdf", filename: "a.pdf" };

const ways = {
  chatData: () => chat({ type: "image_url", image_url: { url: pictureUri } }),
  chatUrl: () => chat({ type: "image_url", image_url: { url: link } }),
  chatStreamed: () => streamedChat({ type: "image_url", image_url: { url: pictureUri } }),
  chatDocument: () => chat({ type: "file", file: { filename: "a.pdf", file_data: documentUri } }),
  responsesData: () => respond({ type: "input_image", image_url: pictureUri, detail: "auto" }),
  responsesUrl: () => respond({ type: "input_image", image_url: link, detail: "auto" }),
  responsesDocument: () => respond({ type: "input_file", filename: "a.pdf", file_data: documentUri }),
  uploadedDocument: uploaded,
  sdkChat: () => generated(provider.chat(model))(bytes),
  sdkStreamed: () => streamed(bytes),
  sdkResponses: () => generated(provider(model))(bytes),
  sdkCompatible: () => generated(compatible(model))(bytes),
  sdkDocument: () => generated(provider.chat(model))(pdf),
  sdkDocumentInResponses: () => generated(provider(model))(pdf),
};

const answers = await Promise.all(Object.entries(ways).map(async ([name, way]) => [name, await way()]));
process.stdout.write(JSON.stringify(Object.fromEntries(answers)));
