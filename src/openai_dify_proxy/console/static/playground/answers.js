// An answer while it streams: the fold over the chunks of a chat completion.

/** An answer without content. */
export function emptyAnswer() {
  return {
    role: "assistant",
    text: "",
    reasoning: "",
    calls: [],
    files: [],
    citations: [],
    dify: {},
    usage: null,
    finish: null,
    error: null,
    frames: [],
    timing: { started: performance.now(), first: null, ended: null },
  };
}

/** Return `answer` with one more frame: its data as received, and when it came. */
export function withFrame(answer, { data, at }) {
  const frames = [...answer.frames, { data, at }];
  if (data === "[DONE]") return { ...answer, frames };
  const chunk = JSON.parse(data);
  if (chunk.error) return { ...answer, frames, error: chunk.error };
  return { ...withChunk(answer, chunk, at), frames };
}

function withChunk(answer, chunk, at) {
  const choice = chunk.choices?.[0];
  const delta = choice?.delta ?? {};
  const next = {
    ...answer,
    text: answer.text + (delta.content ?? ""),
    reasoning: answer.reasoning + (delta.reasoning_content ?? ""),
    calls: (delta.tool_calls ?? []).reduce(withCall, answer.calls),
    finish: choice?.finish_reason ?? answer.finish,
    usage: chunk.usage ?? answer.usage,
    timing: { ...answer.timing },
  };
  if (next.timing.first === null && (delta.content || delta.reasoning_content || delta.tool_calls)) next.timing.first = at;
  return chunk.dify ? withDify(next, chunk.dify) : next;
}

function withCall(calls, delta) {
  const call = calls[delta.index] ?? { id: "", name: "", arguments: "" };
  const next = [...calls];
  next[delta.index] = {
    id: delta.id ?? call.id,
    name: delta.function?.name ?? call.name,
    arguments: call.arguments + (delta.function?.arguments ?? ""),
  };
  return next;
}

function withDify(answer, dify) {
  return {
    ...answer,
    dify: { ...answer.dify, ...dify },
    files: dify.files ?? answer.files,
    citations: dify.retriever_resources ?? answer.citations,
  };
}

/** Milliseconds to the first text, and tokens per second after it; null while unknown. */
export function speed(answer) {
  const { started, first, ended } = answer.timing;
  const seconds = first !== null && ended !== null ? (ended - first) / 1000 : 0;
  const tokens = answer.usage?.completion_tokens;
  return {
    first: first === null ? null : first - started,
    whole: ended === null ? null : ended - started,
    rate: tokens && seconds > 0 ? tokens / seconds : null,
  };
}
