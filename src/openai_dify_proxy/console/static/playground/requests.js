// The chat completion request of a conversation.

import { filled } from "../shared/inputs.js";

/** The tool that the proxy calls for a paused run; see the page "Human input" of the documentation. */
export const HUMAN_INPUT = "dify_human_input";

/** The modes whose runs may pause for a person. */
const PAUSING = new Set(["advanced-chat", "workflow"]);

/** The settings of a conversation that have not been changed. */
export const DEFAULTS = { system: "", tools: "", schema: "", inputs: {} };

/**
 * Return the body of the request for the next answer.
 *
 * `turns` are the messages so far: `{role: "user", text, files}`, answers, and `{role: "tool", id, text}`.
 * Throws an Error with a message for the person if a setting is not valid JSON.
 */
export function requestBody(model, options, turns) {
  const body = { model: model.id, stream: true, stream_options: { include_usage: true }, messages: [] };
  if (PAUSING.has(model.dify?.mode)) body.human_input = "tool";
  if (options.system.trim()) body.messages.push({ role: "system", content: options.system });
  body.messages.push(...turns.map(message));
  const inputs = parsed("An input", () => filled(model.dify?.inputs ?? [], options.inputs));
  if (Object.keys(inputs).length) body.inputs = inputs;
  if (options.tools.trim()) body.tools = parsed("The list of tools", () => toolList(JSON.parse(options.tools)));
  if (options.schema.trim()) {
    body.response_format = parsed("The schema", () => ({
      type: "json_schema",
      json_schema: { name: "answer", schema: JSON.parse(options.schema), strict: false },
    }));
  }
  return body;
}

function parsed(what, parse) {
  try {
    return parse();
  } catch (error) {
    throw new Error(`${what} is not valid JSON: ${error.message}`);
  }
}

/** Accept a list of tools, one tool, and functions without the wrapper of their type. */
function toolList(value) {
  return [value].flat().map((tool) => (tool.type ? tool : { type: "function", function: tool }));
}

function message(turn) {
  switch (turn.role) {
    case "tool":
      return { role: "tool", tool_call_id: turn.id, content: turn.text };
    case "assistant":
      return {
        role: "assistant",
        content: turn.text || null,
        ...(turn.calls.length && { tool_calls: turn.calls.map(toolCall) }),
      };
    default:
      return { role: "user", content: turn.files.length ? parts(turn) : turn.text };
  }
}

function toolCall(call) {
  return { id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } };
}

function parts(turn) {
  const text = turn.text ? [{ type: "text", text: turn.text }] : [];
  return [...text, ...turn.files.map(filePart)];
}

function filePart(file) {
  if (file.type.startsWith("image/")) return { type: "image_url", image_url: { url: file.url } };
  return { type: "file", file: { filename: file.name, file_data: file.url } };
}

/** The calls of the last answer that have no result yet. */
export function openCalls(turns) {
  const last = turns.findLastIndex((turn) => turn.role === "assistant");
  if (last < 0) return [];
  const answered = new Set(turns.slice(last + 1).map((turn) => turn.id));
  return turns[last].calls.filter((call) => !answered.has(call.id));
}
