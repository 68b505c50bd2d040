// Beside the conversation: the last request, or a first one, in other languages, the raw frames, and the timing of the last answer.

import { html, useState } from "../vendor/preact.js";
import { Code } from "../shared/code.js";
import { speed } from "./answers.js";
import { LANGUAGES } from "./samples.js";

const SHOWN_FRAMES = 500;

export function Inspector({ body, answer }) {
  return html`<aside class="inspector" aria-label="Request">
    <${Timing} answer=${answer} />
    <${Samples} body=${body} />
    <${Frames} answer=${answer} />
  </aside>`;
}

function Timing({ answer }) {
  if (!answer) return null;
  const { first, whole, rate } = speed(answer);
  const rows = [
    ["First text", first !== null && `${Math.round(first)} ms`],
    ["Whole answer", whole !== null && `${(whole / 1000).toFixed(2)} s`],
    ["Tokens", answer.usage && `${answer.usage.prompt_tokens} in, ${answer.usage.completion_tokens} out${answer.dify.usage_estimated ? " (estimated)" : ""}`],
    ["Speed", rate && `${rate.toFixed(1)} tokens/s`],
    ["Price", answer.dify.usage?.total_price && `${answer.dify.usage.total_price} ${answer.dify.usage.currency ?? ""}`],
    ["Finish", answer.finish],
    ["Conversation", answer.dify.conversation_id],
  ].filter(([, value]) => value);
  return html`<dl class="timing">${rows.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

function Samples({ body }) {
  const [language, setLanguage] = useState("curl");
  const base = new URL("v1", document.baseURI).href;
  return html`<section>
    <h2 id="samples">The request as a program</h2>
    <div class="choices" role="group" aria-labelledby="samples">
      ${Object.keys(LANGUAGES).map((name) => html`<button type="button" aria-pressed=${name === language} onClick=${() => setLanguage(name)}>${name}</button>`)}
    </div>
    <${Code} text=${LANGUAGES[language](base, "", body)} label=${`Request in ${language}`} />
  </section>`;
}

function Frames({ answer }) {
  if (!answer?.frames.length) return null;
  const hidden = answer.frames.length - SHOWN_FRAMES;
  return html`<details class="frames">
    <summary>${answer.frames.length} raw frames</summary>
    ${hidden > 0 && html`<p class="hint">The first ${hidden} are not shown.</p>`}
    <ol tabindex="0" aria-label="Frames">
      ${answer.frames.slice(-SHOWN_FRAMES).map((frame) => html`<li><small>${Math.round(frame.at - answer.timing.started)} ms</small> <code>${frame.data}</code></li>`)}
    </ol>
  </details>`;
}
