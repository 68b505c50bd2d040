// The settings of a conversation: the model, the app's inputs, a system prompt, tools and a schema.

import { html } from "../vendor/preact.js";
import { Inputs } from "../shared/inputs.js";
import { useWide } from "../shared/width.js";

/** The modes whose apps have no question beside their inputs. */
const FILLED = new Set(["completion", "workflow"]);

const TOOL_EXAMPLE = `[{
  "name": "get_weather",
  "parameters": {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"]
  }
}]`;

const SCHEMA_EXAMPLE = `{
  "type": "object",
  "properties": {
    "days": {"type": "integer"}
  },
  "required": ["days"]
}`;

export function Options({ models, model, choose, options, change, busy }) {
  const settings = html`<${Settings} model=${model} options=${options} change=${change} />`;
  return html`<aside class="options" aria-label="Settings">
    <div class="field">
      <label for="model">Model</label>
      <select id="model" value=${model.id} disabled=${busy} onChange=${(event) => choose(event.target.value)}>
        ${models.map(({ id }) => html`<option value=${id}>${id}</option>`)}
      </select>
    </div>
    ${useWide() ? settings : html`<details><summary>Settings</summary>${settings}</details>`}
  </aside>`;
}

function Settings({ model, options, change }) {
  const set = (name) => (value) => change({ ...options, [name]: value });
  const setInput = (name, value) => set("inputs")({ ...options.inputs, [name]: value });
  const inputs = model.dify?.inputs ?? [];
  return html`<div>
    <${About} model=${model} />
    ${inputs.length > 0 &&
    html`<fieldset><legend>Inputs</legend><${Inputs} inputs=${inputs} values=${options.inputs} change=${setInput} />
      ${FILLED.has(model.dify.mode) && html`<p class="hint">The message fills the input for the question, which may stay empty.</p>`}</fieldset>`}
    <${Text} summary="System prompt" label="Instructions for the app" value=${options.system} set=${set("system")} />
    <${Text} summary="Tools" label="A JSON list of tools" hint="You answer the calls by hand." code example=${TOOL_EXAMPLE}
      value=${options.tools} set=${set("tools")} />
    <${Text} summary="Answer schema" label="A JSON schema" code example=${SCHEMA_EXAMPLE} value=${options.schema} set=${set("schema")} />
  </div>`;
}

/** A folded text, with an example that the person can take over. */
function Text({ summary, label, hint, code = false, example, value, set }) {
  const id = `option-${summary.replace(" ", "-")}`;
  return html`<details class="option">
    <summary>${summary}${value.trim() && html` <span class="badge good">set</span>`}</summary>
    <label for=${id}>${label}</label>
    <textarea id=${id} class=${code ? "mono" : ""} rows=${code ? 8 : 4} spellcheck=${!code} value=${value} onInput=${(event) => set(event.target.value)}></textarea>
    ${hint && html`<p class="hint">${hint}</p>`}
    ${example && !value && html`<button type="button" class="quiet small" onClick=${() => set(example)}>Insert an example</button>`}
  </details>`;
}

function About({ model }) {
  const { mode, name, tags, aliases } = model.dify ?? {};
  const facts = [
    ["Mode", mode],
    ["App", name],
    ["Tags", tags?.join(", ")],
    ["Also called", aliases?.join(", ")],
  ].filter(([, value]) => value);
  if (!model.dify) return html`<p class="notice">Dify does not describe this app now. It may be down.</p>`;
  return html`<dl class="facts">${facts.map(([label, value]) => html`<div><dt>${label}</dt><dd>${value}</dd></div>`)}</dl>`;
}
