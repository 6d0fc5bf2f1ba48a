// The picture of the front page: the square can be moved by mouse, finger or arrow keys. All that it shows was computed
// before (tools/cover.py): a sheet of pictures, and what both networks say at every place. Without this file the still
// picture stays.
const home = document.querySelector("[data-cover]");
const { places, says } = JSON.parse(home.querySelector("script[type='application/json']").textContent);
const sheet = new Image();
sheet.src = home.dataset.cover;
sheet.decode().then(start, () => {}); // no sheet: the still picture stays

function start() {
  const side = sheet.naturalHeight / places;
  const stage = document.createElement("div");
  stage.className = "cover-stage";
  stage.tabIndex = 0;
  stage.setAttribute("role", "application");
  stage.setAttribute("aria-label", "A square on stripes, seen by two networks. The arrow keys move the square.");
  const titles = ["the picture: move the square", "network one says", "network two says"];
  const panels = titles.map((title) => {
    const figure = document.createElement("figure");
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = side;
    const text = document.createElement("figcaption");
    text.textContent = title;
    figure.append(canvas, text);
    stage.append(figure);
    return { pen: canvas.getContext("2d"), canvas, text };
  });
  const live = document.createElement("p");
  live.className = "visually-hidden";
  live.setAttribute("aria-live", "polite");

  let row = 3, column = 3;
  const show = () => {
    const place = row * places + column;
    panels.forEach(({ pen, text }, i) => {
      pen.drawImage(sheet, (column * panels.length + i) * side, row * side, side, side, 0, 0, side, side);
      if (i) text.textContent = `${titles[i]} “${says[i - 1][place][0]}”, ${Math.round(100 * says[i - 1][place][1])} %`;
    });
  };
  const move = (toRow, toColumn) => {
    const inside = (value) => Math.max(0, Math.min(places - 1, value));
    if (inside(toRow) === row && inside(toColumn) === column) return;
    [row, column] = [inside(toRow), inside(toColumn)];
    show();
  };
  const follow = (event) => {
    const canvas = panels.map((panel) => panel.canvas).find((one) => one === event.target);
    if (!canvas) return;
    const box = canvas.getBoundingClientRect();
    // The square's middle runs over a part of the picture only: its edges stay inside.
    const at = (value, start, length) => Math.round(((value - start) / length - 0.18) / 0.64 * (places - 1));
    move(at(event.clientY, box.top, box.height), at(event.clientX, box.left, box.width));
  };
  stage.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse" || event.buttons) follow(event); });
  stage.addEventListener("pointerdown", follow);
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  stage.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    move(row + step[0], column + step[1]);
    live.textContent = `Row ${row + 1}, column ${column + 1}: ${panels.slice(1).map(({ text }) => text.textContent).join("; ")}.`;
  });
  home.querySelector("[data-still]").replaceWith(stage, live);
  show();
}
