// A block of code with a button that copies it.

import { html, useState } from "../vendor/preact.js";

const COPIED_MS = 1500;

export function Code({ text, label }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setCopied(true);
    setTimeout(() => setCopied(false), COPIED_MS);
  };
  return html`
    <div class="code">
      <pre tabindex="0" aria-label=${label}><code>${text}</code></pre>
      ${navigator.clipboard &&
      html`<button type="button" class="quiet small copy" onClick=${copy}>
        ${copied ? "Copied" : "Copy"}<span class="hidden"> ${label}</span>
      </button>`}
    </div>
  `;
}
