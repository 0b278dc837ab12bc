// The choice of a model, which is shown where the server has several.

import { byId } from "./dom.js";
import { modelNames } from "./server.js";

const choice = byId("model");
const field = byId("models");

// What a body says of the model: nothing where there is no choice.
export const named = () => (field.hidden ? {} : { model: choice.value });

// Asks the server for its models, now and whenever the key is another one.
export function offer() {
  byId("key").addEventListener("change", show);
  show();
}

async function show() {
  const names = await modelNames();
  if (names.length) {
    const before = choice.value;
    choice.replaceChildren(...names.map((name) => new Option(name, name)));
    if (names.includes(before)) choice.value = before;
  }
  field.hidden = choice.length < 2;
}
