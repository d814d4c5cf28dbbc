// Small helpers of all scripts of the page.

export const find = (selector, root = document) => root.querySelector(selector);

// Create an element. Texts are never read as HTML.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// A name that can break after its underscores.
export const breakable = name => name.split(/(?<=_)/).flatMap(part => [part, make("wbr")]);

// Fetch JSON. A refusal of the server becomes an Error with its sentence.
export async function ask(address, options = {}) {
  return (await request(address, options)).json();
}

export async function request(address, options = {}) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch {
    throw new Error("The server does not answer. Start tools.app again, and load the page again.");
  }
  if (answer.ok) return answer;
  let reason = "";
  try { reason = (await answer.json()).detail; } catch { /* no JSON */ }
  throw new Error(typeof reason === "string" && reason ? reason : `The server answered with error ${answer.status}.`);
}

export const query = values => new URLSearchParams(values).toString();

export function say(status, text, error = false) {
  status.textContent = text;
  status.classList.toggle("error", error);
}

// Only the newest call counts: `newest()` gives a function that tells whether it still is.
export function newest() {
  let current = 0;
  return () => { const mine = ++current; return () => mine === current; };
}

export function colour(name) {
  const probe = make("span", { style: `color: var(--${name}); display: none` });
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

export const clock = seconds =>
  `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;

// Give a canvas the pixels of its size on the screen, and return its context, width and height.
export function prepare(canvas) {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  return [context, width, height];
}

// Call `draw` when the colours of the page change.
export function onColours(draw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.addEventListener("colours", draw);
}
