// The headers that control a picture, as fields. What the model does not take is disabled, with the reason.

import { html } from "../vendor/preact.js";
import { json } from "../shared/api.js";
import { Failure, Loading, useLoaded } from "../shared/states.js";
import { useWide } from "../shared/width.js";

/** The form has fields for the initial image and the mask already. */
const ELSEWHERE = new Set(["X-Replicate-Init-Image", "X-Replicate-Mask"]);

export function Parameters({ model, values, change }) {
  const wide = useWide();
  const [described, error, reload] = useLoaded((signal) => json("GET", `v1/models/${model}`, { signal }), [model]);
  if (error) return html`<${Failure} error=${error} retry=${reload} />`;
  if (!described) return html`<${Loading} what="parameters" />`;
  if (described.owned_by === "dify") return html`<p class="hint">A Dify app makes the pictures of this model. It takes no headers.</p>`;
  if (!described.replicate) return html`<p class="notice">The model's parameters are not known now.</p>`;
  const shown = described.replicate.headers.filter(({ header }) => !ELSEWHERE.has(header));
  const rows = [...shown.filter(({ takes }) => takes), ...shown.filter(({ takes }) => !takes)];
  const set = (header) => (event) => change({ ...values, [header]: event.target.value });
  return html`<details open=${wide}><summary>Parameters</summary><div class="parameters">
    ${rows.map((row) => html`<${Parameter} key=${row.header} row=${row} value=${values[row.header] ?? ""} onInput=${set(row.header)} />`)}
  </div></details>`;
}

function Parameter({ row, value, onInput }) {
  const id = `header-${row.header}`;
  const reason = row.takes ? row.note : row.note ?? "The model does not support it.";
  const hint = [row.takes, reason].filter(Boolean).join("; ");
  return html`<div class="field">
    <label for=${id}>${row.header}</label>
    ${control(row, { id, value, onInput, disabled: !row.takes, "aria-describedby": `${id}-hint` })}
    <p id=${`${id}-hint`} class="hint">${hint}</p>
  </div>`;
}

function control(row, properties) {
  if (row.options?.length) {
    return html`<select ...${properties}>
      <option value="">default</option>
      ${row.options.map((option) => html`<option value=${option}>${option}</option>`)}
    </select>`;
  }
  const numeric = row.minimum !== undefined;
  const type = numeric ? "number" : "text";
  return html`<input type=${type} step="any" min=${row.minimum} max=${row.maximum} ...${properties} />`;
}
