"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const said = find("volumes-said"), stage = find("volumes-stage"), canvas = find("volumes-canvas"), place = find("volumes-place");
  const base = find("volumes-base"), over = find("volumes-over"), view = find("volumes-view");
  const opacity = find("volumes-opacity"), tinted = find("volumes-tint");
  const STEPS = { // right of the patient is at the left
    ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1],
  };
  if (!document.createElement("canvas").getContext("webgl2")) {
    said.textContent = "This browser has no WebGL2, which the viewer needs. The pictures of the page show the same images.";
    return;
  }

  const bytes = (name) => Uint8Array.from(atob(find(`volume-${name}`).textContent), (letter) => letter.charCodeAt(0)).buffer;
  let shown = {};
  const tell = (at) => {
    const values = at.values.filter((one) => one.name in shown).map((one) => `${shown[one.name]} ${Number(one.value.toPrecision(3))}`);
    place.textContent = `${[...at.mm].slice(0, 3).map((mm) => mm.toFixed(1)).join(", ")} mm (to right, anterior, superior): ${values.join(", ")}`;
  };
  const viewer = new niivue.Niivue({
    logLevel: "error", loadingText: "", dragAndDropEnabled: false, isRadiologicalConvention: true, sagittalNoseLeft: true,
    crosshairWidth: 0.5, backColor: [0, 0, 0, 1], crosshairColor: [0.35, 0.89, 0.65, 0.8], fontColor: [1, 1, 1, 1], onLocationChange: tell,
  });

  const start = async () => {
    await viewer.attachToCanvas(canvas);
    for (const [name, [red, green]] of Object.entries({ green: [0, 255], magenta: [255, 0] })) { // which add up to grey
      viewer.addColormap(name, { R: [0, red], G: [0, green], B: [0, red], A: [255, 255], I: [0, 255] });
    }
    const known = {};
    for (const name of ["fixed", "moved", "before"]) {
      await viewer.loadFromArrayBuffer(bytes(name), `${name}.nii.gz`);
      known[name] = viewer.volumes.at(-1);
      known[name].name = name;
    }
    const label = (choice) => choice.selectedOptions[0].textContent;
    const show = () => {
      const first = known[base.value], second = over.value === base.value ? undefined : known[over.value];
      for (const one of Object.values(known)) {
        one.opacity = one === first ? 1 : one === second ? opacity.value / 100 : 0;
        one.colormap = !second || !tinted.checked ? "gray" : one === second ? "magenta" : "green";
      }
      viewer.opts.isAdditiveBlend = tinted.checked;
      opacity.disabled = tinted.disabled = !second;
      viewer.setVolume(first, 2); // only what lies over the lowest, which is never seen, adds up
      if (second) viewer.setVolume(second, 2);
      shown = { [base.value]: label(base), ...(second && { [over.value]: label(over) }) };
      viewer.createOnLocationChange();
    };
    for (const control of [base, over, opacity, tinted]) control.addEventListener("input", show);
    view.addEventListener("input", () => viewer.setSliceType(Number(view.value)));
    canvas.addEventListener("keydown", (event) => {
      const step = STEPS[event.key];
      if (!step) return;
      event.preventDefault();
      viewer.moveCrosshairInVox(...step);
      viewer.createOnLocationChange();
    });
    stage.addEventListener("wheel", (event) => { // scrolls the page until the viewer has the focus
      if (document.activeElement !== canvas) event.stopPropagation();
    }, { capture: true });
    show();
    said.textContent = "Click, or the arrow keys and Page Up and Page Down: move the cross. Wheel: the next slice, once clicked.";
  };
  stage.hidden = find("volumes-bar").hidden = false;
  start().catch((error) => {
    stage.hidden = find("volumes-bar").hidden = true;
    said.textContent = `The viewer could not start (${error.message ?? error}). The pictures of the page show the same images.`;
  });
})();
