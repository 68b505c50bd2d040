// Uses tools and schemas in each of the ways that the openai package offers.
//
// stdin:  {"url": base URL, "model": model, "questions": {"tool": …, "schema": …}}
// stdout: one JSON object; its members are named after the functions below

import { text } from "node:stream/consumers";
import OpenAI from "openai";
import { ResponsesToolRunner, runnerFunction } from "openai/helpers/responses-tool-runner";
import { zodFunction, zodResponseFormat, zodResponsesFunction, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const { url, model, questions } = JSON.parse(await text(process.stdin));
const client = new OpenAI({ baseURL: url, apiKey: "unused", maxRetries: 0, timeout: 30_000 });

const Person = z.object({ name: z.string(), age: z.number().int() });
const weather = {
  name: "get_weather",
  description: "Get the weather of a city.",
  parameters: z.object({ city: z.string() }),
  function: ({ city }) => `sunny in ${city}`,
};
const ask = (content) => [{ role: "user", content }];

const chatParse = (body) => client.chat.completions.parse({ model, ...body });
const chatStream = (body) => client.chat.completions.stream({ model, ...body }).finalChatCompletion();
const respond = (body) => client.responses.parse({ model, ...body });
const respondStreamed = (body) => client.responses.stream({ model, ...body }).finalResponse();

const chatSchema = (complete) => async () => {
  const response_format = zodResponseFormat(Person, "person");
  const completion = await complete({ messages: ask(questions.schema), response_format });
  return completion.choices[0].message.parsed;
};

const chatTool = (complete) => async () => {
  const tools = [zodFunction(weather)];
  const { choices } = await complete({ messages: ask(questions.tool), tools });
  const [{ message, finish_reason }] = choices;
  const [call] = message.tool_calls;
  return { name: call.function.name, parsed: call.function.parsed_arguments, content: message.content, finish_reason };
};

const responseSchema = (complete) => async () => {
  const { output_parsed } = await complete({ input: questions.schema, text: { format: zodTextFormat(Person, "person") } });
  return output_parsed;
};

const responseTool = (complete) => async () => {
  const { output } = await complete({ input: questions.tool, tools: [zodResponsesFunction(weather)] });
  const [call] = output.filter((item) => item.type !== "reasoning");
  return { type: call.type, name: call.name, parsed: call.parsed_arguments };
};

async function chatRunTools() {
  const runner = client.chat.completions.runTools({ model, messages: ask(questions.tool), tools: [zodFunction(weather)] });
  const answer = await runner.finalContent();
  return { answer, roles: runner.messages.map(({ role }) => role) };
}

async function chatRunToolsStreamed() {
  const tools = [zodFunction(weather)];
  const runner = client.chat.completions.runTools({ model, messages: ask(questions.tool), tools, stream: true });
  let streamed = "";
  runner.on("content", (delta) => (streamed += delta));
  const answer = await runner.finalContent();
  return { answer, streamed, roles: runner.messages.map(({ role }) => role) };
}

const responseRunner = (options) => async () => {
  const runner = new ResponsesToolRunner({ functions: [runnerFunction(zodResponsesFunction(weather))] });
  return (await runner.run(client, { model, input: questions.tool }, options)).output_text;
};

const ways = {
  chatParseSchema: chatSchema(chatParse),
  chatStreamSchema: chatSchema(chatStream),
  chatParseTool: chatTool(chatParse),
  chatStreamTool: chatTool(chatStream),
  chatRunTools,
  chatRunToolsStreamed,
  responsesParseSchema: responseSchema(respond),
  responsesStreamSchema: responseSchema(respondStreamed),
  responsesParseTool: responseTool(respond),
  responsesStreamTool: responseTool(respondStreamed),
  responsesRunTools: responseRunner({}),
  responsesRunToolsStreamed: responseRunner({ stream: true }),
};

const run = async ([name, way]) => [name, await way().catch((error) => ({ error: String(error) }))];
process.stdout.write(JSON.stringify(Object.fromEntries(await Promise.all(Object.entries(ways).map(run)))));
