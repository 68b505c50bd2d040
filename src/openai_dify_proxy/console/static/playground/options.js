// The settings of a conversation: the model, the app's inputs, a system prompt, tools and a schema.

import { html } from "../vendor/preact.js";
import { Inputs } from "../shared/inputs.js";

const TOOL_EXAMPLE = `[{
  "name": "get_weather",
  "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
}]`;

export function Options({ models, model, choose, options, change, busy }) {
  const set = (name) => (event) => change({ ...options, [name]: event.target.value });
  const setInput = (name, value) => change({ ...options, inputs: { ...options.inputs, [name]: value } });
  const inputs = model.dify?.inputs ?? [];
  return html`<aside class="options" aria-label="Settings">
    <div class="field">
      <label for="model">Model</label>
      <select id="model" value=${model.id} disabled=${busy} onChange=${(event) => choose(event.target.value)}>
        ${models.map(({ id }) => html`<option value=${id}>${id}</option>`)}
      </select>
    </div>
    <${About} model=${model} />
    ${inputs.length > 0 &&
    html`<fieldset><legend>Inputs</legend><${Inputs} inputs=${inputs} values=${options.inputs} change=${setInput} /></fieldset>`}
    <details>
      <summary>System prompt</summary>
      <label class="hidden" for="system">System prompt</label>
      <textarea id="system" rows="4" value=${options.system} onInput=${set("system")}></textarea>
    </details>
    <details>
      <summary>Tools</summary>
      <label for="tools">A JSON list of tools</label>
      <textarea id="tools" class="mono" rows="8" placeholder=${TOOL_EXAMPLE} value=${options.tools} onInput=${set("tools")}></textarea>
      <p class="hint">You answer the calls by hand.</p>
    </details>
    <details>
      <summary>Answer schema</summary>
      <label for="schema">A JSON schema</label>
      <textarea id="schema" class="mono" rows="6" value=${options.schema} onInput=${set("schema")}></textarea>
    </details>
  </aside>`;
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
