// Uses tools and schemas through the Vercel AI SDK, with the models of both of its providers.
//
// stdin:  {"url": base URL, "model": model, "questions": {"tool": …, "schema": …, "other": …}}
// stdout: {name of a provider's model below: {name of a way below: result}}

import { text } from "node:stream/consumers";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, generateObject, generateText, isStepCount, streamObject, streamText, tool } from "ai";
import { z } from "zod";

globalThis.AI_SDK_LOG_WARNINGS = false;

const { url, model, questions } = JSON.parse(await text(process.stdin));
const openai = createOpenAI({ baseURL: url, apiKey: "unused" });
const compatible = createOpenAICompatible({
  name: "dify",
  baseURL: url,
  apiKey: "unused",
  includeUsage: true,
  supportsStructuredOutputs: true, // without it, the provider does not send the schema
});

const models = {
  compatible: compatible(model),
  chat: openai.chat(model),
  responses: openai(model),
};

const schema = z.object({ name: z.string(), age: z.number().int() });
const tools = {
  get_weather: tool({
    description: "Get the weather of a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `sunny in ${city}`,
  }),
};

const stepsOf = (steps) =>
  steps.map((step) => ({
    reason: step.finishReason,
    calls: step.toolCalls.map(({ toolName, input }) => [toolName, input]),
    results: step.toolResults.map(({ output }) => output),
    text: step.text,
  }));

const withTools = (languageModel) => ({ model: languageModel, tools, stopWhen: isStepCount(5), maxRetries: 0 });

async function generateTextSteps(languageModel) {
  return stepsOf((await generateText({ ...withTools(languageModel), prompt: questions.tool })).steps);
}

async function streamTextSteps(languageModel) {
  const result = streamText({ ...withTools(languageModel), prompt: questions.tool, onError: () => {} });
  const types = new Set();
  let streamed = "";
  for await (const part of result.fullStream) {
    if (part.type === "error") throw part.error;
    types.add(part.type);
    if (part.type === "text-delta") streamed += part.text;
  }
  return { steps: stepsOf(await result.steps), streamed, inputs: types.has("tool-input-delta") };
}

/** Sends the messages of the first answer, its calls and their results with the next question. */
async function nextQuestion(languageModel) {
  const messages = [{ role: "user", content: questions.tool }];
  const first = await generateText({ ...withTools(languageModel), messages });
  messages.push(...first.responseMessages, { role: "user", content: questions.other });
  return stepsOf((await generateText({ ...withTools(languageModel), messages })).steps);
}

async function requiredTool(languageModel) {
  const request = { model: languageModel, tools, toolChoice: "required", maxRetries: 0 };
  return stepsOf((await generateText({ ...request, prompt: questions.other })).steps)[0].calls;
}

async function generatedObject(languageModel) {
  return (await generateObject({ model: languageModel, schema, prompt: questions.schema, maxRetries: 0 })).object;
}

async function streamedObject(languageModel) {
  const result = streamObject({ model: languageModel, schema, prompt: questions.schema, maxRetries: 0, onError: () => {} });
  let last;
  for await (const partial of result.partialObjectStream) last = partial;
  return { object: await result.object, last };
}

async function textOutput(languageModel) {
  const output = Output.object({ schema });
  return (await generateText({ model: languageModel, output, prompt: questions.schema, maxRetries: 0 })).output;
}

const ways = {
  generateTextSteps, streamTextSteps, nextQuestion, requiredTool, generatedObject, streamedObject, textOutput,
};

const run = (languageModel) => async ([name, way]) =>
  [name, await way(languageModel).catch((error) => ({ error: `${error}`, body: error.responseBody }))];

const use = async ([name, languageModel]) =>
  [name, Object.fromEntries(await Promise.all(Object.entries(ways).map(run(languageModel))))];

process.stdout.write(JSON.stringify(Object.fromEntries(await Promise.all(Object.entries(models).map(use)))));
