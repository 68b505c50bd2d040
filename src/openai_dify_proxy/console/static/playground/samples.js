// The request of the playground as a program in other languages.

const SHORTENED = 200;

/** The languages, by label, with the function that writes the program. */
export const LANGUAGES = { curl, Python: python, Node: node, LangChain: langchain };

/** Return the body as a person would write it: without what the playground adds, and with long data URIs cut. */
function essential(body) {
  const { stream, stream_options, human_input, ...rest } = body;
  return JSON.parse(JSON.stringify(rest), (_, value) =>
    typeof value === "string" && value.startsWith("data:") && value.length > SHORTENED
      ? `${value.slice(0, value.indexOf(",") + 1)}…`
      : value,
  );
}

function curl(base, key, body) {
  const data = JSON.stringify({ ...essential(body), stream: true }, null, 2).replaceAll("'", "'\\''");
  const authorization = key ? ` \\\n  -H 'Authorization: Bearer ${key}'` : "";
  return `curl -sSN ${base}/chat/completions${authorization} \\\n  -H 'Content-Type: application/json' \\\n  -d '${data}'`;
}

function python(base, key, body) {
  const { model, messages, tools, response_format, ...extra } = essential(body);
  const lines = [`model=${literal(model)}`, `messages=${literal(messages)}`];
  if (tools) lines.push(`tools=${literal(tools)}`);
  if (response_format) lines.push(`response_format=${literal(response_format)}`);
  if (Object.keys(extra).length) lines.push(`extra_body=${literal(extra)}`);
  lines.push("stream=True");
  return `from openai import OpenAI

client = OpenAI(base_url=${literal(base)}, api_key=${literal(key || "any")})
stream = client.chat.completions.create(
${lines.map((line) => indented(`${line},`, 4)).join("\n")}
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()`;
}

function node(base, key, body) {
  const data = indented(JSON.stringify({ ...essential(body), stream: true }, null, 2), 2).trimStart();
  return `import OpenAI from "openai";

const client = new OpenAI({ baseURL: ${JSON.stringify(base)}, apiKey: ${JSON.stringify(key || "any")} });
const stream = await client.chat.completions.create(
  ${data},
);
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}`;
}

function langchain(base, key, body) {
  const { model, messages, tools, response_format, ...extra } = essential(body);
  const options = [`base_url=${literal(base)}`, `api_key=${literal(key || "any")}`, `model=${literal(model)}`];
  if (Object.keys(extra).length) options.push(`extra_body=${literal(extra)}`);
  const bound = { ...(tools && { tools }), ...(response_format && { response_format }) };
  const bind = Object.entries(bound).map(([name, value]) => `${name}=${literal(value)}`).join(", ");
  return `from langchain_openai import ChatOpenAI

model = ChatOpenAI(
${options.map((line) => indented(`${line},`, 4)).join("\n")}
)
for chunk in model${bind && `.bind(${bind})`}.stream(${literal(messages)}):
    print(chunk.content, end="", flush=True)
print()`;
}

/** Return a value as a Python literal. */
function literal(value, depth = 0) {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const items = Array.isArray(value)
    ? value.map((item) => literal(item, depth + 1))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${literal(item, depth + 1)}`);
  const short = `${open}${items.join(", ")}${close}`;
  if (short.length < 80 && !short.includes("\n")) return short;
  const space = " ".repeat(4 * (depth + 1));
  return `${open}\n${items.map((item) => `${space}${item},`).join("\n")}\n${" ".repeat(4 * depth)}${close}`;
}

function indented(text, spaces) {
  return text.replace(/^/gm, " ".repeat(spaces));
}
