// Requests to this server. Paths are relative, so that a proxy may serve it under a prefix.

import { byId } from "./dom.js";

const STORED = "clip-endpoints key";
const field = byId("key");

export const address = (path) => new URL(path, document.baseURI).href;
export const hasKey = () => field.value.trim() !== "";

// What the server said instead of an answer.
// rows: the rows that failed, as {index, column, code, message}. retryAfter: seconds, or null.
export class Refused extends Error {
  constructor(message, { status = 0, code = "", rows = [], retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, code, rows, retryAfter });
  }
}

// Keeps the key in this tab's session storage, and nowhere else.
export function keepKey() {
  try {
    field.value = sessionStorage.getItem(STORED) ?? "";
    field.addEventListener("input", () => sessionStorage.setItem(STORED, field.value));
  } catch {
    // The browser keeps nothing for this page: the field itself holds the key.
  }
}

// The answer to a body, as JSON. Throws Refused; AbortError when the signal aborts.
export async function ask(path, body, signal) {
  const { response, content } = await send(path, body, signal);
  if (response.ok) return read(content) ?? cannotRead(response);
  const error = read(content)?.error;
  if (typeof error?.message !== "string") cannotRead(response);
  const rows = Array.isArray(error.rows) ? error.rows : [];
  const retryAfter = response.headers.get("Retry-After");
  throw new Refused(error.message, { status: response.status, code: error.code, rows, retryAfter });
}

// The names of the server's models; none where it does not tell, for want of a key, say.
export async function modelNames() {
  try {
    const response = await fetch(address("v1/models"), { headers: authorization(), cache: "no-store" });
    const models = response.ok ? await response.json() : { data: [] };
    return models.data.map(({ id }) => id);
  } catch {
    return [];
  }
}

async function send(path, body, signal) {
  const headers = { "Content-Type": "application/json", ...authorization() };
  const options = { method: "POST", headers, body: JSON.stringify(body), signal, cache: "no-store" };
  try {
    const response = await fetch(address(path), options);
    return { response, content: await response.text() };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("the server cannot be reached, or ended the connection");
  }
}

function authorization() {
  const key = field.value.trim();
  if (/[^\x21-\x7e]/.test(key)) throw new Refused("the key has a character that no key has");
  return key ? { Authorization: `Bearer ${key}` } : {};
}

function read(content) {
  try {
    return JSON.parse(content);
  } catch {
    return null;
  }
}

// Of a proxy, say.
function cannotRead({ status, statusText }) {
  throw new Refused(`the answer is not this server's: ${status} ${statusText}`.trim(), { status });
}
