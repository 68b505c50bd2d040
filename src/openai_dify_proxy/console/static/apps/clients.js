// How to set up each client, filled with the address of this server and the name of an app.
// Each entry returns where the text belongs, and the text. `base` ends with /v1.

const KEY = "YOUR-CLIENT-KEY";

export const CLIENTS = {
  "Open WebUI": ({ base }) => ({
    where: "Start Open WebUI with these variables; all apps appear as models.",
    text: `ENABLE_FORWARD_USER_INFO_HEADERS=true\nOPENAI_API_BASE_URL=${base}\nOPENAI_API_KEY=${KEY}`,
  }),
  LibreChat: ({ base, names }) => ({
    where: "In librechat.yaml:",
    text: `endpoints:
  custom:
    - name: "Dify"
      apiKey: "${KEY}"
      baseURL: "${base}"
      models:
        default: ${JSON.stringify(names)}
        fetch: true
      titleConvo: false
      customParams:
        reasoningKey: "reasoning_content"`,
  }),
  n8n: ({ base, model }) => ({
    where: "Create a credential of type OpenAI, and choose the model by its id in the node OpenAI Chat Model.",
    text: `Base URL: ${base}\nAPI Key:  ${KEY}\nModel:    ${model}`,
  }),
  Cursor: ({ base, model }) => ({
    where: "Under Settings → Models, override the OpenAI base URL and add the model. Cursor's servers must reach the address.",
    text: `Override OpenAI Base URL: ${base}\nOpenAI API Key:           ${KEY}\nModel name:               ${model}`,
  }),
  Cline: ({ base, model }) => ({
    where: "On the command line:",
    text: `cline auth --provider openai-compatible --baseurl ${base} --apikey ${KEY} --modelid ${model}`,
  }),
  Codex: ({ base, model }) => ({
    where: "In ~/.codex/config.toml, with the key in the environment variable DIFY_PROXY_KEY:",
    text: `model = "${model}"
model_provider = "dify"

[model_providers.dify]
name = "Dify"
base_url = "${base}"
env_key = "DIFY_PROXY_KEY"
wire_api = "responses"`,
  }),
  "Home Assistant": ({ base, model }) => ({
    where: "In the integration Extended OpenAI Conversation (HACS):",
    text: `Base URL: ${base}\nAPI Key:  ${KEY}\nModel:    ${model}`,
  }),
  LangChain: ({ base, model }) => ({
    where: "In Python, with the package langchain-openai:",
    text: `from langchain_openai import ChatOpenAI

llm = ChatOpenAI(base_url="${base}", api_key="${KEY}", model="${model}", stream_usage=True)
print(llm.invoke("Hello!").content)`,
  }),
  "AI SDK": ({ base, model }) => ({
    where: "In JavaScript, with the packages ai and @ai-sdk/openai-compatible:",
    text: `import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { streamText } from "ai";

const dify = createOpenAICompatible({ name: "dify", baseURL: "${base}", apiKey: "${KEY}" });
const { textStream } = streamText({ model: dify("${model}"), prompt: "Hello!" });
for await (const text of textStream) process.stdout.write(text);`,
  }),
  Python: ({ base, model }) => ({
    where: "With the package openai:",
    text: `from openai import OpenAI

client = OpenAI(base_url="${base}", api_key="${KEY}")
answer = client.chat.completions.create(model="${model}", messages=[{"role": "user", "content": "Hello!"}])
print(answer.choices[0].message.content)`,
  }),
};
