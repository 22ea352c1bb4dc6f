// The picture of this window's own camera or screen. It goes nowhere: a page that has a media
// server to talk to would push it there.

/** Why there is no picture: a key of the words. */
function reason(error) {
  switch (error.name) {
    case "NotAllowedError": return "camera.denied";
    case "NotFoundError":
    case "OverconstrainedError": return "camera.missing";
    case "NotReadableError":
    case "AbortError": return "camera.busy";
    default: return "camera.failed";
  }
}

/** There is no picture. `key` says why in the page's words, `message` in the browser's. */
export class CameraError extends Error {
  constructor(key, message) {
    super(message);
    this.key = key;
  }
}

/** One source at a time, shown in a video element. */
export class Camera {
  #video;
  #media = null;
  #turn = 0;
  /** Called when the source ends by itself: a camera that was pulled out, a screen no longer shared. */
  onended = () => {};

  constructor(video) {
    this.#video = video;
  }

  get on() {
    return this.#media !== null;
  }

  /** What the source really gives. */
  get has() {
    return {
      video: (this.#media?.getVideoTracks().length ?? 0) > 0,
      audio: (this.#media?.getAudioTracks().length ?? 0) > 0,
    };
  }

  /** Turns a "camera" or "desktop" on; false where it was turned off meanwhile. */
  async start(source, { video, audio }) {
    this.stop();
    const turn = this.#turn;
    if (!video && !audio) throw new CameraError("camera.nothing", "neither video nor audio");
    const devices = navigator.mediaDevices;
    if (!devices) throw new CameraError("camera.insecure", `not a secure origin: ${location.origin}`);
    let media;
    try {
      media = source === "desktop"
        ? await devices.getDisplayMedia({ video: true, audio })
        : await devices.getUserMedia({ video, audio });
    } catch (error) {
      throw new CameraError(reason(error), `${error.name}: ${error.message}`);
    }
    if (turn !== this.#turn) {
      for (const track of media.getTracks()) track.stop();
      return false;
    }
    this.#media = media;
    this.#video.srcObject = media;
    for (const track of media.getTracks()) {
      track.addEventListener("ended", () => {
        if (this.#media !== media) return;
        this.stop();
        this.onended();
      });
    }
    return true;
  }

  stop() {
    this.#turn += 1;
    for (const track of this.#media?.getTracks() ?? []) track.stop();
    this.#media = null;
    this.#video.srcObject = null;
  }
}
