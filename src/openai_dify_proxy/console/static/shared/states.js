// What a view shows while it loads, when it is empty, and when a request failed.

import { html, useCallback, useEffect, useState } from "../vendor/preact.js";

export function Loading({ what }) {
  return html`<p class="state" role="status"><span class="spinner" aria-hidden="true"></span> Loading ${what} …</p>`;
}

export function Empty({ title, children }) {
  return html`<div class="state empty"><h2>${title}</h2>${children}</div>`;
}

/** A failed request, with what a person needs to search the log. */
export function Failure({ error, retry }) {
  const facts = [error.status && `status ${error.status}`, error.code, error.param && `parameter ${error.param}`];
  return html`
    <div class="failure" role="alert">
      <p>${error.message}</p>
      <p class="facts">
        ${facts.filter(Boolean).join(" · ")}
        ${error.requestId && html` · request <code>${error.requestId}</code>`}
      </p>
      ${retry && html`<button type="button" onClick=${retry}>Try again</button>`}
    </div>
  `;
}

/** Load a value when the view opens: `[value, error, reload]`. `load` receives an AbortSignal. */
export function useLoaded(load, dependencies = []) {
  const [state, setState] = useState({ value: null, error: null });
  const [attempt, setAttempt] = useState(0);
  useEffect(() => {
    const leaving = new AbortController();
    load(leaving.signal).then(
      (value) => setState({ value, error: null }),
      (error) => error.name === "AbortError" || setState({ value: null, error }),
    );
    return () => leaving.abort();
  }, [attempt, ...dependencies]);
  const reload = useCallback(() => setAttempt((count) => count + 1), []);
  return [state.value, state.error, reload];
}
