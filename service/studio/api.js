// The routes of the service that the page uses, and their failures in one form.

import { at, config } from "./page.js";

// A stream without data for three heartbeats is dead, even if the connection was not closed.
const SILENCE_MS = 3000 * config.sse_heartbeat_seconds;

// `problem` is the service's problem details, or an object with the same members. `temporary`: worth retrying automatically.
export class Failure extends Error {
  constructor(problem, temporary) {
    super(problem.title);
    this.problem = problem;
    this.temporary = temporary;
  }
}

export const problemOf = (error) => (error instanceof Failure ? error.problem : pageFault(error));

const pageFault = (error) => ({
  title: "The page failed",
  detail: `${error}.`,
  code: "page",
  billed: null,
  retryable: false,
});

// Timestamps in responses come from the service's clock, which may differ from the browser's.
let clockOffset = 0;
export const serviceTime = () => Date.now() + clockOffset;

// 128 random bits. crypto.randomUUID() exists only with HTTPS and on localhost.
export function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// Starts a request, or returns the status of the one with this Idempotency-Key.
export function submit(body, key, signal) {
  const headers = { "Idempotency-Key": key, Prefer: "respond-async" };
  return json("thumbnails", { method: "POST", body, headers, signal });
}

// Exports the uploaded picture of `body`, without Gemini.
export const exportPicture = (body, signal) => json("exports", { method: "POST", body, signal });

export async function findByKey(key) {
  return (await json(`thumbnails?idempotency_key=${key}`)).requests[0];
}

export const listNewest = async (limit) => (await json(`thumbnails?limit=${limit}`)).requests;
export const getStatus = (id) => json(`thumbnails/${id}`);
export const cancelRequest = (id) => json(`thumbnails/${id}/cancel`, { method: "POST" });

// Yields the events after number `after` as { number, kind, data }, and heartbeats without data.
// By fetch, because EventSource cannot send an Authorization header.
export async function* readEvents(id, after) {
  const response = await call(`thumbnails/${id}/events`, { headers: { "Last-Event-ID": String(after) } });
  if (response.status === 204) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await withinSilence(reader.read());
      if (done) return;
      const blocks = (text + value).split("\n\n");
      text = blocks.pop();
      yield* blocks.map(parseEvent);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parseEvent(block) {
  const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: ?(.*)/s, 2)));
  return { number: Number(fields.id), kind: fields.event, data: fields.data && JSON.parse(fields.data) };
}

async function withinSilence(reading) {
  let timer;
  const silence = new Promise((_, reject) => (timer = setTimeout(() => reject(unreachable()), SILENCE_MS)));
  try {
    return await Promise.race([reading, silence]);
  } catch {
    throw unreachable();
  } finally {
    clearTimeout(timer);
  }
}

async function json(path, options) {
  const response = await call(path, options);
  return parsed(await textOf(response, options?.signal)) ?? fail(strange(response));
}

async function call(path, options = {}) {
  const key = at("key").value.trim();
  const headers = key ? { ...options.headers, Authorization: `Bearer ${key}` } : options.headers;
  let response;
  try {
    response = await fetch(`api/${path}`, { cache: "no-store", ...options, headers });
  } catch (error) {
    throw options.signal?.aborted ? error : unreachable();
  }
  clockOffset = Date.parse(response.headers.get("Date")) - Date.now() || 0;
  return response.ok ? response : fail(await failureOf(response, options.signal));
}

async function textOf(response, signal) {
  try {
    return await response.text();
  } catch (error) {
    throw signal?.aborted ? error : unreachable();
  }
}

function fail(failure) {
  throw failure;
}

async function failureOf(response, signal) {
  const problem = parsed(await textOf(response, signal));
  if (!problem?.code) return strange(response);
  const wait = Number(response.headers.get("Retry-After"));
  return new Failure({ ...problem, wait }, response.status >= 500 || response.status === 429);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function unreachable() {
  const title = navigator.onLine ? "The service does not answer" : "This computer is offline";
  const detail = "The connection could not be made, or broke before the answer. Check that the service is running.";
  return new Failure({ title, detail, code: "network", billed: null, retryable: false }, true);
}

function strange(response) {
  const problem = {
    title: "An answer that is not the service's",
    detail: `Something between this page and the service answered ${response.status} ${response.statusText}`.trim() + ".",
    code: `status ${response.status}`,
    request_id: response.headers.get("X-Request-Id"),
    billed: null,
    retryable: false,
  };
  return new Failure(problem, response.status >= 500);
}
