// The stored pictures with their records: where they are on IPFS, and what can be done with them.

import { html, useState } from "../vendor/preact.js";
import { json, send } from "../shared/api.js";
import { Empty, Failure, Loading, useLoaded } from "../shared/states.js";
import { shownSize } from "../playground/files.js";

/** `version` changes when new pictures have been generated. */
export function Gallery({ version }) {
  const [list, error, reload] = useLoaded((signal) => json("GET", "v1/stored_pictures?limit=60", { signal }), [version]);
  if (error?.code === "admin_key_required") return html`<p class="hint">An admin key shows the stored pictures.</p>`;
  if (error) return html`<${Failure} error=${error} retry=${reload} />`;
  if (!list) return html`<${Loading} what="pictures" />`;
  if (!list.data.length) return html`<${Empty} title="Nothing stored yet"><p>Every generated picture is stored here.</p><//>`;
  return html`<ul class="gallery">${list.data.map((picture) => html`<${Stored} key=${picture.name} picture=${picture} reload=${reload} />`)}</ul>
    ${list.has_more && html`<p class="hint">Older pictures: <code>openai-dify-proxy pictures</code></p>`}`;
}

function Stored({ picture, reload }) {
  const [failure, setFailure] = useState(null);
  const act = (method, path) => async () => {
    try {
      await send(method, path);
      reload();
    } catch (error) {
      setFailure(error);
    }
  };
  const path = `v1/stored_pictures/${picture.name}`;
  const remove = act("DELETE", path);
  return html`<li>
    <a href=${`pictures/${picture.name}`} target="_blank" rel="noopener"><img src=${`pictures/${picture.name}`} alt=${picture.prompt ?? `Picture of ${shownTime(picture.created)}`} loading="lazy" /></a>
    <details><summary>${picture.width}×${picture.height}, ${shownSize(picture.size)}</summary>
      <dl class="facts">
        ${[
          ["Model", picture.model],
          ["Seed", picture.seed],
          ["Prediction", picture.prediction_id],
          ["Created", shownTime(picture.created)],
          ["IPFS", picture.ipfs === "off" ? null : picture.ipfs],
          ["CID", picture.ipfs === "off" ? null : picture.cid],
        ]
          .filter(([, value]) => value !== null && value !== undefined)
          .map(([label, value]) => html`<div><dt>${label}</dt><dd>${value}</dd></div>`)}
      </dl>
      <div class="actions">
        ${picture.gateway && html`<a href=${picture.gateway} target="_blank" rel="noopener noreferrer">Open on IPFS</a>`}
        ${picture.ipfs !== "sent" && picture.can_upload && html`<button type="button" class="quiet" onClick=${act("POST", `${path}/upload`)}>Send to IPFS</button>`}
        <button type="button" class="quiet" onClick=${() => confirm("Delete this picture?") && remove()}>Delete</button>
      </div>
      ${failure && html`<${Failure} error=${failure} />`}
    </details>
  </li>`;
}

function shownTime(seconds) {
  return new Date(seconds * 1000).toLocaleString();
}
