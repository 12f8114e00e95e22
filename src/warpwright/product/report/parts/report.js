"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const viewer = find("viewer"), slide = find("slide"), play = find("play");
  const tabs = [...viewer.querySelectorAll("[role=tab]")];
  const at = { swipe: { name: "Position", min: 0, max: 100, value: 50 }, checkerboard: { name: "Squares", min: 2, max: 30, value: 8 } };
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let timer = 0;
  document.documentElement.classList.add("js");

  const swap = () => { viewer.dataset.flick = viewer.dataset.flick === "on" ? "off" : "on"; };
  const run = (on) => {
    clearInterval(timer);
    timer = on ? setInterval(swap, 700) : 0;
    play.textContent = on ? "Pause" : "Play";
    play.setAttribute("aria-pressed", String(on));
  };
  const put = (value) => {
    const mode = viewer.dataset.mode, kept = at[mode];
    if (!kept) return;
    kept.value = Math.min(kept.max, Math.max(kept.min, value));
    slide.value = kept.value;
    slide.setAttribute("aria-valuetext", mode === "swipe" ? `fixed left of ${Math.round(kept.value)} %` : `${kept.value} squares`);
    viewer.style.setProperty(mode === "swipe" ? "--at" : "--n", mode === "swipe" ? `${kept.value}%` : kept.value);
  };
  const select = (tab) => {
    for (const one of tabs) {
      one.setAttribute("aria-selected", String(one === tab));
      one.tabIndex = one === tab ? 0 : -1;
    }
    const mode = tab.dataset.mode;
    viewer.dataset.mode = mode;
    viewer.dataset.flick = "off";
    find("views").setAttribute("aria-labelledby", tab.id);
    if (at[mode]) {
      find("slide-name").textContent = at[mode].name;
      slide.min = at[mode].min;
      slide.max = at[mode].max;
      put(at[mode].value);
    }
    run(mode === "flicker" && !still);
  };

  for (const tab of tabs) {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key], here = tabs.indexOf(tab);
      const next = step ? (here + step + tabs.length) % tabs.length : { Home: 0, End: tabs.length - 1 }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      tabs[next].focus();
      select(tabs[next]);
    });
  }
  slide.addEventListener("input", () => put(Number(slide.value)));
  play.addEventListener("click", () => run(!timer));
  find("swap").addEventListener("click", () => { run(false); swap(); });
  for (const choice of viewer.querySelectorAll("[name=other]")) {
    choice.addEventListener("change", () => { viewer.dataset.other = choice.value; });
  }
  for (const name of ["outlines", "points"]) {
    find(name)?.addEventListener("change", (event) => { viewer.dataset[name] = event.target.checked ? "on" : "off"; });
  }
  for (const stack of viewer.querySelectorAll(".stack")) {
    const follow = (event) => {
      const box = stack.querySelector(".fixed").getBoundingClientRect();
      put((100 * (event.clientX - box.left)) / box.width);
    };
    stack.addEventListener("pointerdown", (event) => {
      if (viewer.dataset.mode === "flicker") { run(false); swap(); }
      if (viewer.dataset.mode !== "swipe") return;
      stack.setPointerCapture(event.pointerId);
      follow(event);
    });
    stack.addEventListener("pointermove", (event) => {
      if (viewer.dataset.mode === "swipe" && stack.hasPointerCapture(event.pointerId)) follow(event);
    });
  }
})();
