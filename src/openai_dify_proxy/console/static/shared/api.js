// Requests to the proxy that served this page. Paths are relative to the page, so that a prefix of a reverse proxy works.

/** A failed request. `code`, `param` and `requestId` are those of the error envelope, if the answer had one. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, param = null, requestId = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;
    this.requestId = requestId;
  }
}

/** The id of this tab's session. Each tab signs in by itself. */
const tab = sessionStorage.getItem("tab") ?? crypto.getRandomValues(new Uint32Array(2)).join("");
sessionStorage.setItem("tab", tab);

/** The key of a Dify app that the person has signed in with. It is in the memory of this page only. */
let difyKey = null;

/** Use the key of a Dify app for all further requests; null for none. */
export function setDifyKey(key) {
  difyKey = key;
}

/** Called when the server rejects a request for want of a key. */
export const onSignedOut = new EventTarget();

/** Return the answer to a request, or throw an ApiError. A `body` that is not a FormData is sent as JSON. */
export async function send(method, path, { body, headers = {}, signal } = {}) {
  const isForm = body instanceof FormData;
  const options = {
    method,
    signal,
    headers: { "X-Console-Tab": tab, ...(difyKey && { Authorization: `Bearer ${difyKey}` }), ...headers },
    credentials: "same-origin",
  };
  if (body !== undefined) {
    options.body = isForm ? body : JSON.stringify(body);
    if (!isForm) options.headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The proxy does not answer. Is it running?");
  }
  if (response.ok) return response;
  const error = await failure(response);
  if (error.status === 401) onSignedOut.dispatchEvent(new Event("signedout"));
  throw error;
}

/** Return the JSON of an answer. */
export async function json(method, path, options) {
  const response = await send(method, path, options);
  return response.json();
}

async function failure(response) {
  const details = { status: response.status, requestId: response.headers.get("x-request-id") };
  try {
    const { error } = await response.json();
    return new ApiError(error.message, { ...details, code: error.code, param: error.param });
  } catch {
    return new ApiError(`The server answered with status ${response.status}.`, details);
  }
}

/** Yield the data of each frame of an event stream as text, with the milliseconds since `performance.timeOrigin`. */
export async function* frames(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const at = performance.now();
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const data = part
          .split("\n")
          .filter((line) => line.startsWith("data:"))
          .map((line) => line.slice(5).trimStart())
          .join("\n");
        if (data) yield { data, at };
      }
    }
  } finally {
    reader.cancel().catch(() => undefined); // the connection may have ended already
  }
}
