// Elements whose text has less contrast with what is behind it than WCAG 2's AA asks for, and the page's own ground.
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const parse = (text) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = text;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return { rgb: [r, g, b], a: a / 255 };
};
const over = (above, below) => ({ rgb: above.rgb.map((v, i) => v * above.a + below.rgb[i] * (1 - above.a)), a: 1 });
const light = ({ rgb }) => {
  const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  const layers = [];
  for (let e = element; e; e = e.parentElement) {
    layers.push(parse(getComputedStyle(e).backgroundColor));
    if (layers.at(-1).a === 1) break;
  }
  return layers.reduceRight((below, above) => over(above, below), { rgb: [255, 255, 255], a: 1 });
};
const weak = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.textContent.trim());
  if (!own || ["SCRIPT", "STYLE", "title", "desc"].includes(element.tagName) || element.closest(".skip")) continue;
  if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
  const style = getComputedStyle(element);
  const behind = ground(element);
  const ink = over(parse(element instanceof SVGElement ? style.fill : style.color), behind);
  const [a, b] = [light(ink), light(behind)].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && +style.fontWeight >= 700);
  if (ratio < (large ? 3 : 4.5)) weak.push([element.tagName, element.className.baseVal ?? element.className, element.textContent.slice(0, 40), ratio.toFixed(2)]);
}
return [weak, getComputedStyle(document.body).backgroundColor];
