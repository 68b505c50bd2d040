// The traffic of the server, for operators: what it does now, and its last requests with their outcomes.

import { html, useEffect, useMemo, useState } from "../vendor/preact.js";
import { json } from "../shared/api.js";
import { Failure, Loading, useLoaded } from "../shared/states.js";
import { Plot } from "./plot.js";

const POLL_MS = 2000;

export function Traffic() {
  const [report, error] = usePolled("console/traffic");
  const [usage, unknown] = useLoaded((signal) => json("GET", "v1/usage?by=key,app", { signal }));
  if (error?.code === "admin_key_required") return html`<p class="hint">Traffic is for operators. Sign in with an admin key.</p>`;
  if (error && !report) return html`<${Failure} error=${error} />`;
  if (!report || !(usage || unknown)) return html`<${Loading} what="traffic" />`;
  return html`<div class="traffic">
    ${error && html`<${Failure} error=${error} />`}
    <${Now} report=${report} />
    <${Plots} report=${report} />
    <${Difys} difys=${report.difys} />
    <${Costs} usage=${usage} />
    <${Recent} requests=${report.recent} />
  </div>`;
}

/** Poll a path while the view is open and the page is visible: `[value, error]`. */
function usePolled(path) {
  const [state, setState] = useState({ value: null, error: null });
  useEffect(() => {
    const leaving = new AbortController();
    let timer = 0;
    const poll = async () => {
      if (!document.hidden) {
        try {
          const value = await json("GET", path, { signal: leaving.signal });
          setState({ value, error: null });
        } catch (error) {
          if (error.name === "AbortError") return;
          setState(({ value }) => ({ value, error }));
        }
      }
      timer = setTimeout(poll, POLL_MS);
    };
    poll();
    return () => {
      leaving.abort();
      clearTimeout(timer);
    };
  }, []);
  return [state.value, state.error];
}

function Now({ report }) {
  const facts = [
    ["Open streams", report.open_streams],
    ["Turns in half an hour", total(report.points.map(({ turns }) => turns))],
    ["Errors in half an hour", total(report.points.map(({ errors }) => total(Object.values(errors))))],
    ["State faults", report.state_faults],
    ["IPFS uploads pending", report.pending_uploads],
  ].filter(([, value]) => value !== null);
  return html`<div>
    <dl class="tiles">${facts.map(([label, value]) => html`<div><dt>${label}</dt><dd>${value.toLocaleString()}</dd></div>`)}</dl>
    <p class="hint">Shown is process ${report.process}; other workers and replicas have traffic of their own.</p>
  </div>`;
}

function Plots({ report }) {
  const { times, turns, failed, p50, p99 } = useMemo(() => series(report), [report]);
  return html`<div class="cards">
    <${Plot} title="Turns per minute" times=${times} lines=${[{ label: "turns", values: turns }, { label: "errors", values: failed }]} />
    <${Plot} title="First text, ms" times=${times} lines=${[{ label: "p50", values: p50 }, { label: "p99", values: p99 }]} />
    <${Errors} points=${report.points} />
  </div>`;
}

/** The values of each step of the last half hour; steps without traffic are missing in the report. */
function series({ points, now, step_seconds: step }) {
  const byTime = new Map(points.map((point) => [point.at, point]));
  const last = Math.floor(now / step) * step;
  const times = Array.from({ length: 180 }, (_, index) => last - (179 - index) * step);
  const found = times.map((at) => byTime.get(at));
  const perMinute = 60 / step;
  const milliseconds = (seconds) => (seconds === null || seconds === undefined ? null : seconds * 1000);
  return {
    times,
    turns: found.map((point) => (point?.turns ?? 0) * perMinute),
    failed: found.map((point) => total(Object.values(point?.errors ?? {})) * perMinute),
    p50: found.map((point) => milliseconds(point?.first_text_p50)),
    p99: found.map((point) => milliseconds(point?.first_text_p99)),
  };
}

function total(counts) {
  return counts.reduce((sum, count) => sum + count, 0);
}

function Errors({ points }) {
  const totals = {};
  for (const { errors } of points) for (const [kind, count] of Object.entries(errors)) totals[kind] = (totals[kind] ?? 0) + count;
  const rows = Object.entries(totals).sort(([, one], [, other]) => other - one);
  return html`<section class="card" aria-label="Errors">
    <h2>Errors of the last half hour</h2>
    ${rows.length ? html`<dl>${rows.map(([kind, count]) => html`<div><dt>${kind}</dt><dd>${count}</dd></div>`)}</dl>` : html`<p class="hint">None.</p>`}
  </section>`;
}

function Difys({ difys }) {
  if (!difys.length) return null;
  return html`<section class="scroll" tabindex="0" aria-label="Difys">
    <table>
      <thead><tr><th>Dify</th><th>Slots in use</th><th>Waiting</th><th>State</th></tr></thead>
      <tbody>${difys.map(({ url, problem, gate }) => html`<tr>
        <td>${url}</td>
        <td>${gate ? `${gate.in_use} of ${gate.limit}${gate.auto ? " (automatic)" : ""}` : "no limit"}</td>
        <td>${gate?.queued ?? 0}</td>
        <td>${problem ?? "answers"}</td>
      </tr>`)}</tbody>
    </table>
  </section>`;
}

function Costs({ usage }) {
  if (!usage?.data.length) return null;
  return html`<section class="scroll" tabindex="0" aria-label="Usage">
    <table>
      <caption>Usage of today and the 29 days before</caption>
      <thead><tr><th>Caller</th><th>App</th><th class="number">Turns</th><th class="number">Tokens</th><th class="number">Price</th></tr></thead>
      <tbody>${usage.data.map((row) => html`<tr>
        <td>${row.key}</td><td>${row.app}</td><td class="number">${row.turns.toLocaleString()}</td><td class="number">${row.total_tokens.toLocaleString()}</td>
        <td class="number">${Object.entries(row.price).map(([currency, price]) => `${price} ${currency}`).join(", ")}</td>
      </tr>`)}</tbody>
    </table>
  </section>`;
}

function Recent({ requests }) {
  const [search, setSearch] = useState("");
  const wanted = search.trim().toLowerCase();
  const shown = requests.filter((request) => !wanted || `${request.id} ${request.route} ${request.outcome} ${request.code} ${request.caller} ${request.app}`.toLowerCase().includes(wanted));
  return html`<section aria-label="Last requests">
    <div class="field"><label for="search">Last ${requests.length} requests</label>
      <input id="search" type="search" placeholder="Search by request id, route, outcome, caller or app" value=${search} onInput=${(event) => setSearch(event.target.value)} />
    </div>
    <div class="scroll" tabindex="0" aria-label="Table of requests">
      <table>
        <thead><tr><th>Time</th><th>Request</th><th>Outcome</th><th>App</th><th>Caller</th><th class="number">First text</th><th class="number">Duration</th><th>Id</th></tr></thead>
        <tbody>${shown.map((request) => html`<tr key=${request.id + request.at}>
          <td>${new Date(request.at * 1000).toLocaleTimeString()}</td>
          <td>${request.method} ${request.route || "unknown route"}</td>
          <td title=${request.reason ?? ""}>${request.status} ${request.code ?? request.outcome}${request.reason && html`<small>${request.reason}</small>`}</td>
          <td>${request.app}</td>
          <td>${request.caller}</td>
          <td class="number">${request.first_text === null ? "" : `${Math.round(request.first_text * 1000)} ms`}</td>
          <td class="number">${(request.seconds * 1000).toFixed(0)} ms</td>
          <td><code>${request.id}</code></td>
        </tr>`)}</tbody>
      </table>
    </div>
    ${!shown.length && html`<p class="hint">No request matches.</p>`}
  </section>`;
}
