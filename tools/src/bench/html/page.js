// The values under the pointer. The page shows everything else without this.
for (const figure of document.querySelectorAll("figure.plot")) {
  const svg = figure.querySelector("svg"), tip = figure.querySelector(".tip");
  const cursor = svg.querySelector(".cursor"), width = svg.viewBox.baseVal.width;
  const curves = JSON.parse(figure.querySelector("script").textContent);
  const near = (points, x) => {
    let low = 0, high = points.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (points[middle][0] < x) low = middle + 1; else high = middle;
    }
    return low > 0 && x - points[low - 1][0] < points[low][0] - x ? points[low - 1] : points[low];
  };
  const hide = () => { tip.hidden = true; cursor.classList.remove("on"); };
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), scale = width / box.width;
    const x = (event.clientX - box.left) * scale;
    const lines = curves.filter((curve) => curve.points.length).map((curve) => {
      const point = near(curve.points, x), line = document.createElement("div");
      const key = document.createElement("i");
      key.className = `key c${curve.colour}`;
      line.append(key, curves.length > 1 ? `${curve.name}: ${point[2]}` : point[2]);
      return [line, point[0]];
    });
    if (!lines.length) return hide();
    tip.replaceChildren(...lines.map(([line]) => line));
    tip.hidden = false;
    cursor.setAttribute("transform", `translate(${lines[0][1]} 0)`);
    cursor.classList.add("on");
    const left = lines[0][1] / scale;
    tip.style.left = left > box.width / 2 ? "auto" : `${left + 12}px`;
    tip.style.right = left > box.width / 2 ? `${box.width - left + 12}px` : "auto";
  });
}
