// Browsers start no worker for a page read from the disk. Search needs one: here it runs in a hidden frame instead.
"use strict";

if (location.protocol === "file:") {
  // the search script looks for this name to find out that it is in a frame
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const home = new URL(address, document.baseURI);
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "search";
      document.documentElement.append(frame);
      const inside = frame.contentWindow;
      const deliver = (target, data) => {
        const event = new MessageEvent("message", { data });
        target.dispatchEvent(event);
        if (typeof target.onmessage === "function") target.onmessage(event);
      };
      const waiting = [];
      let ready = false;
      const send = (data) => deliver(inside, data);
      this.postMessage = (data) => (ready ? setTimeout(send, 0, data) : waiting.push(data));
      this.terminate = () => frame.remove();
      inside.postMessage = (data) => setTimeout(() => deliver(this, data), 0);
      const load = (source) =>
        new Promise((resolve, reject) => {
          const script = inside.document.createElement("script");
          script.src = new URL(source, home).href;
          script.onload = resolve;
          script.onerror = () => reject(new Error(`cannot load ${source}`));
          inside.document.body.append(script);
        });
      inside.importScripts = (...sources) =>
        sources.reduce((done, source) => done.then(() => load(source)), Promise.resolve());
      load(home).then(() => {
        ready = true;
        waiting.splice(0).forEach((data) => setTimeout(send, 0, data));
      });
    }
  };
}
