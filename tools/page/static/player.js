// The player: waveform, spectrogram and timeline of a sound, on one time axis, with zoom and a cursor.
import { breakable, clock, colour, find, make, newest, onColours, prepare, query, request } from "./tools.js";

const SHORTEST = 0.05;      // seconds in view
const PIXELS = 70;          // between the ticks of the time axis, at least

let playing = null;         // only one player sounds at a time

export class Player {
  constructor(place) {
    this.root = find("#player").content.cloneNode(true).firstElementChild;
    this.root.hidden = true;
    place.append(this.root);
    const part = selector => find(selector, this.root);
    this.name = part(".name"), this.play = part(".play"), this.seek = part(".seek input"), this.time = part(".time");
    this.wave = part(".wave"), this.mel = part(".mel"), this.hertz = part(".hertz"), this.lanes = part(".lanes");
    this.timeline = part(".timeline"), this.axis = part(".axis"), this.cursor = part(".cursor");
    this.save = part(".save"), this.bySecond = part(".by-second");
    this.audio = new Audio();
    this.turn = newest();
    this.play.addEventListener("click", () => this.toggle());
    this.seek.addEventListener("input", () => this.go(Number(this.seek.value)));
    part(".in").addEventListener("click", () => this.zoom(0.5));
    part(".out").addEventListener("click", () => this.zoom(2));
    part(".whole").addEventListener("click", () => this.look(0, this.seconds));
    this.lanes.addEventListener("click", event => {
      const box = this.wave.getBoundingClientRect(), share = (event.clientX - box.left) / box.width;
      if (share >= 0 && share <= 1) this.go(this.start + share * (this.end - this.start));
    });
    this.lanes.addEventListener("wheel", event => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      const box = this.wave.getBoundingClientRect(), share = (event.clientX - box.left) / box.width;
      this.zoom(event.deltaY < 0 ? 0.8 : 1.25, this.start + share * (this.end - this.start));
    }, { passive: false });
    for (const kind of ["play", "pause", "ended"]) this.audio.addEventListener(kind, () => this.follow());
    new ResizeObserver(() => this.draw()).observe(this.lanes);
    onColours(() => this.draw());
  }

  // Show a sound: sound, name, seconds and ticks of the server, and perhaps the timeline.
  async show(description, timeline = []) {
    const current = this.turn();
    this.audio.pause();
    this.samples = null;
    Object.assign(this, { sound: description.sound, seconds: description.seconds, start: 0, end: description.seconds });
    this.rows = timeline;
    this.name.textContent = description.name;
    this.hertz.replaceChildren(...description.ticks.map(tick =>
      make("span", { style: `bottom: ${tick.place}%` }, tick.text)));
    this.seek.max = this.seconds, this.seek.value = 0;
    this.showTimeline();
    this.root.hidden = false;
    this.look(0, this.seconds);
    const content = await (await request(`/sound/${this.sound}/audio.wav`)).arrayBuffer();
    if (!current()) return;
    this.samples = new Int16Array(content, 44, Math.floor((content.byteLength - 44) / 2));   // after the header
    if (this.address) URL.revokeObjectURL(this.address);
    this.address = URL.createObjectURL(new Blob([content], { type: "audio/wav" }));
    this.audio.src = this.address;
    this.save.href = this.address;
    this.save.download = description.name.replace(/\.[^.]*$/, "") + ".wav";
    this.draw();
  }

  hide() {
    this.turn();
    this.audio.pause();
    this.root.hidden = true;
  }

  showTimeline() {
    this.timeline.replaceChildren(...this.rows.flatMap(row => {
      const peak = Math.max(...row.values), second = row.values.indexOf(peak);
      return [make("span", { class: "gutter", title: row.name }, ...breakable(row.name)),
              make("canvas", { role: "img",
                               "aria-label": `${row.name} is highest, ${peak.toFixed(2)}, in second ${second}` })];
    }));
    this.bySecond.replaceChildren();
    if (!this.rows.length) return;
    const head = make("tr", {}, make("th", { scope: "col" }, "second"),
                      ...this.rows.map(row => make("th", { scope: "col" }, ...breakable(row.name))));
    const body = this.rows[0].values.map((_, second) => make("tr", {}, make("th", { scope: "row" }, String(second)),
      ...this.rows.map(row => make("td", {}, row.values[second].toFixed(2)))));
    this.bySecond.append(make("details", {}, make("summary", {}, "Tags of each second as a table"),
      make("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "Tags of each second" },
        make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)))));
  }

  toggle() {
    if (!this.audio.paused) return this.audio.pause();
    if (playing && playing !== this) playing.audio.pause();
    playing = this;
    this.audio.play().catch(() => { /* a newer sound was chosen */ });
  }

  // Move the cursor to a time in seconds.
  go(second) {
    this.audio.currentTime = second;
    this.moveCursor(second);
  }

  follow() {
    this.play.textContent = this.audio.paused ? "Play" : "Pause";
    this.moveCursor(this.audio.currentTime);
    if (!this.audio.paused) requestAnimationFrame(() => this.follow());
  }

  moveCursor(second) {
    const width = this.end - this.start;
    if (width < this.seconds && (second < this.start || second > this.end)) {
      this.look(second - 0.1 * width, second + 0.9 * width);
    }
    this.seek.value = second;
    this.time.textContent = `${clock(second)} / ${clock(this.seconds)}`;
    this.seek.setAttribute("aria-valuetext", `${second.toFixed(1)} of ${this.seconds.toFixed(1)} seconds`);
    this.cursor.style.left = `${100 * (second - this.start) / (this.end - this.start)}%`;
  }

  // Change the time in view by a factor around a second, by default the cursor or the middle of the view.
  zoom(factor, around = this.audio.currentTime) {
    if (around < this.start || around > this.end) around = (this.start + this.end) / 2;
    const width = Math.max(SHORTEST, factor * (this.end - this.start));
    const share = (around - this.start) / (this.end - this.start);
    this.look(around - share * width, around + (1 - share) * width);
  }

  // Show a part of the sound, moved into the sound.
  look(start, end) {
    const width = Math.min(end - start, this.seconds);
    this.start = Math.min(Math.max(0, start), this.seconds - width);
    this.end = this.start + width;
    clearTimeout(this.pending);
    const load = () => {
      this.mel.src = `/sound/${this.sound}/spectrogram.png?${query({ start: this.start, end: this.end })}`;
      const part = `from ${this.start.toFixed(1)} to ${this.end.toFixed(1)} seconds`;
      this.mel.alt = `Spectrogram of ${this.name.textContent} ${part}`;
    };
    if (width === this.seconds) load(); else this.pending = setTimeout(load, 120);
    this.draw();
  }

  draw() {
    if (this.root.hidden || !this.lanes.clientWidth) return;
    this.drawWave();
    this.drawRows();
    this.drawAxis();
    this.moveCursor(this.audio.currentTime || 0);
  }

  drawWave() {
    const [context, width, height] = prepare(this.wave);
    context.fillStyle = colour("blue");
    this.wave.setAttribute("aria-label", `Waveform from ${this.start.toFixed(1)} to ${this.end.toFixed(1)} seconds`);
    if (!this.samples) return;
    const rate = this.samples.length / this.seconds;
    for (let x = 0; x < width; x++) {
      const first = Math.floor((this.start + x / width * (this.end - this.start)) * rate);
      const last = Math.max(first + 1, Math.floor((this.start + (x + 1) / width * (this.end - this.start)) * rate));
      const step = Math.max(1, Math.floor((last - first) / 200));
      let low = 0, high = 0;
      for (let place = first; place < last && place < this.samples.length; place += step) {
        low = Math.min(low, this.samples[place]), high = Math.max(high, this.samples[place]);
      }
      const top = height / 2 * (1 - high / 32768), bottom = height / 2 * (1 - low / 32768);
      context.fillRect(x, top, 1, Math.max(1, bottom - top));
    }
  }

  drawRows() {
    const tone = colour("deep"), ground = colour("page");
    this.timeline.querySelectorAll("canvas").forEach((canvas, number) => {
      const [context, width, height] = prepare(canvas), { values } = this.rows[number];
      context.fillStyle = ground;
      context.fillRect(0, 0, width, height);
      context.fillStyle = tone;
      const place = second => width * (second - this.start) / (this.end - this.start);
      for (let second = Math.floor(this.start); second < Math.min(values.length, this.end); second++) {
        const right = place(Math.min(second + 1, this.seconds));
        context.globalAlpha = values[second];
        context.fillRect(place(second), 0, right - place(second), height);
      }
    });
  }

  drawAxis() {
    const width = this.end - this.start, count = Math.max(1, Math.floor(this.axis.clientWidth / PIXELS));
    const power = 10 ** Math.floor(Math.log10(width / count));
    const step = [1, 2, 5, 10].map(factor => factor * power).find(each => width / each <= count) || 10 * power;
    const digits = Math.max(0, -Math.floor(Math.log10(step)));
    const ticks = [];
    for (let tick = Math.ceil(this.start / step); tick * step <= this.end + 1e-9; tick++) {
      const share = (tick * step - this.start) / width;
      const style = share < 0.03 ? "left: 0; transform: none"
        : share > 0.95 ? "right: 0; transform: none" : `left: ${100 * share}%`;
      ticks.push(make("span", { style }, `${(tick * step).toFixed(digits)} s`));
    }
    this.axis.replaceChildren(...ticks);
  }
}
