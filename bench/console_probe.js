// Runs in each page before its own scripts: when what is looked for is painted, and how long frames take.
(() => {
  const painted = () =>
    new Promise((resolve) => {
      const after = new MessageChannel(); // delivered once the frame that is being made was handed over
      after.port1.onmessage = () => resolve(performance.now());
      after.port2.postMessage(null);
    });
  const GIVEN_UP_MS = 20_000; // what did not come by then counts as that long
  const STEP_GIVEN_UP_MS = 5_000; // of an interaction
  const when = (isThere, atMost = GIVEN_UP_MS) =>
    new Promise((resolve) => {
      const until = performance.now() + atMost;
      const look = () => (isThere() || performance.now() > until ? painted().then(resolve) : requestAnimationFrame(look));
      requestAnimationFrame(look);
    });
  const LOADING = "p.state[role=status]"; // as src/ui/states.tsx says that something is coming
  const bench = { shown: null, whole: null, answered: null, frames: [] };
  window.subtextBench = bench;

  bench.expect = (selector) => {
    const isShown = () => document.querySelector("h1") && document.querySelector(selector);
    bench.shown = when(isShown);
    bench.whole = when(() => isShown() && !document.querySelector(LOADING));
  };
  // How the elements look that a key or a click is to change.
  const seen = (selector) =>
    [...document.querySelectorAll(selector)].map((one) => `${one.id} ${one.className} ${one.textContent}`).join();
  // From the next key or click: until the next frame, and until what the selector finds is another.
  bench.arm = (selector) => {
    const before = seen(selector);
    bench.answered = new Promise((resolve) => {
      const begin = (event) => {
        for (const type of ["keydown", "click"]) removeEventListener(type, begin, true);
        const isOther = () => seen(selector) !== before;
        Promise.all([when(() => true), when(isOther, STEP_GIVEN_UP_MS)]).then(([frame, change]) =>
          resolve({ frame: frame - event.timeStamp, change: change - event.timeStamp }),
        );
      };
      for (const type of ["keydown", "click"]) addEventListener(type, begin, true);
      const given = { frame: STEP_GIVEN_UP_MS, change: STEP_GIVEN_UP_MS };
      setTimeout(() => resolve(given), 2 * STEP_GIVEN_UP_MS); // no key or click came
    });
  };
  // Every frame with how far the element was scrolled by then.
  bench.record = (selector) => {
    const frames = [];
    bench.frames = frames;
    const note = (at) => {
      if (bench.frames !== frames) return;
      frames.push([at, document.querySelector(selector).scrollTop]);
      requestAnimationFrame(note);
    };
    requestAnimationFrame(note);
  };
  bench.stop = () => {
    const { frames } = bench;
    bench.frames = [];
    return frames;
  };
})();
