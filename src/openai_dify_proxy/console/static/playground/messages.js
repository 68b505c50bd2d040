// One message of the conversation: a question, an answer with what belongs to it, or a result of a tool.

import { html, useState } from "../vendor/preact.js";
import { Markdown, isOwn } from "../shared/markdown.js";
import { shownSize } from "./files.js";
import { HUMAN_INPUT } from "./requests.js";

/** A question; `edit` is called with its new text. */
export function Question({ turn, edit }) {
  const [draft, setDraft] = useState(null);
  const save = (event) => {
    event.preventDefault();
    edit(draft);
    setDraft(null);
  };
  if (draft !== null) {
    return html`<form class="message question" onSubmit=${save}>
      <label class="hidden" for="edited">Edited question</label>
      <textarea id="edited" rows="3" value=${draft} onInput=${(event) => setDraft(event.target.value)} autofocus></textarea>
      <div class="actions">
        <button type="submit">Send again</button>
        <button type="button" class="quiet" onClick=${() => setDraft(null)}>Cancel</button>
      </div>
    </form>`;
  }
  return html`<article class="message question" aria-label="Question">
    <${Files} files=${turn.files} />
    ${turn.text && html`<p class="plain">${turn.text}</p>`}
    ${edit && html`<div class="actions"><button type="button" class="quiet small" onClick=${() => setDraft(turn.text)}>Edit</button></div>`}
  </article>`;
}

/** An answer; `regenerate` is absent where it makes no sense. */
export function Answer({ turn, running, regenerate, suggest }) {
  return html`<article class="message answer" aria-label="Answer" aria-busy=${running}>
    ${turn.reasoning &&
    html`<details class="reasoning"><summary>Reasoning</summary><${Markdown} text=${turn.reasoning} /></details>`}
    ${turn.dify.replaced && html`<p class="notice">Dify's moderation replaced this answer. The text before the replacement is void.</p>`}
    ${turn.text && html`<${Markdown} text=${turn.text} />`}
    ${turn.calls.map((call) => html`<${Call} key=${call.id} call=${call} />`)}
    <${Produced} files=${turn.files} text=${turn.text} />
    <${Citations} passages=${turn.citations} />
    ${turn.error && html`<p class="failure" role="alert">${turn.error.message} <code>${turn.error.code}</code></p>`}
    ${running && html`<p class="state" role="status"><span class="spinner" aria-hidden="true"></span> Answering …</p>`}
    ${turn.stopped && html`<p class="notice">Stopped.</p>`}
    ${turn.dify.suggested_questions?.length > 0 &&
    html`<div class="suggestions">
      ${turn.dify.suggested_questions.map((text) => html`<button type="button" class="quiet" onClick=${() => suggest(text)}>${text}</button>`)}
    </div>`}
    ${regenerate && html`<div class="actions"><button type="button" class="quiet small" onClick=${regenerate}>Regenerate</button></div>`}
  </article>`;
}

function Call({ call }) {
  const waits = call.name === HUMAN_INPUT; // its form is shown below the answer
  return html`<details class="call" open=${!waits}>
    <summary>${waits ? "Waits for a person" : html`Calls <code>${call.name}</code>`}</summary>
    <pre tabindex="0" aria-label="Arguments">${pretty(call.arguments)}</pre>
  </details>`;
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text; // still streaming, or not JSON
  }
}

/** The result of a tool. */
export function ToolResult({ turn }) {
  return html`<article class="message result" aria-label="Tool result">
    <p class="hint">Result of <code>${turn.name}</code></p>
    <pre tabindex="0" aria-label="Result">${turn.text}</pre>
  </article>`;
}

function Files({ files }) {
  if (!files.length) return null;
  return html`<ul class="files">
    ${files.map((file) => html`<li>
      ${file.type.startsWith("image/") ? html`<img src=${file.url} alt=${file.name} />` : html`<span class="file">${file.name} <small>${shownSize(file.size)}</small></span>`}
    </li>`)}
  </ul>`;
}

/** Files that the app produced, but for those that the text shows already. */
function Produced({ files, text }) {
  const others = files.filter((file) => !text.includes(file.url));
  if (!others.length) return null;
  return html`<ul class="files">
    ${others.map((file) => html`<li>
      ${file.type === "image" && isOwn(file.url)
        ? html`<a href=${file.url} target="_blank" rel="noopener"><img src=${file.url} alt=${file.filename ?? "Picture"} /></a>`
        : html`<a class="file" href=${file.url} target="_blank" rel="noopener noreferrer">${file.filename ?? file.url}</a>`}
    </li>`)}
  </ul>`;
}

function Citations({ passages }) {
  if (!passages.length) return null;
  return html`<details class="citations">
    <summary>${passages.length} ${passages.length === 1 ? "source" : "sources"}</summary>
    <ol>
      ${passages.map((passage) => html`<li>
        <strong>${passage.document_name ?? passage.title}</strong>
        ${passage.score !== undefined && passage.score !== null && html` <small>score ${Number(passage.score).toFixed(2)}</small>`}
        <p class="plain">${passage.content}</p>
      </li>`)}
    </ol>
  </details>`;
}
