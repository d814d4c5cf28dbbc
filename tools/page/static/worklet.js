// Sends the first channel of its input as blocks of int16 samples. Its output is silent.
const SIZE = 2048;

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Int16Array(SIZE);
    this.count = 0;
  }

  process([input]) {
    for (const sample of input[0] ?? []) {
      this.block[this.count++] = Math.max(-32768, Math.min(32767, Math.round(32768 * sample)));
      if (this.count === SIZE) {
        this.port.postMessage(this.block, [this.block.buffer]);
        this.block = new Int16Array(SIZE);
        this.count = 0;
      }
    }
    return true;
  }
}

registerProcessor("recorder", Recorder);
