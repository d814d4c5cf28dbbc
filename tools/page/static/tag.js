// The tab that tags a file, a recording or an example.
import { ClipList } from "./list.js";
import { Microphone } from "./microphone.js";
import { Player } from "./player.js";
import { ask, clock, find, make, newest, query, say } from "./tools.js";

const LONGEST = 300;        // seconds of a recording

export function startTag(panel) {
  const status = find("#tag-status"), shown = find("#tagged"), upload = find("#upload"), example = find("#example");
  const player = new Player(find(".player", panel)), turn = newest();

  const similar = new Player(find("#similar .player")), similarStatus = find("#similar-status"), matchTurn = newest();
  const matches = new ClipList(find("#matches"), "Similar sounds",
                               { choose: playMatch, more: () => {}, start: () => similar.toggle() });

  async function playMatch(match) {
    const current = matchTurn();
    try {
      if (!match.sound) throw new Error("The file is not where it was when the archive was tagged.");
      const description = await ask(`/sound/${match.sound}`);
      if (!current()) return;
      say(similarStatus, "");
      await similar.show(description);
    } catch (error) {
      if (!current()) return;
      similar.hide();
      say(similarStatus, `${match.name}: ${error.message}`, true);
    }
  }

  async function tag(name, address, options = {}) {
    const current = turn();
    say(status, `${name} is being tagged.`);
    try {
      const result = await ask(address, options);
      if (!current()) return;
      say(status, "");
      shown.hidden = false;
      find("#found").textContent = `${result.found}, in ${result.seconds.toFixed(1)} seconds of sound`;
      find("#tag-notes").replaceChildren(...result.notes.map(note => make("p", {}, `Note: ${note}.`)));
      find("#tag-bars").innerHTML = result.bars;       // escaped by the server
      find("#similar").hidden = !result.similar;
      if (result.similar) {
        matches.show(result.similar, result.similar.length);
        similar.hide();
        matches.select(0);
      }
      await player.show(result, result.timeline);
    } catch (error) {
      if (!current()) return;
      player.hide();
      shown.hidden = true;
      say(status, error.message, true);
    }
  }

  upload.addEventListener("change", () => {
    const file = upload.files[0];
    if (!file) return;
    example.value = "";
    tag(file.name, `/tag?${query({ name: file.name })}`, { method: "POST", body: file });
  });
  example.addEventListener("change", () => {
    if (!example.value) return;
    upload.value = "";
    tag(example.selectedOptions[0].textContent, `/example/${example.value}`);
  });
  startRecorder(find("#record"), status, wav => {
    upload.value = "", example.value = "";
    tag("the recording", `/tag?${query({ name: "recording.wav" })}`, { method: "POST", body: wav });
  });
}

// A button that records until it is pressed again.
function startRecorder(button, status, done) {
  let microphone = null, blocks = [], samples = 0;
  const stop = () => {
    const rate = microphone.rate;
    microphone.close();
    microphone = null;
    button.textContent = "Record";
    say(status, "");
    if (samples) done(wavOf(blocks, samples, rate));
  };
  button.addEventListener("click", async () => {
    if (microphone) return stop();
    blocks = [], samples = 0;
    button.disabled = true;
    try {
      microphone = await Microphone.open(block => {
        if (!microphone) return;
        blocks.push(block);
        samples += block.length;
        button.textContent = `Stop, and tag ${clock(samples / microphone.rate)}`;
        if (samples >= LONGEST * microphone.rate) stop();
      });
      button.textContent = "Stop, and tag";
      say(status, "The microphone is being recorded.");
    } catch (error) {
      say(status, error.message, true);
    }
    button.disabled = false;
  });
}

// A wav file of blocks of int16 samples.
function wavOf(blocks, samples, rate) {
  const header = new DataView(new ArrayBuffer(44));
  const text = (place, word) => [...word].forEach(
    (letter, number) => header.setUint8(place + number, letter.charCodeAt(0)));
  text(0, "RIFF"), text(8, "WAVEfmt "), text(36, "data");
  header.setUint32(4, 36 + 2 * samples, true), header.setUint32(16, 16, true), header.setUint16(20, 1, true);
  header.setUint16(22, 1, true), header.setUint32(24, rate, true), header.setUint32(28, 2 * rate, true);
  header.setUint16(32, 2, true), header.setUint16(34, 16, true), header.setUint32(40, 2 * samples, true);
  return new Blob([header, ...blocks], { type: "audio/wav" });
}
