// Where the next question is written, with the files that belong to it.

import { html, useRef, useState } from "../vendor/preact.js";
import { readFiles, shownSize } from "./files.js";

/** `send` receives `{text, files}`; `stop` is called instead while an answer runs. */
export function Composer({ running, send, stop, disabled }) {
  const [text, setText] = useState("");
  const [files, setFiles] = useState([]);
  const [problem, setProblem] = useState("");
  const [dragging, setDragging] = useState(false);
  const picker = useRef(null);

  const add = async (list) => {
    try {
      const added = await readFiles(list);
      setFiles((present) => [...present, ...added]);
      setProblem("");
    } catch (error) {
      setProblem(error.message);
    }
  };
  const submit = (event) => {
    event.preventDefault();
    if (running || disabled || !(text.trim() || files.length)) return;
    send({ text, files });
    setText("");
    setFiles([]);
  };
  const onKeyDown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  };
  const onPaste = (event) => {
    if (event.clipboardData.files.length) {
      event.preventDefault();
      add(event.clipboardData.files);
    }
  };
  const onDrop = (event) => {
    event.preventDefault();
    setDragging(false);
    add(event.dataTransfer.files);
  };
  const onDragOver = (event) => {
    event.preventDefault();
    setDragging(true);
  };
  return html`<form class=${dragging ? "composer dragging" : "composer"} onSubmit=${submit} onDrop=${onDrop}
      onDragOver=${onDragOver} onDragLeave=${() => setDragging(false)}>
    ${files.length > 0 &&
    html`<ul class="files">${files.map((file, index) => html`<li>
      <span class="file">${file.name} <small>${shownSize(file.size)}</small></span>
      <button type="button" class="quiet" onClick=${() => setFiles(files.filter((_, at) => at !== index))}
        aria-label=${`Remove ${file.name}`}>×</button>
    </li>`)}</ul>`}
    ${problem && html`<p class="failure" role="alert">${problem}</p>`}
    <label class="hidden" for="question">Question</label>
    <textarea id="question" rows="2" placeholder="Ask something. Drop or paste files here." value=${text}
      onInput=${(event) => setText(event.target.value)} onKeyDown=${onKeyDown} onPaste=${onPaste}></textarea>
    <div class="actions">
      <button type="button" class="quiet" onClick=${() => picker.current.click()}>Add files</button>
      <input ref=${picker} type="file" multiple hidden aria-label="Files" onChange=${(event) => {
        add(event.target.files);
        event.target.value = "";
      }} />
      <span class="hint">Enter sends, Shift+Enter breaks the line</span>
      ${running
        ? html`<button type="button" onClick=${stop}>Stop</button>`
        : html`<button type="submit" disabled=${disabled}>Send</button>`}
    </div>
  </form>`;
}
