// The client keys, for operators: their limits and what they used. Changes are made on the command line.

import { html } from "../vendor/preact.js";
import { json } from "../shared/api.js";
import { Code } from "../shared/code.js";
import { Empty, Failure, Loading, useLoaded } from "../shared/states.js";

export function Keys() {
  const [list, error, reload] = useLoaded((signal) => json("GET", "console/keys", { signal }));
  const [usage] = useLoaded((signal) => json("GET", "v1/usage?by=key", { signal }));
  if (error?.code === "admin_key_required") return html`<p class="hint">Keys are for operators. Sign in with an admin key.</p>`;
  if (error) return html`<${Failure} error=${error} retry=${reload} />`;
  if (!list) return html`<${Loading} what="keys" />`;
  const used = new Map((usage?.data ?? []).map((row) => [row.key, row]));
  return html`${list.data.length ? html`<${Table} keys=${list.data} used=${used} />` : html`<${NoKeys} />`}
    <section class="set-up"><h2>Changes</h2>
      <p>Keys are created and changed on the command line, and work within a second.</p>
      <${Code} label="Commands" text=${"openai-dify-proxy keys create anna --models 'support*' --requests-per-minute 60\nopenai-dify-proxy keys rotate anna --grace 1h\nopenai-dify-proxy keys revoke anna"} />
    </section>`;
}

function NoKeys() {
  return html`<${Empty} title="No client keys"><p>Without keys, the server answers this machine only.</p><//>`;
}

function Table({ keys, used }) {
  return html`<div class="scroll" tabindex="0" aria-label="Keys"><table>
    <thead><tr><th>Name</th><th>Key</th><th>State</th><th>Models</th><th>Limits</th><th>Used in 30 days</th></tr></thead>
    <tbody>${keys.map((key) => html`<tr key=${key.id}>
      <td>${key.name}${key.admin && html` <span class="badge">admin</span>`}${key.label && html`<br /><small>${key.label}</small>`}</td>
      <td><code>${key.prefix}…</code></td>
      <td>${state(key)}</td>
      <td>${key.models?.join(", ") ?? "all"}</td>
      <td>${limits(key.limits)}</td>
      <td>${shownUsage(used.get(key.name))}</td>
    </tr>`)}</tbody>
  </table></div>`;
}

function state({ revoked_at: revoked, expires_at: expires }) {
  const time = (seconds) => new Date(seconds * 1000).toLocaleString();
  if (revoked) return `revoked ${time(revoked)}`;
  if (!expires) return "works";
  return expires * 1000 < Date.now() ? `expired ${time(expires)}` : `until ${time(expires)}`;
}

function limits(values) {
  return flat("", values).join("; ") || "none";
}

/** Limits as texts: `{daily: {price: {USD: "5"}}}` is "daily price USD: 5". */
function flat(before, values) {
  return Object.entries(values ?? {})
    .filter(([, value]) => value !== null)
    .flatMap(([name, value]) => {
      const label = `${before}${name.replaceAll("_", " ")}`;
      return typeof value === "object" ? flat(`${label} `, value) : [`${label}: ${value.toLocaleString()}`];
    });
}

function shownUsage(row) {
  if (!row) return "";
  const prices = Object.entries(row.price).map(([currency, price]) => `${price} ${currency}`);
  return [`${row.turns.toLocaleString()} turns`, `${row.total_tokens.toLocaleString()} tokens`, ...prices].join(", ");
}
