// The form in which a person answers a tool call, or the form of a paused run.

import { html, useState } from "../vendor/preact.js";
import { Inputs } from "../shared/inputs.js";
import { Markdown } from "../shared/markdown.js";
import { HUMAN_INPUT } from "./requests.js";

/** `answer` receives the text of the result. */
export function CallForm({ call, answer }) {
  const form = call.name === HUMAN_INPUT ? readForm(call.arguments) : null;
  return form ? html`<${PausedRun} form=${form} answer=${answer} />` : html`<${Result} call=${call} answer=${answer} />`;
}

function readForm(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // answered as any other call
  }
}

function Result({ call, answer }) {
  const [text, setText] = useState("");
  const submit = (event) => {
    event.preventDefault();
    answer(text);
  };
  const id = `result-${call.id}`;
  return html`<form class="message result" onSubmit=${submit}>
    <label for=${id}>Result of <code>${call.name}</code></label>
    <textarea id=${id} class="mono" rows="3" value=${text} onInput=${(event) => setText(event.target.value)}></textarea>
    <div class="actions"><button type="submit">Answer the call</button></div>
  </form>`;
}

function PausedRun({ form, answer }) {
  const [values, setValues] = useState({});
  const inputs = (form.inputs ?? []).map((input) => ({ ...input, kind: input.type }));
  const choose = (action) => answer(JSON.stringify({ action: action.id, inputs: complete(inputs, values) }));
  return html`<form class="message paused" onSubmit=${(event) => event.preventDefault()} aria-label="Paused run">
    <p class="hint">The run is paused and waits for a person.</p>
    <${Markdown} text=${withoutPlaces(form.content ?? "")} />
    <${Inputs} inputs=${inputs} values=${values} change=${(name, value) => setValues({ ...values, [name]: value })} />
    <div class="actions">
      ${(form.actions ?? []).map((action) => html`<button type="button" onClick=${() => choose(action)}>${action.title ?? action.id}</button>`)}
    </div>
    ${form.expires_at && html`<p class="hint">Expires ${new Date(form.expires_at * 1000).toLocaleString()}.</p>`}
  </form>`;
}

/** The places of inputs in the text of a form, as their names. */
function withoutPlaces(content) {
  return content.replaceAll(/\{\{#\$output\.([^#]*)#\}\}/g, "[$1]");
}

/** A value for each input: an answer must have all of them. Files cannot be sent from this page. */
function complete(inputs, values) {
  const own = inputs.filter(({ kind }) => !kind.startsWith("file"));
  return Object.fromEntries(own.map(({ name, default: preset }) => [name, values[name] ?? preset ?? ""]));
}
