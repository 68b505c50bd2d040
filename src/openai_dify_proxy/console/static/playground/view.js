// The playground: talk to an app, with everything that a request can hold.

import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { FirstRun } from "../session/view.js";
import { frames, json, send } from "../shared/api.js";
import { Failure, Loading, useLoaded } from "../shared/states.js";
import { emptyAnswer, withFrame } from "./answers.js";
import { CallForm } from "./calls.js";
import { Composer } from "./composer.js";
import { Inspector } from "./inspector.js";
import { Answer, Question, ToolResult } from "./messages.js";
import { Options } from "./options.js";
import { DEFAULTS, openCalls, requestBody } from "./requests.js";

const GREETING = [{ role: "user", text: "Hello!", files: [] }];

export function Playground({ chosen, session, reloadSession }) {
  const [list, error, reload] = useLoaded((signal) => json("GET", "v1/models", { signal }));
  if (error) return html`<${Failure} error=${error} retry=${reload} />`;
  if (!list) return html`<${Loading} what="models" />`;
  const models = list.data.filter((model) => model.type === "chat");
  if (!models.length) return html`<${FirstRun} session=${session} reload=${reloadSession} />`;
  return html`<${Conversation} models=${models} chosen=${chosen} />`;
}

function Conversation({ models, chosen }) {
  const [model, setModel] = useState(models.find(({ id }) => id === chosen) ?? models[0]);
  const [options, setOptions] = useState(DEFAULTS);
  const [turns, setTurns] = useState([]);
  const [problem, setProblem] = useState(null);
  const [body, setBody] = useState(null);
  const running = useRef(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => () => running.current?.abort(), []);

  const run = async (history) => {
    let request;
    try {
      request = requestBody(model, options, history);
    } catch (invalid) {
      setProblem(invalid);
      return;
    }
    setProblem(null);
    setBody(request);
    setBusy(true);
    const leaving = new AbortController();
    running.current = leaving;
    let answer = emptyAnswer();
    const show = () => setTurns([...history, answer]);
    show();
    try {
      const response = await send("POST", "v1/chat/completions", { body: request, signal: leaving.signal });
      for await (const frame of frames(response)) {
        answer = withFrame(answer, frame);
        show();
      }
    } catch (failure) {
      answer = failure.name === "AbortError" ? { ...answer, stopped: true } : { ...answer, error: failure };
    }
    answer = { ...answer, timing: { ...answer.timing, ended: performance.now() } };
    show();
    running.current = null;
    setBusy(false);
  };

  const choose = (id) => {
    setModel(models.find((other) => other.id === id));
    setOptions(DEFAULTS);
    setTurns([]);
    setBody(null);
    setProblem(null);
  };
  const ask = ({ text, files }) => run([...turns, { role: "user", text, files }]);
  const open = busy ? [] : openCalls(turns);
  const answerCall = (call, text) => {
    const history = [...turns, { role: "tool", id: call.id, name: call.name, text }];
    if (openCalls(history).length) setTurns(history);
    else run(history);
  };
  const last = turns.findLast((turn) => turn.role === "assistant");
  return html`<div class="playground">
    <${Options} models=${models} model=${model} choose=${choose} options=${options} change=${setOptions} busy=${busy} />
    <section class="conversation" aria-label="Conversation">
      <${Turns} turns=${turns} model=${model} busy=${busy} run=${run} ask=${ask} />
      ${problem && html`<p class="failure" role="alert">${problem.message}</p>`}
      ${open.map((call) => html`<${CallForm} key=${call.id} call=${call} answer=${(text) => answerCall(call, text)} />`)}
      <${Composer} running=${busy} send=${ask} stop=${() => running.current?.abort()} disabled=${open.length > 0} />
    </section>
    <${Inspector} body=${body ?? requestBody(model, DEFAULTS, GREETING)} answer=${last} />
  </div>`;
}

function Turns({ turns, model, busy, run, ask }) {
  const end = useRef(null);
  const following = useFollowing(end, turns);
  if (!turns.length) return html`<${Opening} model=${model} ask=${ask} />`;
  const row = (turn, index) => {
    const before = turns.slice(0, index);
    if (turn.role === "user") {
      const edit = (text) => run([...before, { ...turn, text }]);
      return html`<${Question} key=${index} turn=${turn} edit=${busy ? null : edit} />`;
    }
    if (turn.role === "tool") return html`<${ToolResult} key=${index} turn=${turn} />`;
    const isLast = index === turns.length - 1;
    return html`<${Answer} key=${index} turn=${turn} running=${busy && isLast} suggest=${(text) => ask({ text, files: [] })}
      regenerate=${isLast && !busy ? () => run(before) : null} />`;
  };
  return html`<div class="turns" ...${following}>${turns.map(row)}<div ref=${end}></div></div>`;
}

/** Keep the end in view while the person has not scrolled up, also when a picture has loaded. Returns the listeners. */
function useFollowing(end, turns) {
  const follows = useRef(true);
  const top = useRef(0);
  const questions = turns.filter(({ role }) => role === "user").length;
  const follow = () => {
    const box = end.current?.parentElement;
    if (box && follows.current) box.scrollTop = box.scrollHeight;
  };
  const onScroll = ({ currentTarget: box }) => {
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    follows.current = atEnd || (follows.current && box.scrollTop >= top.current); // the content may have grown
    top.current = box.scrollTop;
  };
  useEffect(() => {
    follows.current = true;
  }, [questions]);
  useEffect(() => {
    const box = end.current?.parentElement;
    const observer = new MutationObserver(follow); // Markdown is drawn later than the turn
    if (box) observer.observe(box, { childList: true, subtree: true });
    return () => observer.disconnect();
  }, [turns.length > 0]);
  useEffect(follow, [turns]);
  return { onScroll, onLoadCapture: follow };
}

function Opening({ model, ask }) {
  const { opening_statement: statement, suggested_questions: suggestions = [], description } = model.dify ?? {};
  return html`<div class="turns opening">
    <h2>${model.dify?.name ?? model.id}</h2>
    <p>${statement ?? description ?? "Ask this app a question."}</p>
    <div class="suggestions">
      ${(suggestions ?? []).map((text) => html`<button type="button" class="quiet" onClick=${() => ask({ text, files: [] })}>${text}</button>`)}
    </div>
  </div>`;
}
