// Markdown that a model wrote, as safe HTML. Pictures of other servers become links: the page loads nothing from them.

import { useLayoutEffect, useRef, html } from "../vendor/preact.js";
import { marked } from "../vendor/marked.js";
import "../vendor/purify.js";

const purify = globalThis.DOMPurify(window);

const SANITIZED = {
  FORBID_TAGS: ["style", "form", "input", "button", "textarea", "select", "svg", "math", "audio", "video", "source"],
  FORBID_ATTR: ["style", "class", "id", "srcset", "name"],
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

/** The start of any HTML but these tags, which models use in tables and lists. The rest is shown as text. */
const HTML = /<(?!\/?(?:br|sub|sup|kbd|details|summary)\s*\/?>)/gi;

purify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName === "A" && node.hasAttribute("href")) {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer");
  }
  if (node.tagName === "IMG" && !isOwn(node.getAttribute("src"))) node.removeAttribute("src");
  if (node.tagName === "TABLE" || node.tagName === "PRE") node.setAttribute("tabindex", "0"); // they scroll
});

marked.use({
  gfm: true,
  breaks: true,
  renderer: {
    html(token) {
      return token.text.replace(HTML, "&lt;");
    },
    image(token) {
      return isOwn(token.href) ? false : this.link({ ...token, tokens: [{ type: "text", raw: token.text, text: token.text || token.href }] });
    },
  },
});

/** Whether the page may load a picture from this address. */
export function isOwn(address) {
  if (!address) return false;
  if (address.startsWith("data:image/")) return true;
  try {
    return new URL(address, document.baseURI).origin === location.origin;
  } catch {
    return false;
  }
}

/** Render Markdown. While `text` grows, it is rendered at most once per frame, and less often the longer that takes. */
export function Markdown({ text }) {
  const element = useRef(null);
  const pending = useRef({ timer: 0, cost: 0 });
  useLayoutEffect(() => {
    const state = pending.current;
    clearTimeout(state.timer);
    const draw = () => {
      const started = performance.now();
      element.current?.replaceChildren(purify.sanitize(marked.parse(text), SANITIZED));
      state.cost = performance.now() - started;
      state.drawn = performance.now();
    };
    const wait = (state.drawn ?? 0) + Math.max(16, 4 * state.cost) - performance.now();
    if (wait <= 0) draw();
    else state.timer = setTimeout(draw, wait);
    return () => clearTimeout(state.timer);
  }, [text]);
  return html`<div class="markdown" ref=${element}></div>`;
}
