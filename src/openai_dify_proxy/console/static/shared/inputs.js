// A form for named values: the inputs of a Dify app, or of a paused run.

import { html } from "../vendor/preact.js";

/**
 * Render one field for each input.
 *
 * An input is `{name, kind, label, required, options, default}` as `GET /v1/models/{model}` describes it; kinds are
 * Dify's. `values` holds the current values by name, and `change` is called with a name and a new value.
 */
export function Inputs({ inputs, values, change }) {
  return inputs.map((input) => html`<${Input} key=${input.name} input=${input} value=${values[input.name]} change=${change} />`);
}

function Input({ input, value, change }) {
  const id = `input-${input.name}`;
  const label = `${input.label || input.name}${input.required ? " *" : ""}`;
  const set = (next) => change(input.name, next);
  const shown = value ?? input.default ?? "";
  if (input.kind === "checkbox") {
    return html`<label class="check"><input type="checkbox" checked=${Boolean(value ?? input.default)}
      onChange=${(event) => set(event.target.checked)} /> ${label}</label>`;
  }
  return html`<div class="field"><label for=${id}>${label}</label>${control(input, id, shown, set)}</div>`;
}

function control(input, id, shown, set) {
  const onInput = (event) => set(event.target.value);
  switch (input.kind) {
    case "select":
      return html`<select id=${id} value=${shown} onChange=${onInput}>
        <option value="">–</option>
        ${(input.options ?? []).map((option) => html`<option value=${option}>${option}</option>`)}
      </select>`;
    case "number":
      return html`<input id=${id} type="number" step="any" value=${shown}
        onInput=${(event) => set(event.target.value === "" ? undefined : event.target.valueAsNumber)} />`;
    case "paragraph":
    case "json_object":
      return html`<textarea id=${id} rows="3" value=${shown} onInput=${onInput}></textarea>`;
    case "file":
    case "file-list":
      return html`<p id=${id} class="hint">Filled with the files of the message.</p>`;
    default:
      return html`<input id=${id} type="text" value=${shown} onInput=${onInput} />`;
  }
}

/** Return the values to send: empty ones are left out, and JSON inputs are parsed. Throws a SyntaxError. */
export function filled(inputs, values) {
  const entries = inputs
    .map((input) => [input, values[input.name]])
    .filter(([, value]) => value !== undefined && value !== "")
    .map(([input, value]) => [input.name, input.kind === "json_object" ? JSON.parse(value) : value]);
  return Object.fromEntries(entries);
}
