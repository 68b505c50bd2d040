// The apps: what each one is, what will not work and why, and how to set up a client for it.

import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { FirstRun } from "../session/view.js";
import { json } from "../shared/api.js";
import { Code } from "../shared/code.js";
import { Failure, Loading, useLoaded } from "../shared/states.js";
import { CLIENTS } from "./clients.js";

const PATIENCE_MS = 1000;

export function Apps({ chosen, session, reloadSession }) {
  const [list, error, reload] = useLoaded((signal) => json("GET", "v1/models", { signal }));
  if (error) return html`<${Failure} error=${error} retry=${reload} />`;
  if (!list) return html`<${Loading} what="apps" />`;
  const names = list.data.filter(({ type }) => type === "chat").map(({ id }) => id);
  if (!names.length) return html`<${FirstRun} session=${session} reload=${reloadSession} />`;
  return html`<${Cards} names=${names} chosen=${names.includes(chosen) ? chosen : null} />`;
}

function Cards({ names, chosen }) {
  const [found, load, waited] = useDescriptions(names);
  if (!waited && names.some((name) => !found[name])) return html`<${Loading} what="apps" />`;
  return html`<div class="cards">${names.map((name) => html`<${AppCard} key=${name} name=${name} ...${found[name]} reload=${() => load(name)} />`)}</div>
    <${SetUp} names=${names} chosen=${chosen} />`;
}

/**
 * Load the description of each app: `[found, load, waited]`.
 *
 * `found` has `{model}` or `{error}` by name, `load` loads one again, and `waited` is true when cards should be shown
 * without those that are missing. Until then nothing is shown, since cards would move as they grow.
 */
function useDescriptions(names) {
  const [found, setFound] = useState({});
  const [waited, setWaited] = useState(false);
  const load = (name) =>
    json("GET", `v1/models/${encodeURI(name)}`)
      .then((model) => ({ model }), (error) => ({ error }))
      .then((result) => setFound((before) => ({ ...before, [name]: result })));
  useEffect(() => {
    names.forEach(load);
    const timer = setTimeout(() => setWaited(true), PATIENCE_MS);
    return () => clearTimeout(timer);
  }, []);
  return [found, load, waited];
}

function AppCard({ name, model, error, reload }) {
  if (error) return html`<article class="card"><h2>${name}</h2><${Failure} error=${error} retry=${reload} /></article>`;
  if (!model) return html`<article class="card"><h2>${name}</h2><${Loading} what="its description" /></article>`;
  const described = model.dify?.findings !== undefined;
  const works = described && !model.dify.findings.some(({ kind }) => kind === "problem");
  const badge = works ? html`<span class="badge good">works</span>` : html`<span class="badge bad">${described ? "has problems" : "no answer from Dify"}</span>`;
  return html`<article class="card" aria-label=${name}>
    <h2><span>${name}</span>${badge}</h2>
    ${model.dify?.description && html`<p class="plain">${model.dify.description}</p>`}
    <${Facts} dify=${model.dify ?? {}} />
    <${Findings} findings=${model.dify?.findings ?? []} />
    <div class="actions"><a href=${`#playground/${encodeURIComponent(name)}`}>Try it</a> <a href=${`#apps/${encodeURIComponent(name)}`}>Set up a client</a></div>
  </article>`;
}

function Facts({ dify }) {
  const inputs = dify.inputs?.map(({ name, kind, required }) => `${name} (${kind}${required ? ", required" : ""})`);
  const facts = [
    ["Mode", dify.mode],
    ["Dify", dify.version],
    ["Inputs", inputs?.join(", ")],
    ["Features", dify.features?.length && html`<span class="chips">${dify.features.map((name) => html`<span class="badge">${name}</span>`)}</span>`],
    ["Also called", dify.aliases?.join(", ")],
  ].filter(([, value]) => value);
  return html`<dl class="facts">${facts.map(([label, value]) => html`<div><dt>${label}</dt><dd>${value}</dd></div>`)}</dl>`;
}

function Findings({ findings }) {
  if (!findings.length) return null;
  return html`<ul class="findings">${findings.map(({ kind, text }) => html`<li class=${kind}><strong>${kind}:</strong> ${text}</li>`)}</ul>`;
}

function SetUp({ names, chosen }) {
  const [client, setClient] = useState(Object.keys(CLIENTS)[0]);
  const section = useRef(null);
  useEffect(() => {
    if (chosen) section.current.scrollIntoView();
  }, [chosen]);
  const model = chosen ?? names[0];
  const { where, text } = CLIENTS[client]({ base: new URL("v1", document.baseURI).href, model, names });
  return html`<section class="set-up" ref=${section}>
    <h2 id="set-up">Set up a client for ${model}</h2>
    <div class="choices" role="group" aria-labelledby="set-up">
      ${Object.keys(CLIENTS).map((name) => html`<button type="button" aria-pressed=${name === client} onClick=${() => setClient(name)}>${name}</button>`)}
    </div>
    <p>${where}</p>
    <${Code} text=${text} label=${`Settings of ${client}`} />
  </section>`;
}
