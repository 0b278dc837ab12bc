// Elements. Strings become text, never markup: what people type and what servers say stays text.

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// A number from 0 to 1 that the style sheet draws.
export function withShare(made, share) {
  made.style.setProperty("--share", String(Math.min(1, Math.max(0, share))));
  return made;
}

export function byId(id) {
  return document.getElementById(id);
}
