// Skeletons on a canvas: colours by side, lines by the person's size, doubtful joints faded. As posezoo's own drawing.

const COLOURS = { left: "#26a6ff", right: "#ff7a30", center: "#e9ecef" };
const OUTLINE = "rgba(14, 17, 22, 0.6)";
const RIM = "#ffffff";
const OPAQUE_SCORE = 0.6; // from here on a joint is not faded
const FAINTEST = 0.3;

/** A skeleton from the server, with what drawing needs worked out once. */
export function readSkeleton(table) {
  const sides = table.joints.map((_, joint) => (table.sides[joint] in COLOURS ? table.sides[joint] : "center"));
  const edges = table.edges.map(([a, b]) => ({ a, b, side: edgeSide(sides[a], sides[b]) }));
  return { name: table.name, joints: table.joints, sides, edges };
}

/** A limb has the side of its ends; between left and right it is neutral, towards the middle it keeps its side. */
function edgeSide(a, b) {
  if (a === b) return a;
  if (a !== "center" && b !== "center") return "center";
  return a === "center" ? b : a;
}

export const isShown = (point, least) => point[0] !== null && point[1] !== null && point[2] >= least;

/**
 * Draw people.
 *
 * look: scale (canvas pixels a pixel of the picture), unit (canvas pixels a thin line), jointScore, boxes, limbs,
 * names, focus ({person, joint} or null), accent (a colour for it).
 */
export function drawPeople(context, people, skeleton, look) {
  const far = [...people].sort((a, b) => area(a.box) - area(b.box)); // the near cover the far
  context.lineCap = "round";
  context.lineJoin = "round";
  for (const person of far) {
    if (look.boxes || look.focus?.person === person.index) drawBox(context, person, look);
    drawPerson(context, person, skeleton, look);
  }
  if (look.names) drawNames(context, far.reverse(), skeleton, look);
  if (look.focus) drawFocus(context, people, look);
  context.globalAlpha = 1;
}

const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);

/** A pixel's centre is where its coordinates point. */
export const place = ([x, y], scale) => [(x + 0.5) * scale, (y + 0.5) * scale];

function drawPerson(context, person, skeleton, look) {
  const { scale, unit, jointScore } = look;
  const shown = person.points.map((point) => isShown(point, jointScore));
  const at = person.points.map((point) => place(point, scale));
  const thin = 0.02 * Math.sqrt(Math.max(area(person.box), 1)) * scale;
  const line = Math.max(Math.min(1.6 * unit, 3 * thin + 0.1 * unit), thin);
  const alphas = person.points.map((point) => {
    const sure = (point[2] - jointScore) / Math.max(OPAQUE_SCORE - jointScore, 1e-6);
    return FAINTEST + (1 - FAINTEST) * Math.min(Math.max(sure, 0), 1);
  });
  const room = new Array(at.length).fill(Infinity); // to the nearest joint along a limb: faces and hands are small
  const limbs = [];
  for (const { a, b, side } of skeleton.edges) {
    if (!shown[a] || !shown[b]) continue;
    const length = Math.hypot(at[a][0] - at[b][0], at[a][1] - at[b][1]);
    room[a] = Math.min(room[a], length);
    room[b] = Math.min(room[b], length);
    limbs.push({ a, b, side, alpha: Math.min(alphas[a], alphas[b]), width: Math.max(Math.min(line, 0.35 * length), 0.6 * unit) });
  }
  const dots = [];
  shown.forEach((is, joint) => {
    if (is) dots.push({ joint, radius: Math.max(Math.min(0.72 * line + 0.35 * unit, 0.32 * room[joint]), 0.7 * unit) });
  });
  limbs.sort((a, b) => a.alpha - b.alpha);
  if (look.limbs) {
    for (const limb of limbs) stroke(context, at, limb, OUTLINE, limb.width + Math.min(1.4 * unit, 0.9 * limb.width));
    for (const limb of limbs) stroke(context, at, limb, COLOURS[limb.side], limb.width);
  }
  for (const { joint, radius } of dots) {
    context.globalAlpha = alphas[joint];
    const rim = radius > 2 * unit ? Math.min(Math.max(0.7 * unit, 0.3 * radius), 1.8 * unit) : 0;
    disc(context, at[joint], radius + Math.min(0.8 * unit, 0.6 * radius), OUTLINE);
    if (rim) disc(context, at[joint], radius, RIM);
    disc(context, at[joint], radius - rim, COLOURS[skeleton.sides[joint]]);
  }
}

function stroke(context, at, { a, b, alpha }, colour, width) {
  context.globalAlpha = alpha;
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.beginPath();
  context.moveTo(...at[a]);
  context.lineTo(...at[b]);
  context.stroke();
}

function disc(context, [x, y], radius, colour) {
  context.fillStyle = colour;
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

function drawBox(context, person, look) {
  const [x1, y1] = place(person.box, look.scale);
  const [x2, y2] = place(person.box.slice(2), look.scale);
  const focused = look.focus?.person === person.index;
  context.globalAlpha = focused ? 1 : FAINTEST + (0.85 - FAINTEST) * person.boxScore;
  for (const [colour, width] of [[OUTLINE, 2.8], [focused ? look.accent : RIM, 1.5]]) {
    context.strokeStyle = colour;
    context.lineWidth = width * look.unit;
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
}

/** Names beside the joints, the near people's first; one that would cover another is left out. */
function drawNames(context, people, skeleton, look) {
  const height = 11 * look.unit;
  const texts = skeleton.joints.map((name) => name.replaceAll("_", " "));
  context.font = `600 ${height}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  context.globalAlpha = 1;
  context.strokeStyle = "rgba(14, 17, 22, 0.85)";
  context.lineWidth = 3 * look.unit;
  context.fillStyle = RIM;
  const widths = texts.map((text) => context.measureText(text).width);
  const { width: wide, height: high } = context.canvas;
  const taken = [];
  for (const person of people) {
    person.points.forEach((point, joint) => {
      if (!isShown(point, look.jointScore)) return;
      const at = place(point, look.scale);
      if (at[0] < 0 || at[0] > wide || at[1] < 0 || at[1] > high) return; // not in the picture: neither is its name
      const left = besideJoint(at[0], widths[joint], wide, skeleton.sides[joint], look.unit);
      const y = within(at[1], 0.6 * height, high - 0.6 * height);
      const box = [left, y - 0.6 * height, left + widths[joint], y + 0.6 * height];
      if (taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3])) return;
      taken.push(box);
      context.strokeText(texts[joint], left, y);
      context.fillText(texts[joint], left, y);
    });
  }
}

const within = (value, least, most) => Math.max(least, Math.min(value, most));

/** Where a name starts: on the joint's own side, on the other one where it would leave the picture. */
function besideJoint(x, long, wide, side, unit) {
  const [gap, rim] = [7 * unit, 2 * unit];
  const starts = [x + gap, x - gap - long];
  if (side === "right") starts.reverse(); // a person who faces the camera has their right on our left
  const start = starts.find((left) => left >= rim && left + long <= wide - rim) ?? starts[0];
  return within(start, rim, wide - rim - long);
}

function drawFocus(context, people, { focus, scale, unit, accent }) {
  const point = people.find((person) => person.index === focus.person)?.points[focus.joint];
  if (!point || point[0] === null) return;
  const [x, y] = place(point, scale);
  context.globalAlpha = 1;
  for (const [colour, width] of [[OUTLINE, 5], [RIM, 3.4], [accent, 2.2]]) {
    context.strokeStyle = colour;
    context.lineWidth = width * unit;
    context.beginPath();
    context.arc(x, y, 9 * unit, 0, 2 * Math.PI);
    context.stroke();
  }
}

/** The shown joint nearest to a pixel of the picture, within `reach` pixels: {person, joint}, or null. */
export function jointAt(people, [x, y], reach, jointScore) {
  let found = null;
  let nearest = reach;
  for (const person of people) {
    person.points.forEach((point, joint) => {
      if (!isShown(point, jointScore)) return;
      const distance = Math.hypot(point[0] - x, point[1] - y);
      if (distance <= nearest) {
        nearest = distance;
        found = { person: person.index, joint };
      }
    });
  }
  return found;
}
