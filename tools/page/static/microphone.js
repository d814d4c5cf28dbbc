// The microphone as blocks of int16 samples.

export class Microphone {
  // `onBlock` gets an Int16Array some twenty times a second, and `onEnd` is called if the microphone is unplugged.
  static async open(onBlock, onEnd = () => {}) {
    if (!navigator.mediaDevices) {
      throw new Error("The browser gives no microphone to this page. Open it as http://127.0.0.1 or http://localhost.");
    }
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
    } catch (error) {
      throw new Error(error.name === "NotAllowedError"
        ? "The browser refused the microphone. Allow it in the settings of the browser, and try again."
        : `The microphone cannot be used: ${error.message}. Check that it is connected.`);
    }
    const microphone = new Microphone();
    microphone.stream = stream;
    microphone.context = new AudioContext();
    await microphone.context.audioWorklet.addModule("/static/worklet.js");
    const node = new AudioWorkletNode(microphone.context, "recorder", { numberOfInputs: 1, numberOfOutputs: 1 });
    node.port.onmessage = event => onBlock(event.data);
    microphone.context.createMediaStreamSource(stream).connect(node).connect(microphone.context.destination);
    await microphone.context.resume();
    stream.getAudioTracks()[0].addEventListener("ended", onEnd);
    return microphone;
  }

  get rate() { return this.context.sampleRate; }

  close() {
    this.stream.getTracks().forEach(track => track.stop());
    this.context.close();
  }
}
