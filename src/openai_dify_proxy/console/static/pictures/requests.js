// Requests of the Images API.

import { frames, send } from "../shared/api.js";

/** What is drawn at each step of a picture: what runs, and what is finished. */
export const IDLE = { running: false, started: 0, pictures: [], error: null };

/** Return the headers of the request: the values that are set. */
export function imageHeaders(values) {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined && value !== ""));
}

/**
 * Yield the pictures of a request as they are finished, as events of the Images API.
 *
 * `request` is `{model, prompt, image, mask, headers}`; with an image it is an edit.
 */
export async function* generate(request, signal) {
  const path = request.image ? "v1/images/edits" : "v1/images/generations";
  const options = { body: request.image ? form(request) : fields(request), headers: imageHeaders(request.headers), signal };
  for await (const { data } of frames(await send("POST", path, options))) {
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    if (event.error) throw Object.assign(new Error(event.error.message), event.error);
    yield event;
  }
}

function fields({ model, prompt }) {
  return { model, prompt, stream: true, partial_images: 3 };
}

function form(request) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields(request))) body.set(name, String(value));
  body.set("image", request.image);
  if (request.mask) body.set("mask", request.mask);
  return body;
}
