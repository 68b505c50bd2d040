// Who uses the page: the sign-in, and what a person sees first.

import { html, useCallback, useEffect, useState } from "../vendor/preact.js";
import { json, onSignedOut, send, setDifyKey } from "../shared/api.js";
import { Failure } from "../shared/states.js";

const DIFY_KEY_PREFIX = "app-";

/** `[session, reload]`: what the server says about this tab, null while it is unknown. */
export function useSession() {
  const [session, setSession] = useState(null);
  const reload = useCallback(
    () =>
      json("GET", "console/session").then(setSession, (error) =>
        setSession({ needs_key: false, signed_in: false, admin: false, error }),
      ),
    [],
  );
  useEffect(() => {
    reload();
    const onEnd = () => setSession((session) => session && { ...session, signed_in: false });
    onSignedOut.addEventListener("signedout", onEnd);
    return () => onSignedOut.removeEventListener("signedout", onEnd);
  }, []);
  return [session, reload];
}

export async function signOut(reload) {
  setDifyKey(null);
  await send("DELETE", "console/session");
  await reload();
}

/** The page of a server that needs a key. */
export function SignIn({ session, reload }) {
  return html`<section class="sign-in" aria-label="Sign in">
    <h2>Sign in</h2>
    <p>${session.takes_dify_keys ? "This server needs one of its client keys, or the key of a Dify app." : "This server needs one of its client keys."}</p>
    <${KeyForm} reload=${reload} />
    <p class="hint">An operator creates keys with <code>openai-dify-proxy keys create</code>. The page exchanges a client key for a cookie that scripts cannot read. A Dify key stays in the memory of the page.</p>
  </section>`;
}

/** The form for a key. `reload` is called when the server has accepted it. */
function KeyForm({ reload }) {
  const [key, setKey] = useState("");
  const [error, setError] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    try {
      await signInWith(key.trim());
      await reload();
    } catch (failure) {
      setDifyKey(null);
      setError(failure);
    }
  };
  return html`<form onSubmit=${submit}>
    <div class="field">
      <label for="key">Key</label>
      <input id="key" type="password" autocomplete="current-password" required value=${key} onInput=${(event) => setKey(event.target.value)} />
    </div>
    ${error && html`<${Failure} error=${error} />`}
    <div class="actions"><button type="submit">Sign in</button></div>
  </form>`;
}

async function signInWith(key) {
  if (key.startsWith(DIFY_KEY_PREFIX)) {
    setDifyKey(key);
    await json("GET", "v1/models");
    return;
  }
  await json("POST", "console/session", { headers: { Authorization: `Bearer ${key}` } });
}

/** What is still missing before the page is useful, and the three ways to begin. */
export function FirstRun({ session, reload }) {
  return html`<section class="first-run" aria-label="First steps">
    <h2>Three ways to begin</h2>
    <div class="cards">
      <article class="card">
        <h3>Try the demo</h3>
        <p>Start the server with nothing configured. It serves apps of every mode that need no model and no account.</p>
        <pre tabindex="0" aria-label="Command of the demo">openai-dify-proxy serve</pre>
      </article>
      <article class="card">
        <h3>Serve your Dify ${session.has_dify && html`<span class="badge good">address configured</span>`}</h3>
        <p>Create an API key on the page "API Access" of an app in Dify, and start the server with it.</p>
        <pre tabindex="0" aria-label="Command for your Dify">DIFY_API_URL=https://dify.example.com/v1 DIFY_API_KEY=app-... openai-dify-proxy serve</pre>
      </article>
      <article class="card">
        <h3>Bring a Dify key ${session.takes_dify_keys && session.has_dify && html`<span class="badge good">possible</span>`}</h3>
        <p>A request may carry the key of an app of this server's Dify. Sign in here with such a key, or use it as the API key of your client.</p>
        ${session.takes_dify_keys && session.has_dify && html`<${KeyForm} reload=${reload} />`}
        ${!session.has_dify && html`<p class="notice">Missing: <code>DIFY_API_URL</code>, the address of the Dify.</p>`}
      </article>
    </div>
    ${!session.has_images && html`<p class="notice">Missing for pictures: <code>REPLICATE_API_TOKEN</code>.</p>`}
  </section>`;
}
