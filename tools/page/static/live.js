// The tab that tags the microphone continuously.
//
// Only the newest window is sent, and never two at a time. If the server is slow, moments are skipped, so the tags do
// not fall behind. Nothing grows with time: the samples of one window and the probabilities of one minute are kept.
import { Microphone } from "./microphone.js";
import { ask, breakable, colour, find, make, onColours, prepare, query, say } from "./tools.js";

const EVERY = 0.5;          // seconds between two moments that are tagged
const MINUTE = 60;          // seconds in view
const ROWS = 8;             // tags in view

export function startLive(panel) {
  const button = find("#listen"), status = find("#live-status"), canvas = find("#live-timeline");
  const length = Number(panel.dataset.window);
  const names = [...find("#label").options].slice(1).map(option => option.textContent);
  let microphone = null, ring, filled, fresh, busy, skipped, moments, rows;

  // The state for tests and for readers of the console.
  const seen = window.live = { moments: 0, skipped: 0, lag: 0, kept: 0 };

  function take(block) {
    if (!microphone) return;
    ring.copyWithin(0, block.length);
    ring.set(block, ring.length - block.length);
    filled = Math.min(filled + block.length, ring.length);
    fresh += block.length;
    let peak = 0;
    for (const sample of block) peak = Math.max(peak, Math.abs(sample));
    find("#level").value = Math.max(-60, 20 * Math.log10(Math.max(peak, 1) / 32768));
    if (fresh < EVERY * microphone.rate) return;
    if (busy) {
      if (fresh >= 2 * EVERY * microphone.rate) { fresh -= EVERY * microphone.rate; seen.skipped = ++skipped; }
      return;
    }
    fresh = 0;
    tag(performance.now());
  }

  async function tag(time) {
    busy = true;
    try {
      const { probabilities } = await ask(`/live?${query({ rate: microphone.rate })}`,
                                          { method: "POST", body: ring.slice(ring.length - filled) });
      if (!microphone) return;
      moments.push({ time, probabilities: probabilities ?? names.map(() => 0), silent: !probabilities });
      moments = moments.filter(moment => time - moment.time <= 1000 * (MINUTE + 1));
      draw();
      const lag = (performance.now() - time) / 1000 + EVERY / 2;        // on average, a sound waits half a step
      Object.assign(seen, { moments: seen.moments + 1, lag, kept: moments.length });
      find("#lag").textContent = `${lag.toFixed(1)} seconds behind`;
      say(status, "");
    } catch (error) {
      if (microphone) say(status, error.message, true);
    } finally {
      busy = false;
    }
  }

  // The tags with the highest peaks of the minute. A row keeps its place as long as its tag is among them.
  function choose() {
    const peaks = names.map((_, place) => Math.max(0, ...moments.map(moment => moment.probabilities[place])));
    const best = peaks.map((_, place) => place).sort((one, two) => peaks[two] - peaks[one]).slice(0, ROWS);
    const free = best.filter(place => !rows.includes(place));
    rows = rows.map(place => best.includes(place) ? place : free.shift());
    rows = [...rows, ...free].slice(0, ROWS);
  }

  function draw() {
    if (!moments?.length) return;
    choose();
    const newest = moments[moments.length - 1], best = rows.reduce((one, two) =>
      newest.probabilities[two] > newest.probabilities[one] ? two : one);
    find("#now").textContent = newest.silent ? "silence" : `${names[best]} ${newest.probabilities[best].toFixed(2)}`;
    find("#live-names").replaceChildren(...rows.map(place => make("li", {},
      make("span", { title: names[place] }, ...breakable(names[place])),
      make("b", {}, newest.probabilities[place].toFixed(2)))));
    const [context, width, height] = prepare(canvas), line = height / ROWS;
    context.fillStyle = colour("page");
    for (let row = 0; row < rows.length; row++) context.fillRect(0, row * line + 2, width, line - 4);
    context.fillStyle = colour("deep");
    const place = time => width * (1 - (newest.time - time) / 1000 / MINUTE);
    rows.forEach((name, row) => moments.forEach((moment, number) => {
      const left = place(number ? moments[number - 1].time : moment.time - 1000 * EVERY);
      context.globalAlpha = moment.probabilities[name];
      context.fillRect(left, row * line + 2, place(moment.time) - left, line - 4);
    }));
  }

  function stop() {
    microphone?.close();
    microphone = null;
    button.textContent = "Start";
    find("#level").value = -60;
    find("#lag").textContent = "";
  }

  button.addEventListener("click", async () => {
    if (microphone) return stop();
    button.disabled = true;
    filled = fresh = skipped = 0, busy = false, moments = [], rows = [];
    Object.assign(seen, { moments: 0, skipped: 0, lag: 0, kept: 0 });
    try {
      const opened = await Microphone.open(take, () => {
        stop();
        say(status, "The microphone was disconnected. Connect it, and start again.", true);
      });
      ring = new Int16Array(Math.ceil(length * opened.rate));
      microphone = opened;
      button.textContent = "Stop";
      find("#live-shown").hidden = false;
      say(status, "");
    } catch (error) {
      say(status, error.message, true);
    }
    button.disabled = false;
  });
  document.addEventListener("tab", event => { if (event.detail !== "live" && microphone) stop(); });
  new ResizeObserver(draw).observe(canvas);
  onColours(draw);
}
