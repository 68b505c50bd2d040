// Holds conversations, each in one of the ways that the openai package offers.
//
// stdin:  {"url": base URL, "model": …, "questions": {name of a way below: [question, …], …}}
// stdout: {name of a way: [reply, …], …}

import { text } from "node:stream/consumers";
import OpenAI from "openai";

const { url, model, questions } = JSON.parse(await text(process.stdin));
const client = new OpenAI({ baseURL: url, apiKey: "unused", timeout: 30_000 });

/** Sends all messages each time, including the replies as `complete` returned them. */
const chat = (complete) => {
  const messages = [];
  return async (question) => {
    messages.push({ role: "user", content: question });
    const message = await complete({ model, messages });
    messages.push(message);
    return message.content;
  };
};

/** Sends all items each time, including those of the answers as `respond` returned them. */
const items = (respond) => {
  const input = [];
  return async (question) => {
    input.push({ role: "user", content: question });
    const response = await respond({ model, input, store: false });
    input.push(...response.output);
    return response.output_text;
  };
};

/** Names the previous response. */
const previous = (respond) => {
  let id;
  return async (question) => {
    const response = await respond({ model, input: question, previous_response_id: id });
    ({ id } = response);
    return response.output_text;
  };
};

async function completeStreamed(body) {
  const message = { role: "assistant", content: "" };
  for await (const chunk of await client.chat.completions.create({ ...body, stream: true })) {
    message.content += chunk.choices[0]?.delta.content ?? "";
  }
  return message;
}

async function respondStreamed(body) {
  for await (const event of await client.responses.create({ ...body, stream: true })) {
    if (event.type === "response.completed") {
      const texts = event.response.output.flatMap((item) => (item.type === "message" ? item.content : []));
      return { ...event.response, output_text: texts.map((part) => part.text).join("") };
    }
  }
}

const create = (body) => client.responses.create(body);
const helper = (body) => client.responses.stream(body).finalResponse();

const ways = {
  chat: chat(async (body) => (await client.chat.completions.create(body)).choices[0].message),
  chatStreamed: chat(completeStreamed),
  chatHelper: chat((body) => client.chat.completions.stream(body).finalMessage()),
  items: items(create),
  itemsStreamed: items(respondStreamed),
  itemsHelper: items(helper),
  previous: previous(create),
  previousStreamed: previous(respondStreamed),
  previousHelper: previous(helper),
};

async function converse(name) {
  const replies = [];
  for (const question of questions[name]) replies.push(await ways[name](question));
  return [name, replies];
}

const replies = await Promise.all(Object.keys(questions).map(converse));
process.stdout.write(JSON.stringify(Object.fromEntries(replies)));
