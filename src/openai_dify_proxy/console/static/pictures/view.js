// Pictures: generate and edit them, and look at the stored ones.

import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { json } from "../shared/api.js";
import { Empty, Failure, Loading, useLoaded } from "../shared/states.js";
import { Gallery } from "./gallery.js";
import { Parameters } from "./parameters.js";
import { IDLE, generate } from "./requests.js";

export function Pictures() {
  const [list, error, reload] = useLoaded((signal) => json("GET", "v1/models", { signal }));
  if (error) return html`<${Failure} error=${error} retry=${reload} />`;
  if (!list) return html`<${Loading} what="models" />`;
  const models = list.data.filter(({ type }) => type === "image").map(({ id }) => id);
  return html`<div class="columns">
    ${models.length ? html`<${Studio} models=${models} />` : html`<${NoModels} /><${StoredPictures} version=${0} />`}
  </div>`;
}

function NoModels() {
  return html`<${Empty} title="No image models">
    <p>Set <code>REPLICATE_API_TOKEN</code> to generate pictures with your Replicate account, and restart the server.</p>
  <//>`;
}

function StoredPictures({ version }) {
  return html`<section aria-labelledby="stored"><h2 id="stored">Stored pictures</h2><${Gallery} version=${version} /></section>`;
}

function Studio({ models }) {
  const [generated, setGenerated] = useState(0);
  const [model, setModel] = useState(models[0]);
  const [prompt, setPrompt] = useState("");
  const [headers, setHeaders] = useState({});
  const image = useRef(null);
  const mask = useRef(null);
  const [state, setState] = useState(IDLE);
  const running = useRef(null);
  useEffect(() => () => running.current?.abort(), []);

  const submit = async (event) => {
    event.preventDefault();
    const leaving = new AbortController();
    running.current = leaving;
    setState({ ...IDLE, running: true, started: performance.now() });
    const request = { model, prompt, headers, image: image.current.files[0], mask: mask.current.files[0] };
    try {
      for await (const picture of generate(request, leaving.signal)) {
        setState((before) => ({ ...before, pictures: withPicture(before.pictures, picture) }));
      }
      setGenerated((count) => count + 1);
    } catch (error) {
      if (error.name !== "AbortError") setState((before) => ({ ...before, error }));
    }
    setState((before) => ({ ...before, running: false }));
  };
  const choose = (name) => {
    setModel(name);
    setHeaders({});
  };
  return html`<form onSubmit=${submit} aria-label="New picture">
    <div class="field"><label for="image-model">Model</label>
      <select id="image-model" value=${model} onChange=${(event) => choose(event.target.value)}>
        ${models.map((name) => html`<option value=${name}>${name}</option>`)}
      </select>
    </div>
    <div class="field"><label for="prompt">Prompt</label>
      <textarea id="prompt" rows="3" required value=${prompt} onInput=${(event) => setPrompt(event.target.value)}></textarea>
    </div>
    <details><summary>Edit a picture</summary>
      <div class="field"><label for="image">Picture</label><input ref=${image} id="image" type="file" accept="image/*" /></div>
      <div class="field"><label for="mask">Mask, transparent where to paint (optional)</label><input ref=${mask} id="mask" type="file" accept="image/png" /></div>
    </details>
    <div class="actions">
      ${state.running
        ? html`<button key="cancel" type="button" onClick=${() => running.current.abort()}>Cancel</button>`
        : html`<button key="generate" type="submit">Generate</button>`}
    </div>
    <${Parameters} key=${model} model=${model} values=${headers} change=${setHeaders} />
  </form>
  <div><${Results} state=${state} /><${StoredPictures} version=${generated} /></div>`;
}

/** A finished picture replaces its partial one, which has the same bytes. */
function withPicture(pictures, picture) {
  return [...pictures.filter(({ b64_json: data }) => data !== picture.b64_json), picture];
}

function Results({ state }) {
  return html`<div class="results" aria-live="polite">
    ${state.running && html`<${Elapsed} started=${state.started} />`}
    ${state.error && html`<${Failure} error=${state.error} />`}
    ${state.pictures.map((picture, index) => html`<img class="result-picture" key=${index} alt=${`Picture ${index + 1}`}
      src=${`data:image/${picture.output_format};base64,${picture.b64_json}`} />`)}
  </div>`;
}

function Elapsed({ started }) {
  const [now, setNow] = useState(performance.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(performance.now()), 250);
    return () => clearInterval(timer);
  }, []);
  return html`<div><label class="state" for="progress">Generating, ${Math.round((now - started) / 1000)} s</label><progress id="progress"></progress></div>`;
}
